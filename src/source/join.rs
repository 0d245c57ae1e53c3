//! The joins of the candidate query: whether they have the result that they have in the database.

use std::collections::HashSet;

use super::compare::{Comparison, IdKey, Loose};
use super::error::SourceError;
use facemill_domain::Id;

/// Checks a foreign key that the database enforces.
pub fn check_reference(enforced: bool, what: &str, unjoined: Option<&IdKey>) -> Result<(), SourceError> {
    match unjoined.filter(|_| enforced) {
        None => Ok(()),
        Some(id) => Err(SourceError::Contradiction(format!(
            "a face refers to {what} {}, which does not exist, although a foreign key demands it: the dump is damaged",
            Id::from(id)
        ))),
    }
}

/// Why the result would not be the database's.
pub struct Refused(pub String);

/// Notes whether ids join, and whether they might join in the database although they do not here.
pub struct Join {
    rule: Comparison,
    foreign: &'static str,
    id: &'static str,
    /// Whether the types of both columns are known.
    defined: bool,
    /// Rows that join a labelled face.
    pub hits: u64,
    /// Loose keys of the labelled faces, where the comparison is incomplete.
    expected: HashSet<IdKey>,
    /// Those of them that a row has.
    loose: HashSet<IdKey>,
    /// Whether a row may be equal to any id.
    any: bool,
}

impl Join {
    pub fn new(rule: Comparison, foreign: &'static str, id: &'static str, defined: bool) -> Self {
        Self { rule, foreign, id, defined, hits: 0, expected: HashSet::new(), loose: HashSet::new(), any: false }
    }

    /// Notes the id of a labelled face.
    pub fn expect(&mut self, id: &IdKey) {
        if self.rule.incomplete
            && let Loose::Key(key) = self.rule.loose_key(id)
        {
            self.expected.insert(key);
        }
    }

    /// Notes the id of a row.
    pub fn note(&mut self, id: &IdKey) {
        if self.rule.incomplete {
            match self.rule.loose_key(id) {
                Loose::Any => self.any = true,
                Loose::Key(key) if self.expected.contains(&key) => {
                    self.loose.insert(key);
                }
                Loose::Key(_) => {}
            }
        }
    }

    /// Checks at the end. `unjoined`: the ids of faces that joined nothing.
    pub fn check<'i>(&self, mut unjoined: impl Iterator<Item = &'i IdKey>, faces: usize) -> Option<Refused> {
        let (foreign, id) = (self.foreign, self.id);
        if self.rule.incomplete {
            let may_join = |id: &&IdKey| match self.rule.loose_key(id) {
                Loose::Any => true,
                Loose::Key(key) => self.any || self.loose.contains(&key),
            };
            if let Some(found) = unjoined.find(may_join) {
                return Some(Refused(format!(
                    "{foreign} `{}` joins no row here, but may in the database: {}; {}",
                    Id::from(found),
                    if self.defined {
                        format!("the collation of {foreign} and {id} is not implemented")
                    } else {
                        "their types and collations are not known, as no CREATE TABLE defines them".to_owned()
                    },
                    if self.defined {
                        "give the columns a binary collation in a copy of the database and dump that, or export the \
                         candidates with the database itself"
                    } else {
                        "dump them with their rows"
                    }
                )));
            }
        }
        (self.hits == 0 && faces > 0).then(|| {
            Refused(format!(
                "the labelled faces join nothing: none of {faces} values of {foreign} is the {id} of a row; check that \
                 the dump has all rows, and the names given by --map{}",
                if self.defined {
                    ""
                } else {
                    ", or dump with the definitions of the tables: no CREATE TABLE defines them"
                }
            ))
        })
    }
}
