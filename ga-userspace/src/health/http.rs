//! `GET` over HTTP/1.1, plain or in TLS: one request, no redirect is followed, and no more of the answer is read than is needed.

use std::sync::{Arc, OnceLock};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{outcome::Reason, roster::Check};
use crate::model::HealthCheck;

/// Bytes of a body that are searched for the expected text.
const BODY_LIMIT: usize = 64 << 10;

/// Asks over a connection, and judges the answer.
pub(super) async fn ask<S>(stream: S, how: &HealthCheck) -> Result<(), Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Reason::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(&how.path)
        .header(HOST, how.host.as_deref().unwrap_or_default())
        .header(USER_AGENT, concat!("ga/", env!("CARGO_PKG_VERSION"), " health"))
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Reason::Broken(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        if !how.expected_status.iter().any(|range| range.contains(status)) {
            return Err(Reason::Status(status));
        }
        match &how.body {
            Some(text) => find(answer.into_body(), text.as_bytes()).await,
            None => Ok(()),
        }
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection ends before its answer was looked at: that one is complete then, or there is none.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// The text within the first bytes of the body.
async fn find(mut body: Incoming, text: &[u8]) -> Result<(), Reason> {
    let mut read: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Reason::Broken(error.to_string()))?;
        read.extend(frame.data_ref().map_or(&[][..], |data| &data[..data.len().min(BODY_LIMIT - read.len())]));
        if read.windows(text.len()).any(|window| window == text) {
            return Ok(());
        }
        if read.len() >= BODY_LIMIT {
            break;
        }
    }
    Err(Reason::Body)
}

/// The same in TLS.
pub(super) async fn ask_secured<S>(stream: S, check: &Check) -> Result<(), Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = |error: &dyn std::fmt::Display| Reason::Tls(error.to_string());
    let config = config(check.how.verify).as_ref().map_err(|error| tls(error))?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(server_name(check), stream).await.map_err(|error| tls(&error))?;
    ask(stream, &check.how).await
}

/// Whom the endpoint is asked to be: the host if it is a name, else its address, which no server name is sent for (RFC 6066 §3).
fn server_name(check: &Check) -> ServerName<'static> {
    let host = check.how.host.as_deref().unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    match ServerName::try_from(name.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => name,
        Ok(_) | Err(_) => ServerName::IpAddress(check.target.ip().into()),
    }
}

/// Made once for each answer to whether certificates count.
fn config(verify: bool) -> &'static Result<Arc<ClientConfig>, Error> {
    static TRUSTING: OnceLock<Result<Arc<ClientConfig>, Error>> = OnceLock::new();
    static VERIFYING: OnceLock<Result<Arc<ClientConfig>, Error>> = OnceLock::new();
    let provider = || Arc::new(aws_lc_rs::default_provider());
    if verify {
        return VERIFYING.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
            Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        });
    }
    TRUSTING.get_or_init(|| {
        let provider = provider();
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Arc::new(config.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()))
    })
}

/// Takes every certificate: a probe asks whether the endpoint serves, and a load balancer's endpoints have certificates of their
/// own making. Signatures count all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
