//! Who sent a request.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::Request;

use crate::web::{Peer, Proxies, network_of};

/// Who sent a request, as far as named proxies can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address, or the /64 network of an IPv6 address.
    pub address: IpAddr,
    /// Whether the browser uses TLS.
    pub tls: bool,
}

impl Client {
    pub fn of(request: &Request, proxies: &Proxies) -> Self {
        let unknown = Peer { address: Ipv4Addr::UNSPECIFIED.into(), tls: false };
        let peer = request.extensions().get().copied().unwrap_or(unknown);
        let headers = request.headers();
        Self {
            address: network_of(proxies.client(peer.address, headers)),
            tls: peer.tls || proxies.uses_tls(peer.address, headers),
        }
    }
}
