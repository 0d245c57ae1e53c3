//! How many connections each address has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::proxies::{Proxies, network};

/// The addresses that count as one client: an IPv4 address, or the /64 network of an IPv6 address.
pub fn network_of(address: IpAddr) -> IpAddr {
    network(address)
}

/// Counts the connections of each address. A reverse proxy has the connections of all its clients, and is not counted.
#[derive(Clone)]
pub struct PeerLimit {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
    proxies: Proxies,
}

/// A counted connection.
pub struct PeerPlace {
    limit: PeerLimit,
    address: Option<IpAddr>,
}

impl PeerLimit {
    pub fn new(most: usize, proxies: Proxies) -> Self {
        Self { counts: Arc::default(), most, proxies }
    }

    /// Counts a connection until the place is dropped. None: the address has too many.
    pub fn enter(&self, address: IpAddr) -> Option<PeerPlace> {
        if self.proxies.contains(address) {
            return Some(PeerPlace { limit: self.clone(), address: None });
        }
        let address = network(address);
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(PeerPlace { limit: self.clone(), address: Some(address) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.limit.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_a_proxy_any_number() {
        let limit = PeerLimit::new(2, Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]));
        let at = |text: &str| limit.enter(text.parse().unwrap());
        let (first, second) = (at("192.0.2.1"), at("192.0.2.1"));
        assert!(first.is_some() && second.is_some() && at("192.0.2.1").is_none());
        assert!(at("192.0.2.2").is_some());
        drop(first);
        assert!(at("192.0.2.1").is_some());
        let of_proxy: Vec<_> = (0..10).map(|_| at("10.1.2.3")).collect();
        assert!(of_proxy.iter().all(Option::is_some));
        drop((second, of_proxy));
        assert!(limit.lock().is_empty());
    }
}
