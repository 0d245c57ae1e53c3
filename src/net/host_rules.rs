//! What applies to the requests to single hosts, such as those of one's own.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::HeaderMap;
use url::Url;

/// How often a host is asked, by all processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Requests at the same time.
    pub per_host: usize,
    /// The least time from the start of one request to the start of the next.
    pub spacing: Duration,
}

/// The rules of one host, or of all hosts below a name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostRules {
    /// Requests at the same time. None: as for other hosts.
    pub per_host: Option<usize>,
    /// The least time between the starts of two requests. None: as for other hosts.
    pub spacing: Option<Duration>,
    /// Sent with each request, for example a token. Redirects to other hosts do not carry them.
    pub headers: HeaderMap,
    /// Sends the headers to `http:` URLs, too. The URLs of a source are not the owner's: one of them could make a token
    /// travel in plain text.
    pub headers_over_http: bool,
}

/// Rules by the lower-case name of a host. `*.photos.example` stands for all hosts below photos.example. The most
/// specific name applies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostTable(BTreeMap<String, HostRules>);

impl HostTable {
    /// Adds the rules of a host. A later entry of the same name replaces an earlier one.
    pub fn insert(&mut self, name: String, rules: HostRules) {
        self.0.insert(name, rules);
    }

    /// The rules of a host that has its own.
    pub fn get(&self, host: &str) -> Option<&HostRules> {
        if self.0.is_empty() {
            return None;
        }
        let above = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
        self.0.get(host).or_else(|| above.into_iter().find_map(|name| self.0.get(&name)))
    }

    /// The headers that a request for the URL carries.
    pub fn headers(&self, url: &Url) -> Option<&HeaderMap> {
        let rules = self.get(url.host_str()?)?;
        (url.scheme() == "https" || rules.headers_over_http).then_some(&rules.headers)
    }

    /// The most requests at the same time that any of the hosts gets.
    pub fn max_per_host(&self) -> Option<usize> {
        self.0.values().filter_map(|rules| rules.per_host).max()
    }
}

/// The pace of every host.
#[derive(Debug, Clone, PartialEq)]
pub struct Paces {
    /// That of hosts without rules.
    pub usual: Pace,
    pub hosts: HostTable,
}

impl Paces {
    pub fn of(&self, host: &str) -> Pace {
        let Pace { per_host, spacing } = self.usual;
        let Some(rules) = self.hosts.get(host) else { return self.usual };
        Pace { per_host: rules.per_host.unwrap_or(per_host), spacing: rules.spacing.unwrap_or(spacing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Pace = Pace { per_host: 4, spacing: Duration::from_millis(50) };

    fn table(entries: &[(&str, Option<usize>, Option<u64>)]) -> HostTable {
        let mut table = HostTable::default();
        for (name, per_host, spacing) in entries {
            let spacing = spacing.map(Duration::from_millis);
            table.insert((*name).to_owned(), HostRules { per_host: *per_host, spacing, ..HostRules::default() });
        }
        table
    }

    #[test]
    fn the_most_specific_name_applies_and_the_rest_is_as_usual() {
        let table = table(&[
            ("photos.example", Some(64), None),
            ("*.photos.example", None, Some(0)),
            ("*.cdn.photos.example", Some(8), None),
        ]);
        assert_eq!(table.max_per_host(), Some(64));
        let paces = Paces { usual: USUAL, hosts: table };
        let pace = |host| {
            let Pace { per_host, spacing } = paces.of(host);
            (per_host, spacing.as_millis())
        };
        assert_eq!(pace("photos.example"), (64, 50));
        assert_eq!(pace("a.photos.example"), (4, 0));
        assert_eq!(pace("b.a.photos.example"), (4, 0));
        assert_eq!(pace("a.cdn.photos.example"), (8, 50));
        for other in ["example", "nophotos.example", "photos.example.org", "photos.example.", ""] {
            assert_eq!(paces.of(other), USUAL, "{other}");
        }
    }

    #[test]
    fn headers_are_for_their_host_and_for_tls() {
        let token = ("authorization".parse().unwrap(), "Bearer 1".parse().unwrap());
        let headers: HeaderMap = [token].into_iter().collect();
        let mut table = HostTable::default();
        table.insert("a.example".to_owned(), HostRules { headers: headers.clone(), ..HostRules::default() });
        let plain = HostRules { headers: headers.clone(), headers_over_http: true, ..HostRules::default() };
        table.insert("b.example".to_owned(), plain);
        let has_headers = |url: &str| table.headers(&url.parse().unwrap()) == Some(&headers);
        assert!(has_headers("https://a.example/1.jpg") && has_headers("http://b.example/1.jpg"));
        let others = ["http://a.example/1", "https://c.example/a.example", "https://a.example.org/", "https://[::1]/"];
        for other in others {
            assert!(!has_headers(other), "{other}");
        }
    }
}
