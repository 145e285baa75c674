//! A client's handshake, and what is known of its connection afterwards.

use std::{cell::RefCell, io, net::IpAddr, sync::Arc, time::Duration};

use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::{
    names::{Names, host_of},
    server::Server,
};

/// For the whole handshake, from accepting the connection to its last message.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client took too long.
    #[error("no handshake within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The client went away.
    #[error("the client ended the connection within the handshake")]
    Closed(#[source] io::Error),
    /// Client and edge have nothing in common, or the client does not speak TLS.
    #[error("{0}")]
    Refused(#[source] io::Error),
}

/// What client and edge agreed on.
#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    /// The name that the client asked for, in lower case.
    pub server_name: Option<String>,
    /// HTTP/2 was agreed on.
    pub is_h2: bool,
    /// HTTP/3 was.
    pub is_h3: bool,
    /// None: nothing is known of the certificate, and every host is covered.
    names: Option<Arc<Names>>,
    /// The latest host that is covered: most connections ask for one.
    covered: RefCell<String>,
}

/// Shakes hands within `deadline`; a client that took longer, or that sent nothing, is told nothing.
pub async fn accept<S>(stream: S, server: &Server, deadline: Duration) -> Result<(TlsStream<S>, TlsInfo), AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let config = Arc::clone(server.config_for(begun.client_hello().cipher_suites()));
        begun.into_stream(config).await
    };
    let stream = timeout(deadline, handshake).await.map_err(|_| AcceptError::Timeout(deadline))?.map_err(failed)?;
    let (_, connection) = stream.get_ref();
    let server_name = connection.server_name().map(str::to_ascii_lowercase);
    let info = TlsInfo { is_h2: connection.alpn_protocol() == Some(b"h2"), ..TlsInfo::of(server, server_name) };
    Ok((stream, info))
}

fn failed(error: io::Error) -> AcceptError {
    let gone = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    if gone.contains(&error.kind()) { AcceptError::Closed(error) } else { AcceptError::Refused(error) }
}

impl TlsInfo {
    fn of(server: &Server, server_name: Option<String>) -> Self {
        let names = Some(Arc::clone(&server.certificates().choose(server_name.as_deref()).names));
        Self { names, server_name, ..Self::default() }
    }

    /// What was agreed on within QUIC with a client that asked for that name.
    #[cfg(feature = "http3")]
    pub(in crate::proxy) fn http3(server: &Server, server_name: Option<String>) -> Self {
        Self { is_h3: true, ..Self::of(server, server_name.map(|name| name.to_ascii_lowercase())) }
    }

    /// Of a client that asked for `server_name` and was shown a certificate of `names`.
    pub(super) fn named(server_name: Option<String>, names: Arc<Names>) -> Self {
        Self { server_name, names: Some(names), ..Self::default() }
    }

    /// Whether a request for `authority` (`Host` or `:authority`, with or without a port) belongs on this connection; if not, the answer
    /// is 421 (RFC 9110 §15.5.20). It does when the client asked for that very name in the handshake, or the certificate is good for
    /// it. A client that asked for no name, as is usual with addresses (RFC 6066 §3), may ask for an address.
    pub fn covers(&self, authority: &str) -> bool {
        let Some(names) = &self.names else { return true };
        if *self.covered.borrow() == authority && !authority.is_empty() {
            return true;
        }
        let host = host_of(authority);
        let is_covered = match &self.server_name {
            Some(name) => name.eq_ignore_ascii_case(host),
            None => host.parse::<IpAddr>().is_ok(),
        } || names.covers(host);
        if is_covered {
            authority.clone_into(&mut self.covered.borrow_mut());
        }
        is_covered
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use x509_parser::parse_x509_certificate;

    use super::*;

    fn info(server_name: Option<&str>) -> TlsInfo {
        let params = CertificateParams::new(["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Names::of(&parse_x509_certificate(certificate.der()).unwrap().1);
        TlsInfo { server_name: server_name.map(str::to_owned), names: Some(Arc::new(names)), ..TlsInfo::default() }
    }

    // proves: H01
    #[test]
    fn a_request_belongs_where_its_host_was_asked_for_or_is_vouched_for() {
        let asked = info(Some("c.example"));
        for host in ["c.example", "C.Example:8443", "c.example", "a.example", "a.example:443", "x.b.example", "x.b.example."] {
            assert!(asked.covers(host), "{host}");
        }
        for host in ["", "d.example", "x.y.b.example", "192.0.2.1", "[2001:db8::1]:443"] {
            assert!(!asked.covers(host), "{host}");
        }
        let silent = info(None);
        for host in ["192.0.2.1", "192.0.2.1:8443", "[2001:db8::1]:443", "a.example"] {
            assert!(silent.covers(host), "{host}");
        }
        for host in ["", "c.example", "d.example"] {
            assert!(!silent.covers(host), "{host}");
        }
    }
}
