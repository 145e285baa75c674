//! Certificates and policies as JSON Schema.

use schemars::JsonSchema;
use serde::Serialize;

/// Documented sets of versions and cipher suites: ECDHE with AES-GCM. `tls_cipher_policy_1_0` and `tls_cipher_policy_1_1` cannot be
/// honoured.
#[derive(JsonSchema, Serialize)]
pub enum SecurityPolicy {
    /// TLS 1.2, RSA keys.
    #[serde(rename = "tls_cipher_policy_1_2")]
    Tls12,
    /// The same.
    #[serde(rename = "tls_cipher_policy_1_2_strict")]
    Tls12Strict,
    /// TLS 1.2 and 1.3, RSA and ECDSA keys.
    #[serde(rename = "tls_cipher_policy_1_2_strict_with_1_3")]
    Tls12StrictWith13,
}

/// What clients are shown. Files are PEM, read again when they change.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Certificates {
    /// For clients that ask for no name, or for one that no other certificate is for.
    pub default: CertificateFiles,
    /// For clients that ask for a domain: the very one, else the longest `*.` domain that the name ends with.
    #[schemars(default = "none")]
    pub additional: Vec<AdditionalCertificate>,
}

/// One file, or two. What does not begin with `/` is beside the configuration.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum CertificateFiles {
    /// A file that has the certificate, those that issued it, and the key.
    One(#[schemars(length(min = 1, max = 4_095))] String),
    /// The key apart.
    Two(CertificateAndKey),
}

/// The key apart.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct CertificateAndKey {
    /// The certificate, and then those that issued it.
    #[schemars(length(min = 1, max = 4_095))]
    pub cert: String,
    /// Its private key, not encrypted; without it the key is in the same file.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 4_095))]
    pub key: Option<String>,
}

/// A certificate for one domain.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct AdditionalCertificate {
    /// `b.example`, or `*.b.example` for every name that ends with `.b.example`. Each once.
    #[schemars(regex(
        pattern = r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$"
    ))]
    pub domain: String,
    /// The certificate, and then those that issued it.
    #[schemars(length(min = 1, max = 4_095))]
    pub cert: String,
    /// Its private key, not encrypted; without it the key is in the same file.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 4_095))]
    pub key: Option<String>,
}

fn none() -> Vec<AdditionalCertificate> {
    Vec::new()
}
