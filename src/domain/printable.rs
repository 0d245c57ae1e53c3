//! Texts of dumps, servers and hosts, as a message shows them.

use std::fmt;

/// Shows a text that a stranger may have written on one line of a terminal or a log.
pub trait Printable {
    /// The text with control characters, and others that have no shape of their own, written as [`str::escape_debug`]
    /// writes them (`\n`, `\u{1b}`). Quotes and backslashes stay as they are: `O'Neill`. Width and alignment of the
    /// format apply to the whole.
    fn printable(&self) -> PrintableText<'_>;
}

impl Printable for str {
    fn printable(&self) -> PrintableText<'_> {
        PrintableText(self)
    }
}

/// See [`Printable::printable`].
#[derive(Debug, Clone, Copy)]
pub struct PrintableText<'a>(&'a str);

impl fmt::Display for PrintableText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::with_capacity(self.0.len());
        for part in self.0.split_inclusive(STAYS) {
            let text = part.strip_suffix(STAYS).unwrap_or(part);
            shown.extend(text.escape_debug());
            shown.push_str(&part[text.len()..]);
        }
        f.pad(&shown)
    }
}

/// Characters that `escape_debug` escapes for the sake of a string literal.
const STAYS: [char; 3] = ['\'', '"', '\\'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_stay() {
        for text in ["O'Neill", "\"Q\"", "back\\slash", "'", "\\\\", "", "宇佐美 ñandú 🙂"] {
            assert_eq!(text.printable().to_string(), text);
        }
    }

    #[test]
    fn a_terminal_is_given_no_orders() {
        let text = "a\n'\u{1b}[31m\u{202e}\r\"\u{7}\0";
        assert_eq!(text.printable().to_string(), "a\\n'\\u{1b}[31m\\u{202e}\\r\"\\u{7}\\0");
    }

    #[test]
    fn a_width_counts_what_is_shown() {
        assert_eq!(format!("{:<10}|{:>5}|", "O'Neill".printable(), "\n".printable()), "O'Neill   |   \\n|");
    }
}
