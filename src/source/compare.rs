//! Compares ids as the source database compares them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::column::{Collation, ColumnType, TypeClass, compare_numbers, number};
use facemill_domain::Id;

/// A compact id. Numbers sort numerically and before texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdKey {
    Number(i64),
    Text(Box<str>),
}

impl IdKey {
    pub fn new(text: &str) -> Self {
        let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let plain = matches!(digits, [b'1'..=b'9', ..] | [b'0']) && text != "-0";
        match text.parse() {
            Ok(number) if plain => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }

    /// Bytes on the heap.
    pub fn heap_size(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Text(text) => text.len(),
        }
    }
}

impl From<&IdKey> for Id {
    fn from(key: &IdKey) -> Self {
        match key {
            IdKey::Number(number) => Id::from(*number),
            IdKey::Text(text) => Id::new(text.clone()),
        }
    }
}

/// The databases whose rules of comparison differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Comparer {
    #[default]
    Postgres,
    MySql,
}

/// How the ids of two columns are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    rule: Rule,
    /// Whether a text that differs here may be equal in the database.
    pub incomplete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    AsWritten,
    Number,
    /// MySQL's comparison of a number with a text: by the number that the text starts with, as a double.
    LeadingNumber,
    Text {
        any_case: bool,
        padded: bool,
    },
    /// `swapped`: MariaDB orders them by their last group first.
    Uuid {
        swapped: bool,
    },
}

impl Comparison {
    /// The comparison of a foreign key with the id that it refers to.
    pub fn of(comparer: Comparer, foreign: &ColumnType, id: &ColumnType) -> Self {
        let rule = |rule| Self { rule, incomplete: false };
        if !foreign.defined || !id.defined {
            return Self { rule: Rule::AsWritten, incomplete: true };
        }
        match (foreign.class, id.class) {
            (TypeClass::Uuid, _) | (_, TypeClass::Uuid) => rule(Rule::Uuid { swapped: comparer == Comparer::MySql }),
            (one, other) if one.is_number() && other.is_number() => rule(Rule::Number),
            (one, other) if one.is_number() || other.is_number() => match comparer {
                Comparer::MySql if one.is_text() || other.is_text() => rule(Rule::LeadingNumber),
                _ => rule(Rule::AsWritten),
            },
            (one, other) if one.is_binary() || other.is_binary() => rule(Rule::AsWritten),
            (TypeClass::Padded, TypeClass::Padded) => rule(Rule::Text { any_case: false, padded: true }),
            _ => {
                match combined(foreign.collation, id.collation) {
                    Collation::Exact => rule(Rule::AsWritten),
                    Collation::Padded => rule(Rule::Text { any_case: false, padded: true }),
                    // The databases know the cases of all letters.
                    Collation::AnyCase { padded } => {
                        Self { rule: Rule::Text { any_case: true, padded }, incomplete: true }
                    }
                    Collation::Unknown => Self { rule: Rule::AsWritten, incomplete: true },
                }
            }
        }
    }

    /// The text by which ids are ordered where their column has texts. None: numbers come in their order, before texts.
    fn order_of_texts<'i>(&self, id: &'i IdKey, kind: &ColumnType) -> Option<Cow<'i, str>> {
        if !kind.class.is_text() {
            return None;
        }
        Some(match self.key(id) {
            Cow::Borrowed(IdKey::Text(text)) => Cow::Borrowed(text),
            Cow::Owned(IdKey::Text(text)) => Cow::Owned(text.into()),
            Cow::Borrowed(IdKey::Number(number)) => Cow::Owned(number.to_string()),
            Cow::Owned(IdKey::Number(number)) => Cow::Owned(number.to_string()),
        })
    }

    /// The order of two ids of a column: of numbers by their value, of others by their text.
    pub fn order(&self, a: &IdKey, b: &IdKey, kind: &ColumnType) -> Ordering {
        if let (Some(a), Some(b)) = (self.order_of_texts(a, kind), self.order_of_texts(b, kind)) {
            return a.cmp(&b);
        }
        if let (Rule::Uuid { swapped: true }, IdKey::Text(a), IdKey::Text(b)) = (self.rule, a, b)
            && let (Some(a), Some(b)) = (swapped_uuid(a), swapped_uuid(b))
        {
            return a.cmp(&b);
        }
        let plain = |id: &IdKey| match id {
            IdKey::Number(value) => Some(value.to_string()),
            IdKey::Text(text) => number(text),
        };
        match (a, b) {
            (IdKey::Number(a), IdKey::Number(b)) => a.cmp(b),
            _ => match (plain(a), plain(b)) {
                (Some(a), Some(b)) => compare_numbers(&a, &b),
                _ => a.cmp(b),
            },
        }
    }

    /// The key under which equal ids are found.
    pub fn key<'i>(&self, id: &'i IdKey) -> Cow<'i, IdKey> {
        let text = match (self.rule, id) {
            (Rule::AsWritten, _) | (_, IdKey::Number(_)) => return Cow::Borrowed(id),
            (_, IdKey::Text(text)) => text,
        };
        match self.rule {
            Rule::AsWritten => Cow::Borrowed(id),
            Rule::Number => match number(text) {
                Some(number) => Cow::Owned(IdKey::new(&number)),
                None => Cow::Borrowed(id),
            },
            Rule::LeadingNumber => Cow::Owned(leading_number(text)),
            Rule::Text { any_case, padded } => {
                let text = if padded { text.trim_end_matches(' ') } else { text };
                Cow::Owned(if any_case { IdKey::new(&text.to_ascii_lowercase()) } else { IdKey::new(text) })
            }
            Rule::Uuid { .. } => {
                let mut uuid = text.to_ascii_lowercase();
                uuid.retain(|c| !matches!(c, '-' | '{' | '}' | ' '));
                Cow::Owned(IdKey::Text(uuid.into()))
            }
        }
    }

    /// A key that is equal at least for the ids that may be equal where the comparison is incomplete.
    pub fn loose_key(&self, id: &IdKey) -> Loose {
        let text = match id {
            IdKey::Number(_) => return Loose::Key(id.clone()),
            IdKey::Text(text) if !text.chars().all(is_plain) => return Loose::Any,
            IdKey::Text(text) => text,
        };
        match self.rule {
            Rule::AsWritten => {
                let text = text.trim_end_matches(' ').to_ascii_lowercase();
                Loose::Key(number(&text).map_or_else(|| IdKey::new(&text), |number| IdKey::new(&number)))
            }
            _ => Loose::Key(self.key(id).into_owned()),
        }
    }
}

/// Whether every collation compares the character as it is, except for case. Han characters have no variants in any.
fn is_plain(character: char) -> bool {
    character.is_ascii() || ('\u{4e00}'..='\u{9fa5}').contains(&character)
}

/// What an id may be equal to where the comparison is incomplete.
#[derive(Debug, PartialEq, Eq)]
pub enum Loose {
    /// To any id.
    Any,
    /// To ids with the same key.
    Key(IdKey),
}

/// The collation that decides between two columns: MySQL prefers the binary one.
fn combined(one: Collation, other: Collation) -> Collation {
    match (one, other) {
        (Collation::Unknown, _) | (_, Collation::Unknown) => Collation::Unknown,
        (Collation::Exact, _) | (_, Collation::Exact) => Collation::Exact,
        (Collation::Padded, _) | (_, Collation::Padded) => Collation::Padded,
        (Collation::AnyCase { padded: a }, Collation::AnyCase { padded: b }) => Collation::AnyCase { padded: a || b },
    }
}

/// A UUID with its groups in the order in which MariaDB compares them. None: it is of version 6 or later, or none.
fn swapped_uuid(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let groups: Vec<&str> = lower.split('-').collect();
    match groups.as_slice() {
        [low, mid, high, clock, node] if high.starts_with(['0', '1', '2', '3', '4', '5']) => {
            Some([*node, *clock, *high, *mid, *low].concat())
        }
        _ => None,
    }
}

/// The longest number at the start of a text, as MySQL converts it; without one it is 0.
fn leading_number(text: &str) -> IdKey {
    let text = text.trim_ascii_start();
    let ends = |end: &usize| text.is_char_boundary(*end) && number(&text[..*end]).is_some();
    let limit = text.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    let end = (1..=limit.unwrap_or(text.len()).min(64)).rev().find(ends);
    let Some(plain) = end.and_then(|end| number(&text[..end])) else { return IdKey::Number(0) };
    match plain.parse::<f64>() {
        Ok(double) if double.fract() == 0.0 && double.abs() < 9.0e15 => IdKey::Number(double as i64),
        Ok(double) => IdKey::Text(double.to_string().into()),
        Err(_) => IdKey::Text(plain.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(class: TypeClass, collation: Collation) -> ColumnType {
        ColumnType { class, collation, defined: true, ..ColumnType::default() }
    }

    fn equal(comparison: Comparison, a: &str, b: &str) -> bool {
        comparison.key(&IdKey::new(a)) == comparison.key(&IdKey::new(b))
    }

    #[test]
    fn types_decide_what_is_equal() {
        let of = |comparer, a, b| Comparison::of(comparer, &column(a, Collation::Exact), &column(b, Collation::Exact));
        let numbers = of(Comparer::Postgres, TypeClass::Decimal, TypeClass::Integer);
        assert!(equal(numbers, "1.0", "1") && equal(numbers, "007", "7") && !equal(numbers, "1.5", "1"));
        let texts = of(Comparer::Postgres, TypeClass::Text, TypeClass::Text);
        assert!(!equal(texts, "1.0", "1") && !equal(texts, "a", "A"));
        let mixed = of(Comparer::MySql, TypeClass::Text, TypeClass::Integer);
        assert!(equal(mixed, " 1x", "1") && equal(mixed, "1.0", "1") && equal(mixed, "x", "0"));
        let uuids = of(Comparer::Postgres, TypeClass::Uuid, TypeClass::Uuid);
        assert!(equal(uuids, "018F8C6D-0000-7000-8000-00000000000a", "018f8c6d-0000-7000-8000-00000000000A"));
        let (a, b) = ("f447f3c5-90a6-4eaa-8063-494df09262fd", "1becbbfa-7f3b-4539-b5bd-827dda65bffc");
        let kind = column(TypeClass::Uuid, Collation::Exact);
        let mariadb = of(Comparer::MySql, TypeClass::Uuid, TypeClass::Uuid);
        assert_eq!(mariadb.order(&IdKey::new(a), &IdKey::new(b), &kind), Ordering::Less);
        assert_eq!(uuids.order(&IdKey::new(a), &IdKey::new(b), &kind), Ordering::Greater);
        let padded = of(Comparer::Postgres, TypeClass::Padded, TypeClass::Padded);
        assert!(equal(padded, "a  ", "a") && !equal(padded, "a", "A"));
    }

    #[test]
    fn collations_decide_between_texts() {
        let of = |comparer, a, b| Comparison::of(comparer, &column(TypeClass::Text, a), &column(TypeClass::Text, b));
        let any = Collation::AnyCase { padded: true };
        let mysql = of(Comparer::MySql, any, any);
        assert!(mysql.incomplete && equal(mysql, "Ana", "ana ") && !equal(mysql, "Ana", "Bo"));
        let binary = of(Comparer::MySql, any, Collation::Padded);
        assert!(!binary.incomplete && !equal(binary, "Ana", "ana") && equal(binary, "ana", "ana "));
        assert!(of(Comparer::Postgres, Collation::Unknown, Collation::Exact).incomplete);
    }
}
