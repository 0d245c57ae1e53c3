//! `--where stage=..,cause=..`: which photos or letters are meant.

use crate::broker::DeadLetter;
use crate::domain::Ending;
use crate::domain::Message;
use crate::ledger::Filter;

/// Dead letters: of photos that failed, and of nobody's.
const OF_LETTERS: &[&str] = &["stage", "cause", "host"];
const OF_ENDINGS: &[&str] = &["stage", "outcome", "cause", "host"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    #[error("`{part}` is no KEY=VALUE; the keys are {}", .keys.join(", "))]
    NoPair { part: String, keys: &'static [&'static str] },
    #[error("there is no key `{key}`; the keys are {}", .keys.join(", "))]
    UnknownKey { key: String, keys: &'static [&'static str] },
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{key}: {detail}")]
    Value { key: &'static str, detail: String },
    #[error("outcome: a photo that went all the way has nothing to repeat; take gone, rejected or failed")]
    Predicted,
}

/// Which dead letters.
pub fn of_letters(text: &str) -> Result<Filter, BadFilter> {
    parse(text, OF_LETTERS)
}

/// Which photos among those that ended and have no face to show.
pub fn of_endings(text: &str) -> Result<Filter, BadFilter> {
    match parse(text, OF_ENDINGS)? {
        Filter { ending: Some(Ending::Predicted), .. } => Err(BadFilter::Predicted),
        filter => Ok(filter),
    }
}

fn parse(text: &str, keys: &'static [&'static str]) -> Result<Filter, BadFilter> {
    let mut filter = Filter::default();
    let mut seen: Vec<&'static str> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let pair = part.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        let Some((name, value)) = pair.filter(|(_, value)| !value.is_empty()) else {
            return Err(BadFilter::NoPair { part: part.into(), keys });
        };
        let known = keys.iter().find(|key| **key == name);
        let key = *known.ok_or_else(|| BadFilter::UnknownKey { key: name.into(), keys })?;
        if seen.contains(&key) {
            return Err(BadFilter::Twice(key));
        }
        seen.push(key);
        let bad = |detail: String| BadFilter::Value { key, detail };
        match key {
            "stage" => filter.stage = Some(value.parse().map_err(|error| bad(format!("{error}")))?),
            "outcome" => filter.ending = Some(value.parse().map_err(|error| bad(format!("{error}")))?),
            "cause" => filter.cause = Some(value.into()),
            _ => filter.host = Some(value.to_lowercase()),
        }
    }
    Ok(filter)
}

/// Whether the filter means the letter, whose message is given if it is one of ours.
pub fn means(filter: &Filter, letter: &DeadLetter, message: Option<&Message>) -> bool {
    let Filter { stage, cause, host, .. } = filter;
    let is_from = |host: &String| message.is_some_and(|message| message.photo.candidate.host() == *host);
    stage.is_none_or(|stage| letter.stage == Some(stage))
        && cause.as_ref().is_none_or(|cause| letter.cause.code == *cause)
        && host.as_ref().is_none_or(is_from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CauseCode, StageName};

    #[test]
    fn pairs_are_read() {
        let filter = of_endings("stage=fetch, outcome=gone,cause=http-404,host=A.Test").unwrap();
        let expected = Filter {
            stage: Some(StageName::Fetch),
            ending: Some(Ending::Gone),
            cause: Some(CauseCode::Http(404)),
            host: Some("a.test".into()),
            waiting: false,
        };
        assert_eq!(filter, expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_the_keys_that_are_known() {
        let told = |result: Result<Filter, BadFilter>| result.unwrap_err().to_string();
        assert_eq!(told(of_letters("hosts=a")), "there is no key `hosts`; the keys are stage, cause, host");
        assert_eq!(told(of_letters("outcome=gone")), "there is no key `outcome`; the keys are stage, cause, host");
        for no_pair in ["", "stage", "cause=", "stage=fetch,"] {
            assert!(told(of_endings(no_pair)).ends_with("the keys are stage, outcome, cause, host"), "{no_pair}");
        }
        assert_eq!(
            told(of_endings("stage=bake")),
            "stage: `bake` is not a stage: take fetch, detect, crop or classify"
        );
        assert_eq!(told(of_letters("cause=a,cause=b")), "cause is given twice");
        assert!(matches!(of_endings("outcome=predicted"), Err(BadFilter::Predicted)));
    }
}
