//! Reads and checks the URL of a photo, and those of its redirects.

use std::net::SocketAddr;

use url::{Host, Url};

use super::error::FetchError;
use super::rules::Rules;
use crate::domain::CauseCode;

/// Longer URLs are rejected, in bytes.
const MAX_URL: usize = 8192;

/// Parses and checks the URL of a photo.
pub(super) fn parse(text: &str, rules: &Rules) -> Result<Url, FetchError> {
    if text.len() > MAX_URL {
        return Err(FetchError::rejected(CauseCode::BadUrl, format!("the URL has {} bytes", text.len())));
    }
    let url =
        Url::parse(text).map_err(|error| FetchError::rejected(CauseCode::BadUrl, format!("`{text}`: {error}")))?;
    check(&url, rules)?;
    Ok(url)
}

/// Parses and checks the `Location` of a redirect, which may be relative to `from`.
pub(super) fn join(from: &Url, location: &str, rules: &Rules) -> Result<Url, FetchError> {
    let bad = |what: String| FetchError::rejected(CauseCode::BadUrl, format!("redirect to `{location}`: {what}"));
    if location.len() > MAX_URL {
        return Err(bad(format!("{} bytes", location.len())));
    }
    let url = from.join(location).map_err(|error| bad(error.to_string()))?;
    check(&url, rules)?;
    Ok(url)
}

/// Requires http(s), no credentials, no port of another protocol, and no forbidden IP literal. The `url` crate has
/// already parsed every notation of an IPv4 literal (decimal, octal, hexadecimal, short).
fn check(url: &Url, rules: &Rules) -> Result<(), FetchError> {
    let bad = |what: &str| Err(FetchError::rejected(CauseCode::BadUrl, format!("`{url}`: {what}")));
    if !matches!(url.scheme(), "http" | "https") {
        return bad("the scheme is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("the URL contains credentials");
    }
    let port = url.port_or_known_default().unwrap_or_default();
    let known = known_address(url, rules, port);
    if known.is_some_and(|address| rules.allowed.contains(&address)) {
        return Ok(());
    }
    if port < 1024 && port != 80 && port != 443 {
        return bad("the port belongs to another protocol");
    }
    match known.and_then(|address| rules.forbids(address).map(|why| (address, why))) {
        Some((address, why)) => Err(FetchError::forbidden(url.host_str().unwrap_or_default(), address.ip(), why)),
        None => Ok(()),
    }
}

/// The address and port of a URL, where they are known without DNS.
fn known_address(url: &Url, rules: &Rules, port: u16) -> Option<SocketAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some((ip, port).into()),
        Host::Ipv6(ip) => Some((ip, port).into()),
        Host::Domain(name) => {
            let known = rules.hosts.get(name)?;
            let port = if url.port().is_none() && known.port() != 0 { known.port() } else { port };
            Some((known.ip(), port).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str, rules: &Rules) -> Option<String> {
        parse(text, rules).err().map(|error| error.cause().code.to_string())
    }

    #[test]
    fn ip_literals_are_recognised_in_every_notation() {
        let rules = Rules::default();
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.0.0.0x1",
            "127.0.0.1.",
            "127.0.0.1",
            "%31%32%37.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::]",
            "169.254.169.254",
            "[64:ff9b::7f00:1]",
            "0",
        ] {
            let url = format!("http://{host}/photo.jpg");
            assert_eq!(code(&url, &rules).as_deref(), Some("forbidden-address"), "{url}");
        }
    }

    #[test]
    fn bad_urls_are_rejected() {
        let rules = Rules::default();
        let long = format!("http://photos.example/{}", "x".repeat(MAX_URL));
        for url in [
            "",
            "photo.jpg",
            "//photos.example/a.jpg",
            "file:///etc/passwd",
            "ftp://photos.example/a",
            "gopher://a/1",
            "data:image/png;base64,AAAA",
            "javascript:alert(1)",
            "http://",
            "http://user@photos.example/",
            "http://user:secret@photos.example/",
            "http://photos.example:25/a.jpg",
            "http://photos.example:0/a.jpg",
            "http://photos.example:99999/",
            "http://256.1.1.1/",
            &long,
        ] {
            assert_eq!(code(url, &rules).as_deref(), Some("bad-url"), "{url}");
        }
    }

    #[test]
    fn ordinary_urls_are_accepted() {
        let rules = Rules::default();
        for url in [
            "http://photos.example/a.jpg",
            "https://photos.example/a.jpg",
            "HTTPS://Photos.Example:443/写真.jpg?x=1#y",
            "http://photos.example:8080/a.jpg",
            "  http://photos.example/a.jpg\n",
            "http://8.8.8.8/a.jpg",
        ] {
            assert_eq!(code(url, &rules), None, "{url}");
        }
    }

    #[test]
    fn an_exception_is_one_address_and_one_port() {
        let rules = Rules {
            hosts: [("photos.test".to_owned(), "127.0.0.1:8080".parse().unwrap())].into(),
            allowed: ["127.0.0.1:8080".parse().unwrap()].into(),
            ..Rules::default()
        };
        for good in ["http://photos.test/a", "http://photos.test:8080/a", "http://127.0.0.1:8080/a"] {
            assert_eq!(code(good, &rules), None, "{good}");
        }
        for bad in ["http://photos.test:8081/", "http://127.0.0.1/", "http://127.0.0.1:8081/", "http://127.0.0.2:8080/"]
        {
            assert_eq!(code(bad, &rules).as_deref(), Some("forbidden-address"), "{bad}");
        }
    }

    #[test]
    fn redirects_may_be_relative() {
        let rules = Rules::default();
        let from = Url::parse("http://photos.example/a/b.jpg").unwrap();
        assert_eq!(join(&from, "../c.jpg", &rules).unwrap().as_str(), "http://photos.example/c.jpg");
        assert_eq!(join(&from, "//other.example/d", &rules).unwrap().as_str(), "http://other.example/d");
        for bad in ["file:///etc/passwd", "http://10.0.0.1/", "gopher://x/", "http://a@b/", "//127.1/x"] {
            assert!(join(&from, bad, &rules).is_err(), "{bad}");
        }
    }
}
