//! Resolves host names, without forbidden addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tracing::Instrument;

use super::address;
use super::error::ResolveError;
use super::rules::Rules;

/// The resolver of the HTTP client. It checks addresses when the connection is made, so that a name cannot change its
/// address between check and use.
pub(super) struct Resolver {
    rules: Arc<Rules>,
}

impl Resolver {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self { rules }
    }

    /// The permitted addresses of a name. Their port is 0, or that of a configured host.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        look_up(&self.rules, name).await
    }
}

async fn look_up(rules: &Rules, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    if let Some(&known) = rules.hosts.get(name) {
        // The port is not known here; the check of the URL has compared address and port.
        let is_exception = rules.allowed.iter().any(|allowed| allowed.ip() == known.ip());
        return if is_exception { Ok(vec![known]) } else { permitted(rules, [known]) };
    }
    if let Some(why) = address::forbidden_name(name) {
        return Err(ResolveError::ForbiddenName { why });
    }
    permitted(rules, tokio::net::lookup_host((name, 0)).await.map_err(ResolveError::from)?)
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = Arc::clone(&self.rules);
        let span = tracing::trace_span!("dns", dns.question.name = name.as_str());
        let answer = async move {
            let addresses: Addrs = Box::new(look_up(&rules, name.as_str()).await?.into_iter());
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(addresses)
        };
        Box::pin(answer.instrument(span))
    }
}

/// The addresses that are not forbidden; an error if there is none.
fn permitted(rules: &Rules, found: impl IntoIterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, ResolveError> {
    let mut good = Vec::new();
    let mut last = ResolveError::NoAddress;
    for address in found {
        match rules.forbids_ip(address.ip()) {
            None => good.push(address),
            Some(why) => last = ResolveError::Forbidden { ip: address.ip(), why },
        }
    }
    if good.is_empty() { Err(last) } else { Ok(good) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn forbidden_addresses_are_removed() {
        let rules = Rules::default();
        let mixed = addresses(&["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"]);
        assert_eq!(permitted(&rules, mixed).unwrap(), addresses(&["8.8.8.8", "2606:4700::1111"]));
    }

    #[test]
    fn no_permitted_address_is_an_error() {
        let rules = Rules::default();
        assert!(matches!(permitted(&rules, addresses(&["10.0.0.1"])), Err(ResolveError::Forbidden { .. })));
        assert!(matches!(permitted(&rules, []), Err(ResolveError::NoAddress)));
        let open = Rules { allow_private_addresses: true, ..Rules::default() };
        assert_eq!(permitted(&open, addresses(&["10.0.0.1"])).unwrap().len(), 1);
    }

    async fn resolve(name: &str, rules: Rules) -> Result<Vec<SocketAddr>, String> {
        let resolver = Resolver::new(Arc::new(rules));
        let resolved = resolver.resolve(name.parse().unwrap()).await;
        resolved.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_of_a_loopback_address_is_refused() {
        let error = resolve("localhost", Rules::default()).await.unwrap_err();
        assert!(error.contains("is not a public address"), "{error}");
        assert!(resolve("localhost", Rules { allow_private_addresses: true, ..Rules::default() }).await.is_ok());
    }

    #[tokio::test]
    async fn configured_hosts_are_checked_too() {
        let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let rules = Rules { hosts: [("photos.test".to_owned(), address)].into(), ..Rules::default() };
        assert!(resolve("photos.test", rules.clone()).await.is_err());
        let rules = Rules { allowed: [address].into(), ..rules };
        assert_eq!(resolve("photos.test", rules.clone()).await, Ok(vec![address]));
        assert!(resolve("localhost", rules).await.is_err(), "the exception is for the configured host only");
    }
}
