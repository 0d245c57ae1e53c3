//! The flags that decide who may see and judge.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderName;
use clap::Args;

use crate::cli::failure::Failure;
use crate::curation::access::{Access, AccessSettings, ProxyHeader};
use crate::domain::Role;
use crate::objects::Objects;
use crate::web::{CertificateFiles, Network, Proxies};

/// TLS, reverse proxies and sign-in.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// Serves HTTPS with this certificate and its chain, in PEM. A new file is read without a restart
    #[arg(long, env = "FACEMILL_TLS_CERT", value_name = "FILE", requires = "tls_key", help_heading = "Access")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, env = "FACEMILL_TLS_KEY", value_name = "FILE", requires = "tls_cert", help_heading = "Access")]
    tls_key: Option<PathBuf>,
    /// Address or network of a reverse proxy, such as 10.0.0.7 or 10.0.0.0/8: its X-Forwarded-For and X-Forwarded-Proto
    /// are trusted
    #[arg(
        long,
        env = "FACEMILL_TRUSTED_PROXY",
        value_name = "NETWORK",
        value_delimiter = ',',
        help_heading = "Access"
    )]
    trusted_proxy: Vec<Network>,
    /// The header in which trusted proxies name the person who has signed in there, such as X-Remote-User
    #[arg(
        long,
        env = "FACEMILL_PROXY_HEADER",
        value_name = "NAME",
        requires = "trusted_proxy",
        help_heading = "Access"
    )]
    proxy_header: Option<HeaderName>,
    /// The role of people whom a proxy names and who are not among the users: viewer or curator
    #[arg(
        long,
        env = "FACEMILL_PROXY_ROLE",
        value_name = "ROLE",
        default_value_t = Role::Viewer,
        help_heading = "Access"
    )]
    proxy_role: Role,
}

impl AccessArgs {
    /// The certificate; none for HTTP.
    pub fn certificate(&self) -> Result<Option<CertificateFiles>, Failure> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                CertificateFiles::open(certificate, key).map(Some).map_err(Failure::broken)
            }
            _ => Ok(None),
        }
    }

    pub fn proxies(&self) -> Proxies {
        Proxies::new(self.trusted_proxy.clone())
    }

    /// Opens the users. `user`: who is at this machine.
    pub async fn open(
        &self,
        objects: Arc<dyn Objects>,
        listen: SocketAddr,
        user: Option<String>,
    ) -> Result<Access, Failure> {
        let header = self.proxy_header.clone().map(|name| ProxyHeader { name, role: self.proxy_role });
        let settings = AccessSettings {
            local: listen.ip().is_loopback().then(|| AccessSettings::local_person(user)),
            proxies: self.proxies(),
            header,
        };
        let opened = Access::open(objects, settings).await;
        opened.map_err(|error| Failure::broken(format!("cannot serve at {listen}: {error}")))
    }
}
