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
pub fn find<T: Copy>(
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

/// Declares an enum whose values have names, with `ALL`, `as_str`, `Display`, `FromStr` and serde. `what` completes the
/// sentence "... is not".
#[macro_export]
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident is $what:literal {
            $($(#[$value_meta:meta])* $value:ident = $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $enum {
            $($(#[$value_meta])* #[serde(rename = $name)] $value,)+
        }

        impl $enum {
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::named::UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::named::find(Self::ALL, Self::as_str, $what, text)
            }
        }
    };
}
