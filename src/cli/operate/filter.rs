//! `--where`: selects photos or dead letters, in the query language.

use crate::dataset::query::{Field, FieldType, Operator, Query, QueryError, Value};
use crate::domain::Ending;
use crate::ledger::Filter;

const STAGE: Field = Field {
    name: "stage",
    kind: FieldType::Choice(&["fetch", "detect", "crop", "classify"]),
    meaning: "the stage that ended the photo",
};
const CAUSE: Field = Field { name: "cause", kind: FieldType::Text, meaning: "the code of the cause" };
const HOST: Field = Field { name: "host", kind: FieldType::Text, meaning: "the host of the photo's URL" };
const OUTCOME: Field = Field {
    name: "outcome",
    kind: FieldType::Choice(&["gone", "rejected", "failed", "predicted"]),
    meaning: "how the photo ended",
};

/// Fields of dead letters: of photos that failed, and of foreign messages.
static OF_LETTERS: &[Field] = &[STAGE, CAUSE, HOST];
static OF_ENDINGS: &[Field] = &[STAGE, OUTCOME, CAUSE, HOST];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("`{0}` cannot be used here: expected comparisons with `=`, joined by `and`")]
    NotEqual(String),
    #[error("{0} is compared twice")]
    Twice(&'static str),
    #[error("{field}: {detail}")]
    Value { field: &'static str, detail: String },
    #[error("outcome: photos that passed all stages are not repeated; expected gone, rejected or failed")]
    Predicted,
}

/// A filter of dead letters.
pub fn of_letters(text: &str) -> Result<Filter, BadFilter> {
    parse(text, OF_LETTERS)
}

/// A filter of photos that ended without a face.
pub fn of_endings(text: &str) -> Result<Filter, BadFilter> {
    match parse(text, OF_ENDINGS)? {
        Filter { ending: Some(Ending::Predicted), .. } => Err(BadFilter::Predicted),
        filter => Ok(filter),
    }
}

/// The ledger selects by equality only, so the query may have only equalities.
fn parse(text: &str, fields: &'static [Field]) -> Result<Filter, BadFilter> {
    let query = Query::parse(text, fields)?;
    let mut filter = Filter::default();
    let mut seen: Vec<&'static str> = Vec::new();
    for condition in query.conjuncts() {
        let Query::Compare(Field { name, .. }, Operator::Equal, Value::Text(value)) = condition else {
            return Err(BadFilter::NotEqual(condition.to_string()));
        };
        if seen.contains(name) {
            return Err(BadFilter::Twice(name));
        }
        seen.push(name);
        let bad = |error: crate::domain::UnknownName| BadFilter::Value { field: name, detail: error.to_string() };
        match *name {
            "stage" => filter.stage = Some(value.parse().map_err(bad)?),
            "outcome" => filter.ending = Some(value.parse().map_err(bad)?),
            "cause" => filter.cause = Some(value.as_str().into()),
            _ => filter.host = Some(value.to_lowercase()),
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CauseCode, StageName};

    #[test]
    fn conditions_become_a_filter() {
        let expected = Filter {
            stage: Some(StageName::Fetch),
            ending: Some(Ending::Gone),
            cause: Some(CauseCode::Http(404)),
            host: Some("a.test".into()),
            waiting: false,
        };
        for text in [
            "stage=fetch, outcome=gone,cause=http-404,host=A.Test",
            "stage='fetch' and outcome=gone and cause=http-404 and host=A.Test",
        ] {
            assert_eq!(of_endings(text).unwrap(), expected, "{text}");
        }
        assert_eq!(of_letters("").unwrap(), Filter::default());
    }

    #[test]
    fn a_query_that_the_ledger_cannot_select_is_an_error() {
        let message = |result: Result<Filter, BadFilter>| result.unwrap_err().to_string();
        assert!(message(of_letters("hosts=a")).starts_with("there is no field `hosts`: did you mean `host`?"));
        assert!(
            message(of_letters("outcome=gone"))
                .starts_with("there is no field `outcome`: the fields are stage, cause, host")
        );
        assert!(message(of_endings("stage=bake")).starts_with("`stage` is one of fetch, detect, crop, classify"));
        assert_eq!(message(of_letters("cause=a,cause=b")), "cause is compared twice");
        for unfit in ["cause!=a", "not stage=fetch", "host=a or host=b", "cause contains http", "host in (a, b)"] {
            assert!(message(of_endings(unfit)).ends_with("expected comparisons with `=`, joined by `and`"), "{unfit}");
        }
        assert!(matches!(of_endings("stage"), Err(BadFilter::Query(_))));
        assert!(matches!(of_endings("outcome=predicted"), Err(BadFilter::Predicted)));
    }
}
