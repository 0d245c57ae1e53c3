//! The certificate of a server, in files that may be replaced while it runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} has no certificate in PEM format", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} is not a certificate in PEM format: {fault}", path.display())]
    Certificate { path: PathBuf, fault: String },
    #[error("{} has no private key in PEM format without a passphrase: {fault}", path.display())]
    Key { path: PathBuf, fault: String },
    #[error("the private key in {} does not belong to the first certificate in {}: {fault}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf, fault: String },
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// A certificate with its chain, and its private key, in PEM files. Clones share what was read.
#[derive(Clone)]
pub struct CertificateFiles {
    shared: Arc<Shared>,
}

struct Shared {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    /// The content of both files when `current` was made.
    content: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { certificate, key, .. } = &*self.shared;
        f.debug_struct("CertificateFiles").field("certificate", certificate).field("key", key).finish_non_exhaustive()
    }
}

impl CertificateFiles {
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let content = (read(certificate)?, read(key)?);
        let current = RwLock::new(Arc::new(parse(certificate, key, &content)?));
        let (certificate, key, content) = (certificate.to_owned(), key.to_owned(), Mutex::new(content));
        Ok(Self { shared: Arc::new(Shared { certificate, key, current, content }) })
    }

    /// Reads the files again. New connections use what they have now. After an error, the certificate stays as it was.
    /// Returns whether the files have changed.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let Shared { certificate, key, current, content } = &*self.shared;
        let new = (read(certificate)?, read(key)?);
        let mut known = content.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == new {
            return Ok(false);
        }
        let parsed = parse(certificate, key, &new)?;
        *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(parsed);
        *known = new;
        Ok(true)
    }

    /// The TLS configuration of a server for HTTP/1.1.
    pub fn server_config(&self) -> Result<ServerConfig, CertificateError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| CertificateError::Setup(error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for CertificateFiles {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|error| CertificateError::Read { path: path.to_owned(), error })
}

fn parse(
    certificate: &Path,
    key: &Path,
    (certificate_pem, key_pem): &(Vec<u8>, Vec<u8>),
) -> Result<CertifiedKey, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Certificate { path: certificate.to_owned(), fault: error.to_string() })?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate(certificate.to_owned()));
    }
    let bad_key = |fault: String| CertificateError::Key { path: key.to_owned(), fault };
    let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| bad_key(error.to_string()))?;
    CertifiedKey::from_der(chain, private, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            fault: error.to_string(),
        },
        rustls::Error::InvalidCertificate(_) => {
            CertificateError::Certificate { path: certificate.to_owned(), fault: error.to_string() }
        }
        _ => bad_key(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn paths(&self) -> [PathBuf; 2] {
            ["tls.crt", "tls.key"].map(|name| self.folder.path().join(name))
        }

        fn write(&self, name: &str) -> [Vec<u8>; 2] {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let pems = [made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes()];
            self.paths().iter().zip(&pems).for_each(|(path, pem)| std::fs::write(path, pem).unwrap());
            pems
        }

        fn open(&self) -> Result<CertificateFiles, CertificateError> {
            let [certificate, key] = self.paths();
            CertificateFiles::open(&certificate, &key)
        }
    }

    fn der(files: &CertificateFiles) -> Vec<u8> {
        files.shared.current.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn replaced_files_are_read_again_and_damaged_ones_are_not_taken() {
        let files = Files::new();
        files.write("one.test");
        let open = files.open().unwrap();
        let first = der(&open);
        assert!(!open.reload().unwrap());
        files.write("two.test");
        assert!(open.reload().unwrap());
        let second = der(&open);
        assert_ne!(first, second);
        std::fs::write(&files.paths()[0], "half").unwrap();
        assert!(open.reload().is_err());
        assert_eq!(der(&open), second);
        open.server_config().unwrap();
    }

    #[test]
    fn faults_name_the_file() {
        let files = Files::new();
        let [certificate, key] = files.paths();
        let fault = || files.open().unwrap_err().to_string();
        assert!(fault().starts_with(&format!("cannot read {}: ", certificate.display())), "{}", fault());
        let [_, other_key] = files.write("one.test");
        let [certificate_pem, key_pem] = files.write("two.test");
        std::fs::write(&key, &other_key).unwrap();
        assert!(fault().contains("does not belong to the first certificate in"), "{}", fault());
        std::fs::write(&key, &certificate_pem).unwrap();
        assert!(fault().starts_with(&format!("{} has no private key", key.display())), "{}", fault());
        std::fs::write(&certificate, &key_pem).unwrap();
        assert_eq!(fault(), format!("{} has no certificate in PEM format", certificate.display()));
    }
}
