//! An endpoint's handshake.

use std::{io, net::IpAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{model::Backend, trust};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody vouches for the endpoint, or it is somebody else.
    #[error("{0}")]
    Verify(#[source] io::Error),
    /// The endpoint went away, or has nothing in common with this edge.
    #[error("{0}")]
    Handshake(#[source] io::Error),
    /// The endpoint does not speak HTTP/2, which the file asks for.
    #[error("the endpoint did not agree on HTTP/2 (ALPN)")]
    NoHttp2,
}

/// Who an endpoint must be (specification §1.12): the host that a rule writes, else the domain that the file names the endpoint by,
/// else the host that the client asked for; where that is no name, the endpoint's address, for which no server name is sent.
pub fn name_of(rewritten: Option<&str>, domain: Option<&str>, host: &str, address: IpAddr) -> ServerName<'static> {
    trust::server_name(rewritten.or(domain).unwrap_or(host), address)
}

/// Shakes hands with an endpoint. The caller's deadline holds.
pub async fn connect<S>(
    config: &Arc<ClientConfig>,
    backend: &Backend,
    name: ServerName<'static>,
    stream: S,
) -> Result<TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(failed)?;
    if backend.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NoHttp2);
    }
    Ok(stream)
}

fn failed(error: io::Error) -> ConnectError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => ConnectError::Verify(error),
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => ConnectError::NoHttp2,
        Some(_) | None => ConnectError::Handshake(error),
    }
}
