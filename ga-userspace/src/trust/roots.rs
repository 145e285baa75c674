//! The certificates that vouch for others: the system's, or those of a file.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject as _},
};

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of certificates.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its text.
    #[error("{}: not PEM: {source}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// One of its certificates.
    #[error("{}: certificate {number}: {source}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
        /// Why.
        source: rustls::Error,
    },
    /// Certificates.
    #[error("{}: there is no certificate in it", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The library.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Who vouches: the certificates of the file `ca`, or the system's. Reads files.
pub(super) fn roots(ca: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let text = std::fs::read(path).map_err(|source| TrustError::Read { path: path.into(), source })?;
    for (index, certificate) in CertificateDer::pem_slice_iter(&text).enumerate() {
        let certificate = certificate.map_err(|source| TrustError::Pem { path: path.into(), source })?;
        let wrong = |source| TrustError::Certificate { path: path.into(), number: index + 1, source };
        roots.add(certificate).map_err(wrong)?;
    }
    if roots.is_empty() { Err(TrustError::Empty { path: path.into() }) } else { Ok(roots) }
}
