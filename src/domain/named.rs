//! Enums whose values have names on the command line and in JSON.

/// A name that none of the values has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not {what}: expected {}", expected.join(", "))]
pub struct UnknownName {
    name: String,
    what: &'static str,
    expected: Vec<&'static str>,
}

/// The value that is called `name`. `what` completes the sentence "... is not".
pub(super) fn find<T: Copy>(
    all: &[T],
    as_str: fn(T) -> &'static str,
    what: &'static str,
    name: &str,
) -> Result<T, UnknownName> {
    all.iter().copied().find(|&value| as_str(value) == name).ok_or_else(|| UnknownName {
        name: name.to_owned(),
        what,
        expected: all.iter().map(|&value| as_str(value)).collect(),
    })
}
