//! The query language: `p_ok>=0.9 and size>=512 and label='Ada' and not ok`.
//!
//! ```text
//! query      = term { "or" term }
//! term       = factor { ( "and" | "," ) factor }
//! factor     = "not" factor | "(" query ")" | condition
//! condition  = field                                   a field that is true or false
//!            | field operator value                    operator: = != < <= > >=
//!            | field [ "not" ] "in" "(" value { "," value } ")"
//!            | field [ "not" ] "contains" value
//!            | field "is" [ "not" ] "null"
//! value      = number | 'text' | "text" | word         a quote inside a text is doubled
//! ```
//!
//! A comparison with a field that has no value is false; `not` turns it into true. Text is compared exactly, `contains`
//! ignores case. Each user of the language has a table of fields of its own ([`Field`]).

mod ast;
mod lexer;
mod parser;

pub use ast::{Field, FieldType, Operator, Query, QueryError, Value};
pub use parser::{MAX_DEPTH, MAX_LENGTH};
