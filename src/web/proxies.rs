//! Reverse proxies whose headers are trusted.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::domain::Printable;

/// An address or a network: `192.0.2.7` or `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a network: expected an address such as 192.0.2.7, or a network such as 10.0.0.0/8", .0.printable())]
pub struct BadNetwork(String);

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse::<IpNet>().ok().or_else(address).map(|network| Self(network.trunc()));
        network.ok_or_else(|| BadNetwork(text.chars().take(80).collect()))
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The addresses of the reverse proxies in front of a server. Without any, no header says who sent a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

/// Entries of X-Forwarded-For that are read.
const MOST_HOPS: usize = 16;

impl Proxies {
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.0.iter().any(|network| network.0.contains(&address))
    }

    /// The address of the client. A proxy appends the address of its own peer to X-Forwarded-For, so the last entry that
    /// is no proxy is the client; what stands before was sent by the client itself.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = canonical(peer);
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for hop in hops.take(MOST_HOPS) {
            if !self.contains(client) {
                break;
            }
            let Ok(address) = hop.trim().parse() else { break };
            client = canonical(address);
        }
        client
    }

    /// Whether the browser used TLS up to a trusted proxy.
    pub fn uses_tls(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let mut schemes = headers.get_all("x-forwarded-proto").iter().rev();
        let scheme = schemes.next().and_then(|scheme| scheme.to_str().ok()).unwrap_or_default();
        // With several proxies, the first one has the connection of the browser.
        let first = scheme.split(',').next().unwrap_or_default().trim();
        self.contains(peer) && first.eq_ignore_ascii_case("https")
    }
}

/// An IPv4 address that is written as an IPv6 address, as IPv4.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    }
}

/// The addresses that one client can have: itself, or the /64 network of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(networks: &[&str]) -> Proxies {
        Proxies::new(networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn client(networks: &[&str], peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        proxies(networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn networks_are_addresses_with_an_optional_length() {
        for (text, shown) in [("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3/8", "10.0.0.0/8"), ("::1", "::1/128")] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
        for bad in ["", "10.0.0.0/33", "proxy.example", "10.0.0", "10.0.0.1:80"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_named_proxy_says_who_the_client_is() {
        assert_eq!(client(&[], "192.0.2.1", &["198.51.100.9"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &["198.51.100.9"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["198.51.100.9"]), "198.51.100.9");
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.0.0.1", &["198.51.100.9"]), "198.51.100.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_the_client_sent_itself_does_not_count() {
        // The client pretends to be 203.0.113.1; two proxies append what they saw.
        let forged = ["203.0.113.1, 198.51.100.9", "10.0.0.2"];
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &forged), "198.51.100.9");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["203.0.113.1, nonsense"]), "10.0.0.1");
        let endless = format!("198.51.100.9{}", ", 10.0.0.3".repeat(5000));
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[&endless]), "10.0.0.3");
    }

    #[test]
    fn only_a_named_proxy_says_that_the_browser_uses_tls() {
        let uses_tls = |peer: &str, scheme: &'static str| {
            let headers =
                HeaderMap::from_iter([("x-forwarded-proto".parse().unwrap(), HeaderValue::from_static(scheme))]);
            proxies(&["10.0.0.0/8"]).uses_tls(peer.parse().unwrap(), &headers)
        };
        assert!(uses_tls("10.0.0.1", "https") && uses_tls("10.0.0.1", "HTTPS, http"));
        assert!(!uses_tls("192.0.2.1", "https") && !uses_tls("10.0.0.1", "http") && !uses_tls("10.0.0.1", ""));
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
