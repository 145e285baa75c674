//! The files of one certificate: read, parsed and judged before anybody sees them.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError as Judged, Error as TlsError, InconsistentKeys, SignatureAlgorithm,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use super::names::Names;
use crate::model::Certificate as Files;

/// Bytes of a file: a chain of ten with keys of 16,384 bits takes 64 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// Files that changed less than this ago may still be written.
const QUIET: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that no certificate or key is as large as.
    #[error("{}: it has more than {MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// A text.
    #[error("{}: not PEM: {}", path.display(), why(source))]
    Pem {
        /// Of which file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// No certificate in the file.
    #[error("{}: there is no certificate in it (`-----BEGIN CERTIFICATE-----`)", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// No private key in the file.
    #[error("{}: there is no private key in it (`-----BEGIN PRIVATE KEY-----`, not encrypted)", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// A certificate of the file.
    #[error("{}: certificate {number} is not one: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
        /// Why.
        why: String,
    },
    /// The order of the certificates.
    #[error("{}: certificate {number} did not issue certificate {}: the server's comes first, then its issuer's, and so on", path.display(), number - 1)]
    Chain {
        /// Which file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
    },
    /// The certificate is not for servers.
    #[error("{}: its extended key usage does not name servers", path.display())]
    NotForServers {
        /// Which file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error("{}: it is not the key of the certificate in {}", key.display(), cert.display())]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        cert: PathBuf,
    },
    /// The key.
    #[error("{}: the key cannot be used: {source}", path.display())]
    Key {
        /// Of which file.
        path: PathBuf,
        /// Why.
        source: TlsError,
    },
    /// The policy has no cipher suite for the key.
    #[error("{}: {word} has cipher suites for RSA only (ECDHE-RSA), and this is no RSA key", path.display())]
    Policy {
        /// The key's file.
        path: PathBuf,
        /// The policy.
        word: &'static str,
    },
    /// The time of validity.
    #[error("{}: it has expired, and the one in use has not", path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
    },
}

impl CertificateError {
    /// Whether the file itself could not be had: it may be there on another host.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// In words: the library prints the bytes of lines.
fn why(error: &pem::Error) -> String {
    if let pem::Error::MissingSectionEnd { .. } = error {
        "an `-----END …-----` line is missing".to_owned()
    } else if let pem::Error::IllegalSectionStart { .. } = error {
        "a `-----BEGIN …-----` line is not whole".to_owned()
    } else {
        error.to_string()
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Certificate {
    /// For handshakes.
    pub(super) key: Arc<CertifiedKey>,
    /// Who it is good for.
    pub(super) names: Arc<Names>,
    /// When its time begins, in Unix seconds.
    pub(super) not_before: i64,
    /// When it ends.
    pub(super) not_after: i64,
}

impl Certificate {
    /// Reads both files.
    pub(super) fn read(files: &Files) -> Result<Self, CertificateError> {
        let cert = bytes(&files.cert)?;
        let key = if files.key == files.cert { None } else { Some(bytes(&files.key)?) };
        Self::parse(files, &cert, key.as_deref().unwrap_or(&cert))
    }

    fn parse(files: &Files, cert: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let path = || PathBuf::from(&files.cert);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<_, _>>()
            .map_err(|source| CertificateError::Pem { path: path(), source })?;
        let mut parsed = Vec::with_capacity(chain.len());
        for (index, der) in chain.iter().enumerate() {
            let malformed = |why: String| CertificateError::Malformed { path: path(), number: index + 1, why };
            let (_, certificate) = parse_x509_certificate(der).map_err(|error| malformed(error.to_string()))?;
            parsed.push(certificate);
        }
        let Some(own) = parsed.first() else { return Err(CertificateError::NoCertificate { path: path() }) };
        for (index, pair) in parsed.windows(2).enumerate() {
            if let [issued, issuer] = pair
                && issued.issuer().as_raw() != issuer.subject().as_raw()
            {
                return Err(CertificateError::Chain { path: path(), number: index + 2 });
            }
        }
        if !is_for_servers(own) {
            return Err(CertificateError::NotForServers { path: path() });
        }
        let (names, validity) = (Arc::new(Names::of(own)), own.validity());
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = key_of(files, key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| unfit(files, error))?;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// Whether `now`, in Unix seconds, is within its time.
    pub(super) fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether its key is an RSA one.
    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }
}

fn bytes(path: &str) -> Result<Vec<u8>, CertificateError> {
    let wrong = |source| CertificateError::Read { path: path.into(), source };
    let metadata = fs::metadata(path).map_err(wrong)?;
    if metadata.len() > MAX_BYTES {
        return Err(CertificateError::TooLarge { path: path.into() });
    }
    if !metadata.is_file() {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
    }
    fs::read(path).map_err(wrong)
}

fn key_of(files: &Files, text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let path = || PathBuf::from(&files.key);
    PrivateKeyDer::from_pem_slice(text).map_err(|source| {
        let is_none = matches!(source, pem::Error::NoItemsFound);
        if is_none { CertificateError::NoKey { path: path() } } else { CertificateError::Pem { path: path(), source } }
    })
}

fn unfit(files: &Files, error: TlsError) -> CertificateError {
    let malformed = |why| CertificateError::Malformed { path: (&files.cert).into(), number: 1, why };
    if let TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) = error {
        CertificateError::OtherKey { key: (&files.key).into(), cert: (&files.cert).into() }
    } else if let TlsError::InvalidCertificate(Judged::BadEncoding) = error {
        malformed("its encoding is wrong".to_owned())
    } else if let TlsError::InvalidCertificate(why) = error {
        malformed(format!("{why:?}"))
    } else {
        CertificateError::Key { path: (&files.key).into(), source: error }
    }
}

/// A certificate that says what it is for must say servers (RFC 5280 §4.2.1.12).
fn is_for_servers(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// What tells one state of the files from another without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<FileStamp>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Of the last change, in seconds and nanoseconds since 1970: no program can set it.
    changed: (i64, i64),
}

impl Stamp {
    /// The state of files, at the ends of symbolic links; a file that is not there has one too.
    pub(super) fn of<'p>(paths: impl IntoIterator<Item = &'p str>) -> Self {
        Self(
            paths.into_iter().map(|path| fs::metadata(path).as_ref().map_or_else(|_| FileStamp::ABSENT, FileStamp::of)).collect(),
        )
    }

    /// Whether a file changed so shortly before `now` that more may come.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let is_fresh = |file: &FileStamp| {
            let (seconds, nanos) = file.changed;
            let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
            // A clock of another host may be ahead of ours.
            now.abs_diff(changed) < QUIET
        };
        self.0.iter().any(is_fresh)
    }
}

impl FileStamp {
    const ABSENT: Self = Self { device: 0, inode: 0, size: 0, changed: (0, 0) };

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    /// PEM of a certificate that vouches for itself, and of its key.
    pub(crate) fn own(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn files(dir: &Path, name: &str, cert: &str, key: &str) -> Files {
        let path = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
        let files = Files { cert: path("crt"), key: path("key") };
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        files
    }

    fn error(cert: &str, key: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), "a", cert, key);
        let error = Certificate::read(&files).expect_err("a good certificate").to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn one_file_may_hold_both() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = own(&["web.example", "*.web.example"]);
        let path = dir.path().join("both.pem").display().to_string();
        for text in [format!("{cert}{key}"), format!("{key}{cert}")] {
            fs::write(&path, text).unwrap();
            let certificate = Certificate::read(&Files { cert: path.clone(), key: path.clone() }).unwrap();
            assert!(certificate.names.covers("web.example") && certificate.names.covers("a.web.example"));
            assert!(!certificate.is_rsa());
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_of_that_file() {
        let ((cert, key), (other, other_key)) = (own(&["a.example"]), own(&["b.example"]));
        assert_eq!(error(&cert, &other_key), "a.key: it is not the key of the certificate in a.crt");
        assert_eq!(error("", &key), "a.crt: there is no certificate in it (`-----BEGIN CERTIFICATE-----`)");
        assert_eq!(error(&key, &key), "a.crt: there is no certificate in it (`-----BEGIN CERTIFICATE-----`)");
        assert_eq!(error(&cert, &cert), "a.key: there is no private key in it (`-----BEGIN PRIVATE KEY-----`, not encrypted)");
        assert_eq!(
            error(&format!("{cert}{other}"), &key),
            "a.crt: certificate 2 did not issue certificate 1: the server's comes first, then its issuer's, and so on"
        );
        let half = &cert[..cert.len() / 2];
        assert!(error(half, &key).starts_with("a.crt: not PEM"), "{}", error(half, &key));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(error(empty, &key).starts_with("a.crt: certificate 1 is not one"), "{}", error(empty, &key));
        assert!(error(&cert, &key[..key.len() / 2]).starts_with("a.key: not PEM"));
        assert_eq!(error(&"#".repeat((MAX_BYTES + 1) as usize), &key), "a.crt: it has more than 1048576 bytes");
        let absent =
            Certificate::read(&Files { cert: "/nonexistent".to_owned(), key: "/nonexistent".to_owned() }).expect_err("absent");
        assert!(absent.is_absence(), "{absent}");
    }

    #[test]
    fn a_chain_is_taken_in_its_order_and_a_client_certificate_not_at_all() {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "the issuer");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let own = params.signed_by(&key, &ca).unwrap().pem();
        let dir = tempfile::tempdir().unwrap();
        let good = files(dir.path(), "good", &format!("{own}{}", ca.pem()), &key.serialize_pem());
        assert_eq!(Certificate::read(&good).unwrap().key.cert.len(), 2);

        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = params.signed_by(&key, &ca).unwrap().pem();
        assert_eq!(error(&client, &key.serialize_pem()), "a.crt: its extended key usage does not name servers");
    }

    #[test]
    fn a_stamp_sees_a_file_rewritten_and_a_link_that_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["one", "two"] {
            fs::write(path(name), "same").unwrap();
        }
        std::os::unix::fs::symlink(path("one"), path("link")).unwrap();
        let link = path("link").display().to_string();
        let first = Stamp::of([link.as_str()]);
        assert_eq!(first, Stamp::of([link.as_str()]));
        assert!(first.is_fresh(SystemTime::now()), "it was written just now");
        assert!(!first.is_fresh(SystemTime::now() + 2 * QUIET));
        fs::remove_file(path("link")).unwrap();
        assert_eq!(Stamp::of([link.as_str()]), Stamp(vec![FileStamp::ABSENT]));
        std::os::unix::fs::symlink(path("two"), path("link")).unwrap();
        assert_ne!(first, Stamp::of([link.as_str()]));
    }
}
