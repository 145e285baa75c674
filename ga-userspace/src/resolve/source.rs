//! Reading an inventory's file and asking its address, plain or in TLS.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{ETAG, HOST, HeaderValue, IF_NONE_MATCH},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    inventory::{self, Form, MAX_BYTES},
    tls,
};
use crate::model::Hosts;

/// For one question, from connecting to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<std::time::SystemTime>,
    size: u64,
    inode: u64,
}

/// The file's state; an error when there is none.
pub(super) async fn stamp(path: &Path) -> io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = tokio::fs::metadata(path).await?;
    Ok(Stamp { modified: metadata.modified().ok(), size: metadata.len(), inode: metadata.ino() })
}

/// The names in a file.
pub(super) async fn file(path: &Path) -> Result<Hosts, String> {
    let size = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES as u64 {
        return Err(inventory::InventoryError::TooLarge.to_string());
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?;
    let form = if path.extension().is_some_and(|extension| extension == "json") { Form::Json } else { Form::Toml };
    inventory::parse(&text, form).map_err(|error| error.to_string())
}

/// What was at an address: names, and the tag to ask with next time; none when they did not change since the last one.
type Brought = Result<Option<(Hosts, Option<HeaderValue>)>, String>;

/// Asks an address; `ca` vouches for it instead of the system.
pub(super) async fn url(url: &str, ca: Option<&Path>, tag: Option<HeaderValue>) -> Brought {
    timeout(PATIENCE, ask(url, ca, tag)).await.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())))
}

async fn ask(url: &str, ca: Option<&Path>, tag: Option<HeaderValue>) -> Brought {
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let is_secured = uri.scheme_str() == Some("https");
    let authority = uri.authority().ok_or("it names no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if is_secured { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    if is_secured { exchange(tls::secured(stream, host, ca).await?, &uri, tag).await } else { exchange(stream, &uri, tag).await }
}

async fn exchange<S>(stream: S, uri: &Uri, tag: Option<HeaderValue>) -> Brought
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: &dyn std::error::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str())).header(HOST, authority);
    if let Some(tag) = tag {
        request = request.header(IF_NONE_MATCH, tag);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| text(&error))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let (status, tag) = (response.status(), response.headers().get(ETAG).cloned());
        if status == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        if status != StatusCode::OK {
            return Err(format!("status {}", status.as_u16()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|error| error.to_string())?;
        let body = String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "it is not text".to_owned())?;
        let form = if body.trim_start().starts_with('{') { Form::Json } else { Form::Toml };
        let hosts = inventory::parse(&body, form).map_err(|error| text(&error))?;
        Ok(Some((hosts, tag)))
    };
    // The connection must be driven while the answer comes; what came before it ended is still to be read.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
