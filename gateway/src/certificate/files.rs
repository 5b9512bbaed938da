//! The two files of a certificate: read, understood and checked. Every mistake is a sentence that says whose it is.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use crate::regular_file;

/// A file longer than this holds no certificate and no key.
const MOST: u64 = 1 << 20;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those that vouch for it, in this order (PEM).
    pub cert: PathBuf,
    /// The certificate's private key (PEM).
    pub key: PathBuf,
}

/// What is wrong with the files, as far as each was understood: at least one of the two.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// With the certificate's.
    pub cert: Option<String>,
    /// With the key's.
    pub key: Option<String>,
}

/// What is in the files at one moment, to be compared.
pub(super) type Digests = [Option<[u8; 32]>; 2];

/// A certificate with its key, ready to be shown.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) certified: Arc<CertifiedKey>,
    /// When it ends, if that can be told.
    pub(super) ends: Option<SystemTime>,
}

impl Files {
    /// Whether this could be shown to clients.
    ///
    /// # Errors
    /// Every mistake.
    pub fn check(&self) -> Result<(), Mistakes> {
        self.load().map(drop)
    }

    pub(super) fn load(&self) -> Result<Loaded, Mistakes> {
        let (chain, key) = match (chain(&self.cert), key(&self.key)) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                return Err(Mistakes {
                    cert: chain.err(),
                    key: key.err(),
                });
            }
        };
        let ends = ends(&chain[0]);
        let certified = CertifiedKey::from_der(chain, key, &provider());
        let certified = Arc::new(certified.map_err(|error| self.told(&error))?);
        Ok(Loaded { certified, ends })
    }

    fn told(&self, error: &Error) -> Mistakes {
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Mistakes {
                key: Some(format!(
                    "this is not the key of the first certificate in {}",
                    self.cert.display()
                )),
                ..Mistakes::default()
            },
            Error::InvalidCertificate(why) => Mistakes {
                cert: Some(format!("its first certificate cannot be used: {why}")),
                ..Mistakes::default()
            },
            other => Mistakes {
                key: Some(format!("its key cannot be used: {other}")),
                ..Mistakes::default()
            },
        }
    }

    /// What is in the files now; nothing where a file cannot be read.
    pub(super) fn digests(&self) -> Digests {
        [&self.cert, &self.key].map(|path| Some(Sha256::digest(read(path).ok()?).into()))
    }

    /// The mistakes with the files they are in, for the log.
    pub(super) fn name(&self, mistakes: Mistakes) -> String {
        let parts = [(&self.cert, mistakes.cert), (&self.key, mistakes.key)];
        let named = parts
            .into_iter()
            .filter_map(|(path, why)| Some(format!("{}: {}", path.display(), why?)));
        named.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cert.display())
    }
}

/// Who does the arithmetic.
pub(super) fn provider() -> CryptoProvider {
    ring::default_provider()
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("there is no certificate in it (PEM)".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("it cannot be understood as PEM: {error}")),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            "there is no private key in it (PEM, without a passphrase)".to_owned()
        }
        error => format!("it cannot be understood as PEM: {error}"),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.as_os_str().is_empty() {
        return Err("TLS needs this file: write its path".to_owned());
    }
    match regular_file::read(path, MOST) {
        Ok((bytes, _)) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(error.to_string()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// When a certificate ends. Read leniently: whether it may be used is not decided here.
fn ends(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let read = CertificateInner::<Raw>::from_der(certificate).ok()?;
    let since_1970 = read
        .tbs_certificate()
        .validity()
        .not_after
        .to_unix_duration();
    Some(UNIX_EPOCH + since_1970)
}
