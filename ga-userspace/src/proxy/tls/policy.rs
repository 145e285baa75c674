//! The documented policies, as far as the library has them (specification §1.13): suites with forward secrecy and authenticated
//! encryption. CBC suites, RSA key exchange, CCM, TLS 1.0 and 1.1 are in no policy.

use rustls::{
    SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{
            cipher_suite::{
                TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256,
                TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
            },
            default_provider,
        },
    },
    version::{TLS12, TLS13},
};

use crate::model::TlsPolicy;

const RSA: [SupportedCipherSuite; 2] = [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384];

const WITH_13: [SupportedCipherSuite; 7] = [
    TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// The suites of a policy.
pub(super) fn provider(policy: TlsPolicy) -> CryptoProvider {
    let suites = if is_for_rsa_only(policy) { RSA.to_vec() } else { WITH_13.to_vec() };
    CryptoProvider { cipher_suites: suites, ..default_provider() }
}

/// The versions of a policy.
pub(super) fn versions(policy: TlsPolicy) -> &'static [&'static SupportedProtocolVersion] {
    match policy {
        TlsPolicy::Tls12 | TlsPolicy::Tls12Strict => &ONLY_12,
        TlsPolicy::Tls12StrictWith13 => &FROM_12,
    }
}

/// Whether other keys than RSA have no suite.
pub(super) const fn is_for_rsa_only(policy: TlsPolicy) -> bool {
    match policy {
        TlsPolicy::Tls12 | TlsPolicy::Tls12Strict => true,
        TlsPolicy::Tls12StrictWith13 => false,
    }
}
