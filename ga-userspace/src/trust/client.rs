//! The client's side of TLS.

use std::{net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::roots::{TrustError, roots};

/// How to speak TLS to others. With `verify` their certificates must be vouched for by those of the file `ca`, or by the system's;
/// without it any will do. `protocols` are offered by ALPN (RFC 7301), the best one first. Reads files.
pub fn client(verify: bool, ca: Option<&Path>, protocols: &[&[u8]]) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = if verify {
        config.with_root_certificates(roots(ca)?).with_no_client_auth()
    } else {
        config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Whom `host`, which may carry a port, says that the other side must be: itself if it is a name; else `address`, for which no
/// server name is sent (RFC 6066 §3).
pub fn server_name(host: &str, address: IpAddr) -> ServerName<'static> {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    match ServerName::try_from(name.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => name,
        Ok(_) | Err(_) => ServerName::IpAddress(address.to_canonical().into()),
    }
}

/// Takes every certificate. Signatures count all the same.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_without_its_port_and_an_address_by_none() {
        let address: IpAddr = [192, 0, 2, 7].into();
        let by_address = ServerName::IpAddress(address.into());
        for host in ["web.example", "web.example:8443"] {
            assert_eq!(server_name(host, address), ServerName::try_from("web.example").unwrap());
        }
        for host in ["", "198.51.100.1", "198.51.100.1:443", "[2001:db8::1]", "[2001:db8::1]:443", "a b"] {
            assert_eq!(server_name(host, address), by_address, "{host}");
        }
    }

    #[test]
    fn a_file_of_roots_that_is_not_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            client(true, Some(&path), &[]).expect_err(text).to_string()
        };
        let name = path.display().to_string();
        assert_eq!(error("hello"), format!("{name}: there is no certificate in it"));
        assert!(
            error("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                .starts_with(&format!("{name}: certificate 1"))
        );
        assert!(error("-----BEGIN CERTIFICATE-----\nAA").starts_with(&format!("{name}: not PEM")));
        let absent = client(true, Some(Path::new("/nonexistent/ca.pem")), &[]).expect_err("absent").to_string();
        assert!(absent.starts_with("/nonexistent/ca.pem: "), "{absent}");
        assert!(client(false, Some(Path::new("/nonexistent/ca.pem")), &[]).is_ok(), "nobody needs to be vouched for");
    }
}
