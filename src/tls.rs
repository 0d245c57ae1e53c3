//! TLS client configuration with the certificates that this machine trusts.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate authority is not valid PEM: {0}")]
    Authority(String),
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// Builds the configuration. `authority`: an additional trusted authority, in PEM. Without any certificates only a
/// warning is logged, since plain connections still work.
///
/// # Errors
/// `authority` is not valid PEM, or rustls rejects the configuration.
pub fn client_config(authority: Option<&[u8]>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in authority.into_iter().flat_map(CertificateDer::pem_slice_iter) {
        let certificate = certificate.map_err(|error| TlsError::Authority(error.to_string()))?;
        roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    if roots.is_empty() {
        tracing::warn!("no CA certificates found; https, amqps and rediss will fail: install ca-certificates");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
