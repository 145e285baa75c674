//! Certificates and policies of HTTPS listeners (specification §1.13, §1.14).

/// What an HTTPS listener shows its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Versions and cipher suites.
    pub policy: TlsPolicy,
    /// For clients that name no other.
    pub default: Certificate,
    /// For clients that name a domain, each domain once.
    pub additional: Vec<(String, Certificate)>,
}

/// Files of a certificate, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Certificate {
    /// Full path of the certificate and those that vouch for it (PEM).
    pub cert: String,
    /// Full path of its private key (PEM); may be the same file.
    pub key: String,
}

/// Documented sets of versions and cipher suites, those that can be honoured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsPolicy {
    /// `tls_cipher_policy_1_2`: TLS 1.2.
    Tls12,
    /// `tls_cipher_policy_1_2_strict`: TLS 1.2.
    Tls12Strict,
    /// `tls_cipher_policy_1_2_strict_with_1_3`: TLS 1.2 and 1.3.
    #[default]
    Tls12StrictWith13,
}

impl TlsPolicy {
    /// The documented name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tls12 => "tls_cipher_policy_1_2",
            Self::Tls12Strict => "tls_cipher_policy_1_2_strict",
            Self::Tls12StrictWith13 => "tls_cipher_policy_1_2_strict_with_1_3",
        }
    }
}
