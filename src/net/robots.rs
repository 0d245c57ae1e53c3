//! `X-Robots-Tag`: restrictions on the use of a photo.

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

/// Whether the text before a colon is the name of a robot; otherwise it is a directive or part of a date.
fn is_robot(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(char::is_whitespace)
        && !VALUED.iter().any(|valued| valued.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
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
