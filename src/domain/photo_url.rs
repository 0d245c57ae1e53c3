//! The URL of a photo as the source database has it, and the slips in it that are mended.

use serde::{Deserialize, Serialize};
use url::Url;

use super::ContentHash;

/// A slip in the text of a URL that can be mended without doubt about what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UrlRepair {
    /// Byte-order marks, zero-width characters and blanks other than ASCII around the URL are removed.
    InvisibleCharacters,
    /// `//host/path` is read as `http://host/path`.
    Scheme,
    /// `&amp;` is read as `&`.
    Ampersands,
}

impl UrlRepair {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvisibleCharacters => "invisible characters around it are removed",
            Self::Scheme => "it has no scheme and is read as http",
            Self::Ampersands => "`&amp;` is read as `&`",
        }
    }
}

/// A URL that differs from the text in the source database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendedUrl {
    pub url: String,
    pub repairs: Vec<UrlRepair>,
}

impl MendedUrl {
    /// The repairs in words.
    pub fn summary(&self) -> String {
        let repairs: Vec<&str> = self.repairs.iter().map(|repair| repair.as_str()).collect();
        format!("the URL was mended: {}", repairs.join("; "))
    }
}

/// How often an ampersand may be escaped: `&amp;amp;` is escaped twice.
const MAX_ESCAPES: usize = 4;
/// The ways in which HTML escapes an ampersand, in lower case.
const AMPERSANDS: [&str; 4] = ["&amp;", "&#38;", "&#038;", "&#x26;"];
/// A byte-order mark in UTF-8 that was read as Latin-1.
const LATIN1_MARK: &str = "ï»¿";

/// Mends the text of a URL; none if there is nothing to mend. Blanks that the URL standard trims do not count.
pub fn mend(text: &str) -> Option<MendedUrl> {
    let mut repairs = Vec::new();
    let mut url = text.trim_matches(is_blank);
    while let Some(rest) = url.strip_prefix(LATIN1_MARK) {
        url = rest.trim_start_matches(is_blank);
    }
    // What was cut off on both sides.
    let start = text.len() - text.trim_start_matches(is_blank).len();
    let end = text.trim_end_matches(is_blank).len().max(start);
    if !text[..start].is_ascii() || !text[end..].is_ascii() || text[start..end].starts_with(LATIN1_MARK) {
        repairs.push(UrlRepair::InvisibleCharacters);
    }
    let mut url = url.to_owned();
    if url.starts_with("//") {
        url.insert_str(0, "http:");
        repairs.push(UrlRepair::Scheme);
    }
    if let Some(unescaped) = unescape(&url) {
        url = unescaped;
        repairs.push(UrlRepair::Ampersands);
    }
    (!repairs.is_empty()).then_some(MendedUrl { url, repairs })
}

/// The host of a photo's URL, mended where necessary; empty if it has none.
pub fn host(text: &str) -> String {
    let mended = mend(text);
    let text = mended.as_ref().map_or(text, |mended| &mended.url);
    Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// What tells the address of a photo from others, whatever its spelling: the hash of the mended URL, without a fragment,
/// where http counts as https.
pub fn address_hash(text: &str) -> ContentHash {
    let mended = mend(text);
    let text = mended.as_ref().map_or(text.trim_matches(is_blank), |mended| &mended.url);
    let Ok(mut url) = Url::parse(text) else { return ContentHash::of(text.as_bytes()) };
    url.set_fragment(None);
    match url.as_str().strip_prefix("http:") {
        Some(rest) => ContentHash::of(format!("https:{rest}").as_bytes()),
        None => ContentHash::of(url.as_str().as_bytes()),
    }
}

/// ASCII blanks, and characters that nobody sees: marks, joiners, directions, and the blanks of Unicode.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}')
}

/// The text with its ampersands unescaped; none if there is nothing to unescape.
fn unescape(text: &str) -> Option<String> {
    let mut unescaped: Option<String> = None;
    for _ in 0..MAX_ESCAPES {
        let before = unescaped.as_deref().unwrap_or(text);
        // Lower case of ASCII only, so that positions agree.
        let lower = before.to_ascii_lowercase();
        let Some((at, escape)) = first_ampersand(&lower, 0) else { break };
        let mut after = String::with_capacity(before.len());
        let (mut from, mut next) = (0, Some((at, escape)));
        while let Some((at, escape)) = next {
            after.push_str(&before[from..at]);
            after.push('&');
            from = at + escape.len();
            next = first_ampersand(&lower, from);
        }
        after.push_str(&before[from..]);
        unescaped = Some(after);
    }
    unescaped
}

/// The first escaped ampersand at or after `from`.
fn first_ampersand(lower: &str, from: usize) -> Option<(usize, &'static str)> {
    let found = AMPERSANDS.iter().filter_map(|escape| lower[from..].find(escape).map(|at| (from + at, *escape)));
    found.min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_mended_and_named() {
        use UrlRepair::{Ampersands, InvisibleCharacters, Scheme};
        for (text, url, repairs) in [
            ("\u{feff}http://a.test/x", "http://a.test/x", vec![InvisibleCharacters]),
            ("ï»¿http://a.test/x", "http://a.test/x", vec![InvisibleCharacters]),
            (" \u{200b}http://a.test/x\u{200b}\u{a0}\n", "http://a.test/x", vec![InvisibleCharacters]),
            ("//a.test/x", "http://a.test/x", vec![Scheme]),
            ("http://a.test/x?a=1&amp;b=2&AMP;c=3", "http://a.test/x?a=1&b=2&c=3", vec![Ampersands]),
            ("http://a.test/x?a=1&amp;amp;b=2", "http://a.test/x?a=1&b=2", vec![Ampersands]),
            ("http://a.test/x?a=1&#38;b&#x26;c&#038;d", "http://a.test/x?a=1&b&c&d", vec![Ampersands]),
            ("\u{2060}//a.test/é?a&amp;b ", "http://a.test/é?a&b", vec![InvisibleCharacters, Scheme, Ampersands]),
        ] {
            assert_eq!(mend(text), Some(MendedUrl { url: url.into(), repairs }), "{text:?}");
            assert_eq!(mend(url), None, "{url} is whole");
        }
    }

    #[test]
    fn other_urls_stay_as_they_are() {
        for text in ["", " ", "\u{feff}", " http://a.test/x\n", "http://a.test/é\u{200b}é?a&b&ampère", "/x", "x//y"]
        {
            let mended = mend(text).map(|mended| mended.url);
            assert!(mended.as_deref().is_none_or(str::is_empty), "{text:?}: {mended:?}");
        }
        let many = format!("http://a.test/?&{};b", "amp;".repeat(3000));
        assert!(mend(&many).unwrap().url.len() > 10_000, "the number of rounds is limited");
    }

    #[test]
    fn hosts_of_mended_urls_are_found() {
        let hosts = ["//A.test/x", "\u{feff}https://b.test", "http://c.test:8080/", "photo.jpg"].map(host);
        assert_eq!(hosts, ["a.test", "b.test", "c.test", ""]);
    }

    #[test]
    fn an_address_is_the_same_in_all_its_spellings() {
        let address = address_hash("https://a.test/x?a=1&b=2");
        for same in [
            "http://a.test/x?a=1&b=2",
            " https://A.test:443/x?a=1&amp;b=2#face",
            "//a.test/x?a=1&b=2",
            "http://a.test:80/x?a=1&b=2",
        ] {
            assert_eq!(address_hash(same), address, "{same}");
        }
        for other in ["https://a.test/X?a=1&b=2", "https://a.test/x?a=1", "https://a.test:8080/x?a=1&b=2", ""] {
            assert_ne!(address_hash(other), address, "{other}");
        }
        assert_ne!(address_hash("file:///p/a.jpg"), address_hash("file:///p/b.jpg"));
        assert_eq!(address_hash(" no url "), address_hash("no url"));
    }

    #[test]
    fn repairs_have_names_in_json() {
        let mended = mend("\u{feff}//a.test/?a&amp;b").unwrap();
        let json = r#"{"url":"http://a.test/?a&b","repairs":["invisible-characters","scheme","ampersands"]}"#;
        assert_eq!(serde_json::to_string(&mended).unwrap(), json);
    }
}
