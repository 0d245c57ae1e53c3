//! Which faces an export has unless it is told otherwise.

use super::face::FIELDS;
use super::query::{Query, QueryError};

/// The filter as a query.
pub const EXPORT_FILTER: &str = "not placeholder";

/// [`EXPORT_FILTER`], parsed.
pub fn export_filter() -> Result<Query, QueryError> {
    Query::parse(EXPORT_FILTER, FIELDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_a_query() {
        assert_eq!(export_filter().unwrap().to_string(), EXPORT_FILTER);
    }
}
