//! Reads and checks the URL of a photo, and those of its redirects.

use std::net::SocketAddr;

use url::{Host, Url};

use super::address;

use super::error::FetchError;
use super::rules::Rules;
use crate::domain::CauseCode;
use crate::domain::photo_url::{MendedUrl, mend};

/// Longer URLs are rejected, in bytes.
const MAX_URL: usize = 8192;

/// Parses and checks the URL of a photo. Returns also how it was mended, if it was.
pub(super) fn parse(text: &str, rules: &Rules) -> Result<(Url, Option<MendedUrl>), FetchError> {
    if text.len() > MAX_URL {
        return Err(FetchError::rejected(CauseCode::BadUrl, format!("the URL has {} bytes", text.len())));
    }
    let mended = mend(text);
    let text = mended.as_ref().map_or(text, |mended| &mended.url);
    let url =
        Url::parse(text).map_err(|error| FetchError::rejected(CauseCode::BadUrl, format!("`{text}`: {error}")))?;
    check(&url, rules)?;
    Ok((url, mended))
}

/// Parses and checks the `Location` of a redirect, which may be relative to `from`.
///
/// Bytes beyond ASCII are requested as they are, whether they are UTF-8, Latin-1 or something else.
pub(super) fn join(from: &Url, location: &[u8], rules: &Rules) -> Result<Url, FetchError> {
    let location = escape_non_ascii(location);
    let location = location.as_str();
    let bad = |what: String| FetchError::rejected(CauseCode::BadUrl, format!("redirect to `{location}`: {what}"));
    if location.len() > MAX_URL {
        return Err(bad(format!("{} bytes", location.len())));
    }
    let url = from.join(location).map_err(|error| bad(error.to_string()))?;
    check(&url, rules)?;
    Ok(url)
}

/// ASCII stays as it is, and every other byte becomes `%XX`.
fn escape_non_ascii(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte.is_ascii() {
            true => text.push(char::from(*byte)),
            false => text.push_str(percent_encoding::percent_encode_byte(*byte)),
        }
    }
    text
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
    let forbidden_name = url.domain().filter(|_| known.is_none()).and_then(address::forbidden_name);
    if let (Some(why), Some(name)) = (forbidden_name, url.domain()) {
        return Err(FetchError::forbidden_name(name, why));
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
            "//photos.example/a.jpg",
            "\u{feff}http://photos.example/a.jpg?x=1&amp;y=2",
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
        let join = |location: &[u8]| join(&from, location, &rules).map(String::from);
        assert_eq!(join(b"../c.jpg").unwrap(), "http://photos.example/c.jpg");
        assert_eq!(join(b"//other.example/d").unwrap(), "http://other.example/d");
        assert_eq!(join("/é?é".as_bytes()).unwrap(), "http://photos.example/%C3%A9?%C3%A9");
        assert_eq!(join(b"/\xe9?\xe9").unwrap(), "http://photos.example/%E9?%E9", "Latin-1");
        assert_eq!(join(b"/%e9 a\x80").unwrap(), "http://photos.example/%e9%20a%80");
        assert_eq!(join("//bücher.example/".as_bytes()).unwrap(), "http://xn--bcher-kva.example/");
        for bad in ["file:///etc/passwd", "http://10.0.0.1/", "gopher://x/", "http://a@b/", "//127.1/x"] {
            assert!(join(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(join(b"//b\xfccher.example/").is_err(), "a host in Latin-1");
    }

    #[test]
    fn names_of_cloud_metadata_are_refused() {
        let open = Rules { allow_private_addresses: true, ..Rules::default() };
        for rules in [Rules::default(), open] {
            for host in ["metadata.google.internal", "METADATA.google.internal.", "metadata", "169.254.169.254"] {
                let url = format!("http://{host}/computeMetadata/v1/");
                assert_eq!(code(&url, &rules).as_deref(), Some("forbidden-address"), "{url}");
            }
            assert_eq!(code("http://168.63.129.16/machine", &rules).as_deref(), Some("forbidden-address"));
        }
    }
}
