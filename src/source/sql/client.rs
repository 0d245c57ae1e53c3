//! Commands of the clients psql and mysql, which are no SQL.

use super::super::charset::CharacterSet;
use super::super::error::SourceError;
use super::lexer::Dialect;
use super::script::{DUMP_ANEW, Script};
use facemill_domain::Printable;

/// Commands of psql that change no rows.
const HARMLESS_PSQL: [&str; 18] = [
    "echo",
    "qecho",
    "warn",
    "set",
    "unset",
    "pset",
    "timing",
    "x",
    "a",
    "t",
    "H",
    "C",
    "f",
    "errverbose",
    "prompt",
    "p",
    "r",
    "password",
];

/// Commands of the mysql client that change no rows and end with their line.
const HARMLESS_MYSQL: [&str; 13] = [
    "WARNINGS",
    "NOWARNING",
    "PROMPT",
    "TEE",
    "NOTEE",
    "PAGER",
    "NOPAGER",
    "REHASH",
    "STATUS",
    "CLEAR",
    "EGO",
    "PRINT",
    "RESETCONNECTION",
];

const OTHER_FILE: &str = "reads rows from another file, which is not part of this dump";

impl Script<'_, '_> {
    /// Handles a command that starts with a backslash: of psql, or a short one of the mysql client.
    pub fn backslash_command(&mut self) -> Result<(), SourceError> {
        let command = self.lexer.rest_of_line()?;
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((&command, ""));
        let rest = rest.trim();
        if self.dialect() == Dialect::MySql {
            return Err(match name {
                "." => self.refused(format!("`\\.` {OTHER_FILE}; {DUMP_ANEW}")),
                // Conditional comments of sandboxed dumps contain `\-`.
                "-" => return Ok(()),
                _ => self.refused(format!("`\\{}` is a command of the mysql client that is not known", clip(name))),
            });
        }
        match (&self.session.restricted, name) {
            (Some(key), "unrestrict") if key == rest => {
                self.session.restricted = None;
                return Ok(());
            }
            (Some(_), "unrestrict") => {
                return Err(self.lexer.broken("`\\unrestrict` has another key than `\\restrict`"));
            }
            (Some(_), _) => {
                return Err(self.lexer.broken(format!("psql refuses `\\{}` after `\\restrict`", clip(name))));
            }
            (None, "unrestrict") => return Err(self.lexer.broken("`\\unrestrict` comes without `\\restrict`")),
            (None, "restrict") if rest.is_empty() => return Err(self.lexer.broken("`\\restrict` has no key")),
            (None, "restrict") => {
                self.session.restricted = Some(rest.chars().take(1000).collect());
                return Ok(());
            }
            (None, _) => {}
        }
        match name {
            "connect" | "c" => {
                self.database = rest.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned();
                Ok(())
            }
            "encoding" => {
                let encoding = rest.trim_matches('\'');
                self.lexer.syntax.charset = CharacterSet::postgres(encoding)
                    .ok_or_else(|| self.refused(format!("the encoding `{}` is not known", clip(encoding))))?;
                Ok(())
            }
            "i" | "ir" | "include" | "include_relative" | "copy" => {
                Err(self.refused(format!("`\\{name}` {OTHER_FILE}; {DUMP_ANEW}")))
            }
            "." => Err(self.lexer.broken("`\\.` closes no COPY")),
            _ if HARMLESS_PSQL.contains(&name) => Ok(()),
            _ => Err(self.refused(format!("`\\{}` is a command of psql that cannot be followed", clip(name)))),
        }
    }

    /// Handles a command of the mysql client that is a word at the start of a line. False: it is none.
    pub fn client_command(&mut self, word: &str) -> Result<bool, SourceError> {
        if word == "SOURCE" {
            return Err(self.refused(format!("`source` {OTHER_FILE}; {DUMP_ANEW}")));
        }
        if word == "CHARSET" {
            let name = self.lexer.rest_of_line()?;
            self.set_client_charset(name.trim_end_matches(';').trim())?;
            return Ok(true);
        }
        if ["SYSTEM", "EDIT", "CONNECT", "EXIT", "QUIT", "GO", "QUERY_ATTRIBUTES"].contains(&word) {
            return Err(self.refused(format!("`{word}` is a command of the mysql client that cannot be followed")));
        }
        let known = HARMLESS_MYSQL.contains(&word);
        if known {
            self.lexer.rest_of_line()?;
        }
        Ok(known)
    }

    /// Handles `DELIMITER ;;`, which the mysql client ends with the line.
    pub fn set_delimiter(&mut self) -> Result<(), SourceError> {
        let line = self.lexer.rest_of_line()?;
        let delimiter = line.split_whitespace().next().unwrap_or_default();
        if delimiter.is_empty() || delimiter.len() > 64 || delimiter.contains(['\\', '\'', '"', '`']) {
            return Err(self.lexer.broken("DELIMITER names no delimiter"));
        }
        self.lexer.delimiter = delimiter.as_bytes().to_vec();
        Ok(())
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect::<String>().printable().to_string()
}
