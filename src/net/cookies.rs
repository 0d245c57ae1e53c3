//! Cookies within one chain of redirects.
//!
//! Some hosts set a cookie, redirect to the same URL, and serve the photo to whoever returns the cookie. A jar lives as
//! long as the request for one photo: no cookie links two photos.

use std::time::SystemTime;

use reqwest::header::{HeaderMap, HeaderValue, SET_COOKIE};
use url::{Host, Url};

/// More cookies are not kept.
const MAX_COOKIES: usize = 50;
/// A longer cookie is not kept: name and value, in bytes.
const MAX_COOKIE: usize = 4096;
/// The most that is sent, in bytes.
const MAX_SENT: usize = 8192;

/// The cookies of one chain of redirects (RFC 6265).
#[derive(Debug, Default)]
pub(super) struct CookieJar(Vec<Cookie>);

#[derive(Debug, PartialEq)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    domain: String,
    /// Whether other hosts below `domain` do not get the cookie.
    is_host_only: bool,
    path: String,
    is_secure: bool,
}

impl CookieJar {
    /// Keeps the cookies of a response to a request for `url`.
    pub fn store(&mut self, url: &Url, headers: &HeaderMap, now: SystemTime) {
        for header in headers.get_all(SET_COOKIE) {
            let Some((cookie, is_expired)) = Cookie::parse(header.as_bytes(), url, now) else { continue };
            let same = |other: &Cookie| {
                (&other.name, &other.domain, &other.path) == (&cookie.name, &cookie.domain, &cookie.path)
            };
            self.0.retain(|other| !same(other));
            if !is_expired && self.0.len() < MAX_COOKIES {
                self.0.push(cookie);
            }
        }
    }

    /// The `Cookie` header of a request; none without cookies for it.
    pub fn header(&self, url: &Url) -> Option<HeaderValue> {
        let mut sent = Vec::new();
        for cookie in self.0.iter().filter(|cookie| cookie.belongs_to(url)) {
            if sent.len() + cookie.name.len() + cookie.value.len() > MAX_SENT {
                break;
            }
            let separator: &[u8] = if sent.is_empty() { b"" } else { b"; " };
            sent.extend([separator, &cookie.name, b"=", &cookie.value].concat());
        }
        if sent.is_empty() { None } else { HeaderValue::from_bytes(&sent).ok() }
    }
}

impl Cookie {
    /// Reads a `Set-Cookie` header (RFC 6265, 5.2), and whether it deletes the cookie.
    fn parse(header: &[u8], url: &Url, now: SystemTime) -> Option<(Self, bool)> {
        let mut parts = header.split(|byte| *byte == b';');
        let (name, value) = split_at(parts.next()?, b'=')?;
        if name.is_empty() || name.len() + value.len() > MAX_COOKIE {
            return None;
        }
        let host = url.host_str()?;
        let mut cookie = Self {
            name: name.to_vec(),
            value: value.to_vec(),
            domain: host.to_owned(),
            is_host_only: true,
            path: default_path(url),
            is_secure: false,
        };
        let (mut lifetime, mut expires) = (None, None);
        for part in parts {
            let (name, value) = split_at(part, b'=').unwrap_or((part.trim_ascii(), b""));
            let value = str::from_utf8(value).unwrap_or_default();
            match name.to_ascii_lowercase().as_slice() {
                b"domain" => {
                    let domain = value.trim_start_matches('.').to_ascii_lowercase();
                    if domain.is_empty() {
                        continue;
                    }
                    let is_name = matches!(url.host(), Some(Host::Domain(_))) && domain.contains('.');
                    if domain != host && !(is_name && is_below(host, &domain)) {
                        return None;
                    }
                    cookie.is_host_only = !is_name;
                    cookie.domain = domain;
                }
                b"path" if value.starts_with('/') => cookie.path = value.to_owned(),
                b"secure" => cookie.is_secure = true,
                b"max-age" => lifetime = value.parse::<i64>().ok(),
                b"expires" => expires = httpdate::parse_http_date(value).ok(),
                _ => {}
            }
        }
        let is_expired = match (lifetime, expires) {
            (Some(seconds), _) => seconds <= 0,
            (None, Some(time)) => time <= now,
            (None, None) => false,
        };
        Some((cookie, is_expired))
    }

    fn belongs_to(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let is_host = host == self.domain || (!self.is_host_only && is_below(host, &self.domain));
        let path = url.path();
        let rest = path.strip_prefix(self.path.as_str());
        let is_path = rest.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        is_host && is_path && (!self.is_secure || url.scheme() == "https")
    }
}

/// Whether a host is below a domain: `a.photos.example` is below `photos.example`.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// The folder of a URL's path (RFC 6265, 5.1.4).
fn default_path(url: &Url) -> String {
    match url.path().rfind('/') {
        Some(at @ 1..) => url.path()[..at].to_owned(),
        _ => "/".to_owned(),
    }
}

/// The trimmed parts before and after the first `separator`.
fn split_at(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((text[..at].trim_ascii(), text[at + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn jar(from: &str, cookies: &[&str]) -> CookieJar {
        let headers = cookies.iter().map(|cookie| (SET_COOKIE, HeaderValue::from_str(cookie).unwrap())).collect();
        let mut jar = CookieJar::default();
        jar.store(&url(from), &headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        jar
    }

    fn sent(jar: &CookieJar, to: &str) -> String {
        jar.header(&url(to)).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn cookies_return_to_their_host_and_path() {
        let from = "https://www.photos.test/a/b.jpg";
        for (cookie, to, expected) in [
            ("seen=1", "https://www.photos.test/a/c.jpg", "seen=1"),
            ("seen=1", "https://www.photos.test/other", ""),
            ("seen=1; Path=/", "https://www.photos.test/other", "seen=1"),
            ("seen=1; Path=/a", "https://www.photos.test/ab", ""),
            ("seen=1; path=/", "https://photos.test/", ""),
            ("seen=1; path=/", "https://evil.test/", ""),
            ("seen=1; path=/; Domain=.Photos.test", "https://i.photos.test/x", "seen=1"),
            ("seen=1; path=/; domain=photos.test", "https://evilphotos.test/", ""),
            ("seen=1; path=/; domain=test", "https://evil.test/", ""),
            ("seen=1; path=/; domain=evil.test", "https://evil.test/", ""),
            ("seen=1; path=/; Secure; HttpOnly; SameSite=Lax", "https://www.photos.test/", "seen=1"),
            ("seen=1; path=/; secure", "http://www.photos.test/", ""),
            ("seen = a=b ", "https://www.photos.test/a/", "seen=a=b"),
            ("seen=1; path=/; max-age=0", "https://www.photos.test/", ""),
            ("seen=1; path=/; expires=Sun, 06 Nov 1994 08:49:37 GMT", "https://www.photos.test/", ""),
            ("seen=1; path=/; expires=Fri, 31 Dec 2099 23:59:59 GMT", "https://www.photos.test/", "seen=1"),
            ("=1; path=/", "https://www.photos.test/", ""),
            ("seen; path=/", "https://www.photos.test/", ""),
        ] {
            assert_eq!(sent(&jar(from, &[cookie]), to), expected, "{cookie} to {to}");
        }
    }

    #[test]
    fn later_cookies_replace_earlier_ones() {
        let jar = jar("http://a.test/x", &["s=1", "t=2", "s=3", "t=; max-age=-1", "u=4"]);
        assert_eq!(sent(&jar, "http://a.test/y"), "s=3; u=4");
    }

    #[test]
    fn cookies_are_bounded() {
        let many: Vec<String> = (0..200).map(|n| format!("c{n}={}", "x".repeat(1000))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let full = jar("http://a.test/", &many);
        assert_eq!(full.0.len(), MAX_COOKIES);
        assert!(sent(&full, "http://a.test/").len() <= MAX_SENT + 100);
        assert!(jar("http://a.test/", &[&format!("c={}", "x".repeat(5000))]).0.is_empty());
    }

    #[test]
    fn an_address_has_no_other_hosts() {
        let jar = jar("http://10.0.0.1/", &["a=1; domain=0.0.1", "b=1; domain=10.0.0.1"]);
        assert_eq!((sent(&jar, "http://10.0.0.1/"), sent(&jar, "http://20.0.0.1/")), ("b=1".into(), "".into()));
    }
}
