//! What a fetch may do, and how far it may go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::address;

/// The rules of fetching, with careful defaults. One photo that is asked for takes at most `max_bytes` of memory, half as
/// much again while it grows; one in line takes next to none.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Requests that one host gets at the same time.
    pub per_host: usize,
    /// From the start of one request to a host to the start of the next.
    pub spacing: Duration,
    /// How long a photo waits in line for its host before it is sent away for longer. Lines are made for half of it, as
    /// nobody knows how fast a host will be.
    pub patience: Duration,
    /// Requests that all hosts together get at the same time.
    pub at_once: usize,

    /// For the name, the connection and TLS.
    pub connect: Duration,
    /// From the request to the end of the answer's headers.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// For all of it, redirects included; time spent in line does not count.
    pub total: Duration,

    pub max_bytes: u64,
    pub max_redirects: usize,

    /// Who runs this, for the people whose servers are asked: a URL or an e-mail address. Part of the user agent.
    pub contact: Option<String>,

    /// Names with a known address, lower-case, as in a hosts file. The port counts where the URL names none.
    pub hosts: BTreeMap<String, SocketAddr>,
    /// Addresses that may be asked although they are private: each one address and port, reached by its literal or
    /// by a name in `hosts`. DNS never leads here.
    pub allowed: BTreeSet<SocketAddr>,
    /// For tests and intranets: every address may be asked, whoever names it.
    pub allow_private_addresses: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            per_host: 4,
            spacing: Duration::from_millis(50),
            patience: Duration::from_secs(12),
            at_once: 64,
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(15),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(30),
            max_bytes: 30_000_000,
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
    /// For each photo that is asked for, so many are there: itself, and others that wait for their hosts.
    const IN_HAND: usize = 8;
    /// As many as RabbitMQ can be told to send ahead.
    const MOST_IN_HAND: usize = u16::MAX as usize - 1;

    /// The product token, which `X-Robots-Tag` may address.
    pub const PRODUCT: &'static str = "facemill";

    /// `facemill/1.2.3`, with the contact behind it when there is one.
    pub fn user_agent(&self) -> String {
        let product = format!("{}/{}", Self::PRODUCT, env!("CARGO_PKG_VERSION"));
        match &self.contact {
            Some(contact) => format!("{product} (+{contact})"),
            None => product,
        }
    }

    /// How many photos are to be given to a fetcher at a time. With fewer, those in line would keep it from asking others.
    pub fn in_hand(&self) -> usize {
        self.at_once.saturating_mul(Self::IN_HAND).clamp(1, Self::MOST_IN_HAND)
    }

    /// Reads an entry of `hosts`: `name=address:port`.
    pub fn parse_host(entry: &str) -> Result<(String, SocketAddr), BadHostEntry> {
        let bad = || BadHostEntry(entry.to_owned());
        let (name, address) = entry.split_once('=').ok_or_else(bad)?;
        match url::Host::parse(name.trim()) {
            Ok(url::Host::Domain(name)) => Ok((name, address.trim().parse().map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    }

    /// Why an address must not be asked, or nothing.
    pub(super) fn forbids(&self, address: SocketAddr) -> Option<&'static str> {
        if self.allowed.contains(&address) { None } else { self.forbids_ip(address.ip()) }
    }

    /// The same where only the address is known: no exception counts but the general one.
    pub(super) fn forbids_ip(&self, ip: IpAddr) -> Option<&'static str> {
        if self.allow_private_addresses { None } else { address::forbidden(ip) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_entries_are_read_and_checked() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(Rules::parse_host("Photos.test=127.0.0.1:8080"), Ok(("photos.test".to_owned(), address)));
        assert!(Rules::parse_host("photos.test=[::1]:80").is_ok());
        for bad in ["photos.test", "photos.test=127.0.0.1", "=127.0.0.1:80", "10.0.0.1=127.0.0.1:80", "a b=1.1.1.1:1"] {
            assert!(Rules::parse_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_user_agent_says_who_asks() {
        let rules = Rules { contact: Some("https://example.org/bot".into()), ..Rules::default() };
        assert_eq!(rules.user_agent(), format!("facemill/{} (+https://example.org/bot)", env!("CARGO_PKG_VERSION")));
    }
}
