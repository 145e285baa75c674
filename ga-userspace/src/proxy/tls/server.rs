//! All that a handshake of one listener needs. Never changed: a new certificate makes a new one, and connections keep theirs.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    CipherSuite, Error, ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{certificate::Certificate, policy};
use crate::model::{HttpVersion, TlsPolicy};

/// How one listener shakes hands.
#[derive(Debug)]
pub struct Server {
    /// The client's order of suites counts.
    config: Arc<ServerConfig>,
    /// The edge's does.
    own_order: Arc<ServerConfig>,
    /// Within QUIC: of listeners that speak HTTP/3.
    #[cfg_attr(not(feature = "http3"), expect(dead_code, reason = "the configuration refuses such listeners"))]
    quic: Option<Arc<ServerConfig>>,
    certificates: Arc<Certificates>,
}

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Certificates {
    default: Arc<Certificate>,
    exact: BTreeMap<String, Arc<Certificate>>,
    /// By what follows the `*`: `.example.com`.
    wildcards: BTreeMap<String, Arc<Certificate>>,
}

impl Server {
    /// Sessions are resumed by the tickets of `ticketer` alone: nothing is remembered of a connection that has ended.
    pub(super) fn new(
        policy: TlsPolicy,
        max_version: HttpVersion,
        certificates: Certificates,
        ticketer: Arc<dyn ProducesTickets>,
    ) -> Result<Self, Error> {
        let certificates = Arc::new(certificates);
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Certificates>::clone(&certificates);
        let mut config = ServerConfig::builder_with_provider(Arc::new(policy::provider(policy)))
            .with_protocol_versions(policy::versions(policy))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ticketer;
        config.alpn_protocols = match max_version {
            HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
            HttpVersion::Http2 | HttpVersion::Http3 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let quic = (max_version == HttpVersion::Http3).then(|| {
            // TLS 1.3 is what it speaks of what the policy has; no early data, which may be sent twice (RFC 8470 §3).
            let mut quic = config.clone();
            (quic.alpn_protocols, quic.max_early_data_size) = (vec![b"h3".to_vec()], 0);
            Arc::new(quic)
        });
        let mut own_order = config.clone();
        own_order.ignore_client_order = true;
        Ok(Self { config: Arc::new(config), own_order: Arc::new(own_order), quic, certificates })
    }

    /// How the listener shakes hands within QUIC; none when it does not speak HTTP/3.
    #[cfg(feature = "http3")]
    pub(in crate::proxy) fn quic(&self) -> Option<&Arc<ServerConfig>> {
        self.quic.as_ref()
    }

    /// For a client that offers `suites`. One whose first is ChaCha20 has no instructions for AES, and it is asked for what it is good
    /// at; for all others AES-128 goes before AES-256, whose SHA-384 costs a handshake more and makes nothing safer.
    pub(super) fn config_for(&self, suites: &[CipherSuite]) -> &Arc<ServerConfig> {
        let first =
            suites.iter().find(|suite| self.config.crypto_provider().cipher_suites.iter().any(|own| own.suite() == **suite));
        if first == Some(&CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) { &self.config } else { &self.own_order }
    }

    pub(super) fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}

impl Certificates {
    /// `additional` are by domain, `*.` domains too, in lower case.
    pub(super) fn new(default: Arc<Certificate>, additional: impl IntoIterator<Item = (String, Arc<Certificate>)>) -> Self {
        let mut certificates = Self { default, exact: BTreeMap::new(), wildcards: BTreeMap::new() };
        for (domain, certificate) in additional {
            match domain.strip_prefix('*') {
                Some(rest) => certificates.wildcards.insert(rest.to_owned(), certificate),
                None => certificates.exact.insert(domain, certificate),
            };
        }
        certificates
    }

    /// The certificate for a client that asks for `name`, in lower case: that of the very domain, of the longest `*.` domain that it
    /// ends with, or the default one.
    pub(super) fn choose(&self, name: Option<&str>) -> &Arc<Certificate> {
        self.find(name).map_or(&self.default, |(_, certificate)| certificate)
    }

    /// The domain that [`choose`](Self::choose) goes by, as the file has it; `default` when it is none.
    pub(super) fn domain(&self, name: Option<&str>) -> String {
        match self.find(name) {
            Some((ending, _)) if ending.starts_with('.') => format!("*{ending}"),
            Some((domain, _)) => domain.to_owned(),
            None => "default".to_owned(),
        }
    }

    fn find(&self, name: Option<&str>) -> Option<(&str, &Arc<Certificate>)> {
        let name = name?;
        let endings = || name.match_indices('.').filter_map(|(dot, _)| name.get(dot..));
        let found = self.exact.get_key_value(name).or_else(|| endings().find_map(|ending| self.wildcards.get_key_value(ending)));
        found.map(|(domain, certificate)| (domain.as_str(), certificate))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(Arc::clone(&self.choose(name.as_deref()).key))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::certificate::tests, *};

    // proves: H01
    #[test]
    fn a_name_gets_its_own_certificate_then_that_of_its_longest_ending_then_the_default_one() {
        let dir = tempfile::tempdir().unwrap();
        let certificate = |domain: &str| {
            let (cert, key) = tests::own(&[domain]);
            let files = tests::files(dir.path(), "a", &cert, &key);
            (domain.to_owned(), Arc::new(Certificate::read(&files).unwrap()))
        };
        let additional = ["a.example", "*.example", "*.b.example", "x.b.example"].map(certificate);
        let certificates = Certificates::new(certificate("default.test").1, additional);
        for (name, expected) in [
            (None, "default.test"),
            (Some("other.test"), "default.test"),
            (Some("example"), "default.test"),
            (Some("a.example"), "a.example"),
            (Some("c.example"), "*.example"),
            (Some("b.example"), "*.example"),
            (Some("y.b.example"), "*.b.example"),
            (Some("z.y.b.example"), "*.b.example"),
            (Some("x.b.example"), "x.b.example"),
            (Some("w.x.b.example"), "*.b.example"),
            (Some("notexample"), "default.test"),
        ] {
            assert_eq!(certificates.choose(name).names.first().as_deref(), Some(expected), "{name:?}");
            assert_eq!(certificates.domain(name), if expected == "default.test" { "default" } else { expected });
        }
    }
}
