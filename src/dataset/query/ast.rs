//! The parts of a query.

use std::fmt;

/// What values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Number,
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    Flag,
}

/// A field that queries can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub kind: FieldType,
    pub meaning: &'static str,
}

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    pub(super) const ALL: [(Operator, &'static str); 6] = [
        (Self::Equal, "="),
        (Self::NotEqual, "!="),
        (Self::Less, "<"),
        (Self::LessOrEqual, "<="),
        (Self::Greater, ">"),
        (Self::GreaterOrEqual, ">="),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(operator, _)| *operator == self).map_or("", |(_, text)| text)
    }

    /// Whether two values compare as the operator says.
    pub fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

/// A literal in a query, of its field's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(f64),
    Text(String),
    Flag(bool),
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Flag(_) => None,
        }
    }
}

/// A condition on fields of one table. [`fmt::Display`] writes it as the parser reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// All of these; true if there are none.
    And(Vec<Query>),
    /// Any of these; false if there are none.
    Or(Vec<Query>),
    Not(Box<Query>),
    Compare(&'static Field, Operator, Value),
    /// Equal to any of the values.
    In(&'static Field, Vec<Value>),
    /// The text contains this one; case is ignored.
    Contains(&'static Field, String),
    /// The field has no value.
    IsNull(&'static Field),
}

impl Query {
    /// The query that everything fulfils.
    pub const ALL: Query = Query::And(Vec::new());

    /// Whether a condition of the query is about a field other than `name`.
    pub fn names_other_than(&self, name: &str) -> bool {
        self.has_field(&|field| field.name != name)
    }

    /// Whether a condition of the query is about the field `name`.
    pub fn names(&self, name: &str) -> bool {
        self.has_field(&|field| field.name == name)
    }

    fn has_field(&self, predicate: &impl Fn(&Field) -> bool) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.has_field(predicate)),
            Self::Not(part) => part.has_field(predicate),
            Self::Compare(field, ..) | Self::In(field, _) | Self::Contains(field, _) | Self::IsNull(field) => {
                predicate(field)
            }
        }
    }

    /// The operands if the query is a conjunction, else the query itself.
    pub fn conjuncts(&self) -> &[Query] {
        match self {
            Self::And(all) => all,
            one => std::slice::from_ref(one),
        }
    }
}

/// Why a text is no query. Prints the message, the text, and a caret below the position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  {text}\n  {}^", " ".repeat(.text.get(..*.position).unwrap_or(.text).chars().count()))]
pub struct QueryError {
    pub message: String,
    /// The text of the query, control characters replaced.
    text: String,
    /// Bytes from the beginning of the text.
    pub position: usize,
}

impl QueryError {
    pub(super) fn new(message: impl Into<String>, text: &str, position: usize) -> Self {
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { message: message.into(), text, position }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, all: &[Query], word: &str| {
            for (i, query) in all.iter().enumerate() {
                if i > 0 {
                    write!(f, " {word} ")?;
                }
                match query {
                    Self::And(all) | Self::Or(all) if all.len() > 1 => write!(f, "({query})")?,
                    query => write!(f, "{query}")?,
                }
            }
            Ok(())
        };
        match self {
            Self::And(all) => list(f, all, "and"),
            Self::Or(all) => list(f, all, "or"),
            Self::Not(query) => match **query {
                Self::And(ref all) | Self::Or(ref all) if all.len() > 1 => write!(f, "not ({query})"),
                _ => write!(f, "not {query}"),
            },
            Self::Compare(field, Operator::Equal, Value::Flag(true)) => f.write_str(field.name),
            Self::Compare(field, operator, value) => write!(f, "{}{}{value}", field.name, operator.as_str()),
            Self::In(field, values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "{} in ({})", field.name, values.join(", "))
            }
            Self::Contains(field, text) => write!(f, "{} contains {}", field.name, Value::Text(text.clone())),
            Self::IsNull(field) => write!(f, "{} is null", field.name),
        }
    }
}
