//! The limits of a download.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::address;
use super::host_rules::{HostTable, Pace, Paces};

/// The limits of a download, with careful defaults. All downloads together take at most 1.5 times `max_memory` of
/// memory; a photo in the queue of its host takes almost none.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Requests to one host at the same time.
    pub per_host: usize,
    /// The least time from the start of one request to a host to the start of the next.
    pub spacing: Duration,
    /// Rules for single hosts, which come before `per_host` and `spacing`.
    pub host_rules: HostTable,
    /// How long a photo waits in the queue of its host before it is deferred. A queue holds as many photos as the host
    /// serves in half of this time, since the pace of a host is an estimate.
    pub queue_timeout: Duration,
    /// Requests to all hosts together at the same time.
    pub max_requests: usize,

    /// The time limit for DNS, TCP and TLS.
    pub connect: Duration,
    /// The time limit from the request to the end of the response's headers.
    pub first_byte: Duration,
    /// The time limit between two chunks of the body.
    pub idle: Duration,
    /// The time limit for the download, redirects and the wait for memory included. Time in a queue does not count.
    pub total: Duration,

    pub max_bytes: u64,
    /// Bytes of photos that all downloads together hold in memory; at least one photo of `max_bytes` fits always.
    pub max_memory: u64,
    pub max_redirects: usize,

    /// The contact of the operator, for the owners of the hosts: a URL or an e-mail address. Part of the user agent.
    pub contact: Option<String>,

    /// Addresses of lower-case host names, as in a hosts file. The port applies where the URL has none.
    pub hosts: BTreeMap<String, SocketAddr>,
    /// Private addresses that are permitted nevertheless, each with its port, by IP literal or by a name in `hosts`. An
    /// address from DNS is never an exception.
    pub allowed: BTreeSet<SocketAddr>,
    /// Permits every address but those of cloud metadata. For tests and intranets.
    pub allow_private_addresses: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            per_host: 4,
            spacing: Duration::from_millis(50),
            host_rules: HostTable::default(),
            queue_timeout: Duration::from_secs(12),
            max_requests: 64,
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(15),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(30),
            max_bytes: 30_000_000,
            max_memory: 256_000_000,
            max_redirects: 5,
            contact: None,
            hosts: BTreeMap::new(),
            allowed: BTreeSet::new(),
            allow_private_addresses: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{0}` is not a host entry: write name=address:port, as in photos.test=127.0.0.1:8080")]
pub struct BadHostEntry(String);

impl Rules {
    /// Photos for each request: the one that is downloaded, and others in the queues of their hosts.
    const PER_REQUEST: usize = 8;
    /// The largest prefetch count that RabbitMQ accepts, less the photo that a worker takes in advance.
    const MAX_PREFETCH: usize = u16::MAX as usize - 1;

    /// The product token of the user agent, and the robot's name in `X-Robots-Tag`.
    pub const PRODUCT: &'static str = "facemill";

    /// `facemill/1.2.3`, followed by the contact if there is one.
    pub fn user_agent(&self) -> String {
        let product = format!("{}/{}", Self::PRODUCT, env!("CARGO_PKG_VERSION"));
        match &self.contact {
            Some(contact) => format!("{product} (+{contact})"),
            None => product,
        }
    }

    /// The pace of every host.
    pub fn paces(&self) -> Paces {
        let usual = Pace { per_host: self.per_host, spacing: self.spacing };
        Paces { usual, hosts: self.host_rules.clone() }
    }

    /// How many photos a fetcher is given at the same time. With fewer, photos in the queue of one host would block
    /// others.
    pub fn prefetch(&self) -> usize {
        self.max_requests.saturating_mul(Self::PER_REQUEST).clamp(1, Self::MAX_PREFETCH)
    }

    /// Parses an entry of `hosts`: `name=address:port`.
    pub fn parse_host(entry: &str) -> Result<(String, SocketAddr), BadHostEntry> {
        let bad = || BadHostEntry(entry.to_owned());
        let (name, address) = entry.split_once('=').ok_or_else(bad)?;
        match url::Host::parse(name.trim()) {
            Ok(url::Host::Domain(name)) => Ok((name, address.trim().parse().map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    }

    /// Why an address is forbidden; nothing for a permitted one.
    pub(super) fn forbids(&self, address: SocketAddr) -> Option<&'static str> {
        if self.allowed.contains(&address) { None } else { self.forbids_ip(address.ip()) }
    }

    /// The same where the port is not known: of the exceptions, only `allow_private_addresses` applies.
    pub(super) fn forbids_ip(&self, ip: IpAddr) -> Option<&'static str> {
        match self.allow_private_addresses {
            true => address::is_metadata(ip).then_some("cloud metadata"),
            false => address::forbidden(ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_entries_are_parsed_and_checked() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(Rules::parse_host("Photos.test=127.0.0.1:8080"), Ok(("photos.test".to_owned(), address)));
        assert!(Rules::parse_host("photos.test=[::1]:80").is_ok());
        for bad in ["photos.test", "photos.test=127.0.0.1", "=127.0.0.1:80", "10.0.0.1=127.0.0.1:80", "a b=1.1.1.1:1"] {
            assert!(Rules::parse_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_user_agent_contains_the_contact() {
        let rules = Rules { contact: Some("https://example.org/bot".into()), ..Rules::default() };
        assert_eq!(rules.user_agent(), format!("facemill/{} (+https://example.org/bot)", env!("CARGO_PKG_VERSION")));
    }
}
