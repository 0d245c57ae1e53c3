//! `X-Robots-Tag` and `tdm-reservation`: what a host states about the use of a photo.

use reqwest::header::HeaderMap;

use super::rules::Rules;

/// Directives that forbid the use of the photo in a dataset.
const FORBIDDING: [&str; 5] = ["noai", "noimageai", "noindex", "noimageindex", "none"];
/// Directives with a value after a colon, which look like the name of a robot.
const VALUED: [&str; 4] = ["unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"];

/// The directive that forbids the use, if there is one. `values`: all `X-Robots-Tag` headers of the response.
///
/// A header is a list like `noindex, nofollow`. After `name:` it applies to that robot only, up to the next name.
/// Case does not matter. `none` means `noindex, nofollow`.
pub fn forbids<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    values.into_iter().find_map(forbids_in)
}

fn forbids_in(value: &str) -> Option<&'static str> {
    let mut for_us = true;
    for part in value.split(',') {
        let mut directive = part.trim();
        if let Some((name, rest)) = directive.split_once(':')
            && is_robot(name.trim())
        {
            for_us = name.trim() == "*" || name.trim().eq_ignore_ascii_case(Rules::PRODUCT);
            directive = rest.trim();
        }
        let found = FORBIDDING.into_iter().find(|known| known.eq_ignore_ascii_case(directive));
        if for_us && found.is_some() {
            return found;
        }
    }
    None
}

/// What the headers reserve without forbidding the use by this program: `X-Robots-Tag` headers that restrict other robots
/// or other uses, and a reservation of text and data mining with its policy (TDM Reservation Protocol, 5.1). None: they
/// reserve nothing. Control characters are left out, and the text is clipped: it comes from a stranger.
pub fn opt_out(headers: &HeaderMap) -> Option<String> {
    const MOST: usize = 300;
    let values = |name: &'static str| {
        headers.get_all(name).into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
    };
    let mut stated: Vec<String> = Vec::new();
    if values("tdm-reservation").any(|value| value == "1") {
        let policy = values("tdm-policy").next().filter(|policy| !policy.is_empty());
        stated.push("tdm-reservation: 1".into());
        stated.extend(policy.map(|policy| format!("tdm-policy: {policy}")));
    }
    let restricts = |value: &String| !value.is_empty() && !value.eq_ignore_ascii_case("all");
    stated.extend(values("x-robots-tag").filter(restricts).map(|value| format!("X-Robots-Tag: {value}")));
    let text: String = stated.join("; ").chars().filter(|c| !c.is_control()).take(MOST).collect();
    (!text.is_empty()).then_some(text)
}

/// Whether the text before a colon is the name of a robot; otherwise it is a directive or part of a date.
fn is_robot(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(char::is_whitespace)
        && !VALUED.iter().any(|valued| valued.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn directives_that_forbid_the_use_are_found() {
        for (value, directive) in [
            ("noai", "noai"),
            ("NoImageAI", "noimageai"),
            ("noai, noimageai", "noai"),
            ("nofollow,noindex", "noindex"),
            ("none", "none"),
            ("facemill: noai", "noai"),
            ("FaceMill:noindex", "noindex"),
            ("*: noindex", "noindex"),
            ("googlebot: nofollow, facemill: noai", "noai"),
            ("unavailable_after: 25 Jun 2010 15:00:00 PST, noindex", "noindex"),
            ("unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noai", "noai"),
            ("max-snippet: 20, noai", "noai"),
        ] {
            assert_eq!(forbids([value]), Some(directive), "{value}");
        }
        assert_eq!(forbids(["nofollow", "noai"]), Some("noai"));
    }

    #[test]
    fn what_hosts_reserve_is_noted() {
        let noted = |headers: &[(&'static str, &'static [u8])]| {
            let header = |(name, value): &(&'static str, &'static [u8])| {
                (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
            };
            opt_out(&headers.iter().map(header).collect())
        };
        assert_eq!(noted(&[]), None);
        assert_eq!(noted(&[("tdm-reservation", b"0"), ("x-robots-tag", b"all"), ("tdm-policy", b"https://a/")]), None);
        let reserved: &[(_, &[u8])] = &[("tdm-reservation", b" 1 "), ("tdm-policy", b"https://photos.test/p.json")];
        assert_eq!(noted(reserved).unwrap(), "tdm-reservation: 1; tdm-policy: https://photos.test/p.json");
        assert_eq!(noted(&[("x-robots-tag", b"otherbot: noai")]).unwrap(), "X-Robots-Tag: otherbot: noai");
        let both: &[(_, &[u8])] = &[("x-robots-tag", b"noarchive"), ("tdm-reservation", b"1")];
        assert_eq!(noted(both).unwrap(), "tdm-reservation: 1; X-Robots-Tag: noarchive");
        let long: &'static [u8] = vec![b'a'; 5000].leak();
        assert_eq!(noted(&[("x-robots-tag", long)]).unwrap().len(), 300);
        assert!(noted(&[("x-robots-tag", b"caf\xe9\tnoarchive")]).is_some_and(|text| !text.contains('\t')));
    }

    #[test]
    fn directives_for_other_robots_or_other_purposes_do_not_count() {
        for value in [
            "",
            "all",
            "nofollow, noarchive",
            "googlebot: noindex",
            "googlebot: nofollow, noindex",
            "otherbot: noindex, noai",
            "unavailable_after: 25 Jun 2010 15:00:00 PST",
            "max-image-preview: none",
            "noairplanes",
            ": noai",
        ] {
            assert_eq!(forbids([value]), None, "{value}");
        }
        assert_eq!(forbids([]), None);
    }
}
