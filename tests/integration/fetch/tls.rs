//! Hosts with certificates that are not trusted.

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use super::*;

/// A server with this certificate, which never gets as far as a request.
async fn tls_host(change: impl FnOnce(&mut rcgen::CertificateParams)) -> SocketAddr {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut certificate = rcgen::CertificateParams::new(["photos.test".to_owned()]).unwrap();
    change(&mut certificate);
    let certificate = certificate.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    address
}

#[tokio::test]
async fn a_self_signed_certificate_is_named_as_such() {
    let authority = |params: &mut rcgen::CertificateParams| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    for address in [tls_host(|_| ()).await, tls_host(authority).await] {
        let error = fetcher(rules(address)).fetch("https://photos.test/x").await.unwrap_err();
        assert_eq!(error.cause().code, CauseCode::Tls);
        let detail = &error.cause().detail;
        assert!(detail.starts_with("photos.test: the certificate is self-signed"), "{detail}");
    }
}
