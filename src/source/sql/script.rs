//! The state of reading a script, and what all statements share: names, ends and refusals.

use super::super::candidates::CandidateBuilder;
use super::super::error::SourceError;
use super::super::mapping::Role;
use super::super::warnings::Warnings;
use super::catalog::{Catalog, TableName};
use super::lexer::{Dialect, Lexer, Token};
use super::objects::Objects;
use super::session::Session;
use super::statement_shapes;
use facemill_domain::Printable;

pub struct Script<'s, 'm> {
    pub lexer: Lexer<'s>,
    pub builder: &'m mut CandidateBuilder,
    pub catalog: Catalog<'m>,
    pub objects: Objects,
    pub session: Session,
    /// The database and schema of unqualified names.
    pub database: String,
    pub schema: String,
    pub warnings: &'m Warnings,
    pub lenient: bool,
}

/// How to get a dump without the statements that only the database can follow.
pub const DUMP_ANEW: &str = "load the script into a database, and dump that with pg_dump, mysqldump or sqlite3 .dump";

/// Words that start a line only where a statement starts.
const FIRST_WORDS: [&str; 14] = [
    "INSERT",
    "REPLACE",
    "COPY",
    "CREATE",
    "DROP",
    "ALTER",
    "TRUNCATE",
    "LOCK",
    "UNLOCK",
    "DELIMITER",
    "COMMIT",
    "PRAGMA",
    "USE",
    "START",
];

impl Script<'_, '_> {
    pub fn dialect(&self) -> Dialect {
        self.lexer.syntax.dialect
    }

    /// An error at the current place: only the database can tell.
    pub fn refused(&self, detail: impl Into<String>) -> SourceError {
        self.lexer.stream.refused(0, detail)
    }

    /// Refuses a statement that need not concern the tables of the query, or warns of it and skips the rest.
    pub fn refuse_or_skip(&mut self, detail: impl Into<String>) -> Result<(), SourceError> {
        self.refuse_or_warn(detail)?;
        self.lexer.skip_statement()
    }

    /// Refuses what need not concern the tables of the query, or warns of it.
    pub fn refuse_or_warn(&mut self, detail: impl Into<String>) -> Result<(), SourceError> {
        let refusal = self.refused(detail);
        self.overrule(refusal)
    }

    fn overrule(&mut self, refusal: SourceError) -> Result<(), SourceError> {
        if !self.lenient {
            return Err(match refusal {
                SourceError::Refused { at, detail } => SourceError::Refused {
                    at,
                    detail: format!("{detail}; --lenient skips it, if you know that it concerns none of the tables"),
                },
                other => other,
            });
        }
        self.warnings.overrule(refusal.to_string());
        Ok(())
    }

    /// Reads a name, folded as the database folds it.
    pub fn name(&mut self) -> Result<Option<String>, SourceError> {
        let dialect = self.dialect();
        if !matches!(self.lexer.peek()?, Token::Word(_) | Token::Name(_)) {
            return Ok(None);
        }
        Ok(match self.lexer.token()? {
            Token::Name(name) => Some(name),
            Token::Word(word) if dialect == Dialect::Postgres => Some(word.to_ascii_lowercase()),
            Token::Word(word) => Some(word),
            _ => None,
        })
    }

    pub fn table_name(&mut self) -> Result<Option<TableName>, SourceError> {
        // In MySQL a name is in double quotes only with ANSI_QUOTES, which --compact does not write.
        if self.dialect() == Dialect::MySql
            && matches!(self.lexer.peek()?, Token::Text(_))
            && self.lexer.last_quote == b'"'
            && !self.session.sets_sql_mode
        {
            self.lexer.syntax.ansi_quotes = true;
            if let Token::Text(text) = self.lexer.token()? {
                self.lexer.push_back(Token::Name(String::from_utf8_lossy(&text).into_owned()));
            }
        }
        let Some(mut name) = self.name()? else { return Ok(None) };
        let mut schema = self.schema.clone();
        while self.lexer.take_symbol(b'.')? {
            let Some(next) = self.name()? else { return Ok(None) };
            schema = std::mem::replace(&mut name, next);
        }
        Ok(Some(TableName { database: self.database.clone(), schema, name }))
    }

    /// The error of a statement in which the name of a table is expected.
    pub fn no_table_name(&mut self, statement: &str) -> SourceError {
        match self.shown_token() {
            Ok(found) => self.lexer.broken(format!("{statement} is followed by {found}, not by the name of a table")),
            Err(error) => error,
        }
    }

    /// The next token, as it is shown in a message.
    pub fn shown_token(&mut self) -> Result<String, SourceError> {
        Ok(show(self.lexer.peek()?))
    }

    /// Expects the end of the statement.
    pub fn end_statement(&mut self, statement: &str) -> Result<(), SourceError> {
        match self.lexer.token()? {
            Token::Stop => Ok(()),
            Token::End => Err(self.lexer.stream.truncated("the dump ends within a statement")),
            other => Err(self.lexer.broken(format!("{statement} is followed by {}, not by its end", show(&other)))),
        }
    }

    /// Skips the rest of a statement that changes no rows, if it has the form of such a statement. `first` is its first
    /// word.
    pub fn skip_known(&mut self, first: &str) -> Result<(), SourceError> {
        let at = self.refused("");
        let tokens = self.collect_statement()?;
        match statement_shapes::is_statement(self.dialect(), &first.to_ascii_uppercase(), &tokens) {
            true if first.eq_ignore_ascii_case("COMMENT") => self.check_commented(&tokens),
            true => Ok(()),
            false => self.odd_at(at, first),
        }
    }

    /// Refuses a statement that is not written as the database reads it, as far as that is known here.
    pub fn odd(&mut self, what: &str) -> Result<(), SourceError> {
        let at = self.refused("");
        self.odd_at(at, what)
    }

    pub fn odd_at(&mut self, at: SourceError, what: &str) -> Result<(), SourceError> {
        let refusal = SourceError::Refused {
            at: match at {
                SourceError::Refused { at, .. } => at,
                _ => self.lexer.stream.position(0),
            },
            detail: format!(
                "{what} has a form that is not known here: the dump is damaged, or only the database can tell what it \
                 means"
            ),
        };
        self.overrule(refusal)
    }

    /// Skips the rest of a statement that changes no rows. A statement that starts within it lacks its separator.
    pub fn skip_plain(&mut self) -> Result<(), SourceError> {
        self.lexer.each_token(separated)
    }

    /// Skips the rest of a statement. Returns whether it names a table that the query reads and that has rows so far.
    pub fn skip_and_find_used(&mut self) -> Result<Option<Role>, SourceError> {
        let mut names: Vec<String> = Vec::new();
        self.lexer.each_token(|token, line_start| {
            if let Token::Word(name) | Token::Name(name) = token
                && names.len() < MAX_NAMES
                && !names.contains(name)
            {
                names.push(name.clone());
            }
            separated(token, line_start)
        })?;
        Ok(Role::ALL.into_iter().find(|role| {
            !self.builder.is_empty(*role)
                && names.iter().any(|name| {
                    let table = TableName {
                        database: self.database.clone(),
                        schema: self.schema.clone(),
                        name: name.to_ascii_lowercase(),
                    };
                    self.catalog.role(&table) == Some(*role) || self.catalog.role_of_name(name) == Some(*role)
                })
        }))
    }

    /// Collects the tokens up to the end of the statement.
    pub fn collect_statement(&mut self) -> Result<Vec<Token>, SourceError> {
        let mut tokens = Vec::new();
        self.lexer.each_token(|token, line_start| {
            if tokens.len() == MAX_TOKENS {
                return Err(format!("a statement has more than {MAX_TOKENS} words"));
            }
            tokens.push(token.clone());
            separated(token, line_start)
        })?;
        tokens.pop();
        Ok(tokens)
    }

    /// Reads `(a, b, c)` if it comes next.
    pub fn column_list(&mut self) -> Result<Option<Vec<String>>, SourceError> {
        if !self.lexer.take_symbol(b'(')? {
            return Ok(None);
        }
        let mut columns = Vec::new();
        // PostgreSQL allows tables without columns.
        if self.lexer.take_symbol(b')')? {
            return Ok(Some(columns));
        }
        loop {
            let Some(mut column) = self.name()? else {
                return Err(self.lexer.broken("the list of columns contains something else than names"));
            };
            // MySQL allows the table before each column.
            while self.lexer.take_symbol(b'.')? {
                column = self.name()?.unwrap_or_default();
            }
            if columns.len() == super::row::MAX_VALUES {
                return Err(self.lexer.broken(format!("a table has more than {} columns", super::row::MAX_VALUES)));
            }
            columns.push(column);
            if self.lexer.take_symbol(b')')? {
                return Ok(Some(columns));
            }
            if !self.lexer.take_symbol(b',')? {
                return Err(self.lexer.broken("the list of columns is not closed"));
            }
        }
    }

    /// Refuses rows of a table that the dump does not create although it creates others.
    pub fn check_created(&mut self, table: &TableName) -> Result<(), SourceError> {
        if self.catalog.table(table).is_some_and(|known| known.created) {
            return Ok(());
        }
        if !self.catalog.creates_tables() {
            self.note_early(table);
            return Ok(());
        }
        self.refuse_or_warn(format!("rows are added to `{table}`, which no CREATE TABLE of the dump defines"))
    }

    /// Refuses a change of a table that LOCK TABLES does not name, as the database does.
    pub fn check_locks(&mut self, table: &TableName) -> Result<(), SourceError> {
        match self.session.may_change(table) {
            true => Ok(()),
            false => Err(self.lexer.broken(format!("`{table}` is not among the tables of LOCK TABLES"))),
        }
    }

    /// Refuses rows of a table with triggers or rules.
    pub fn check_triggers(&mut self, table: &TableName) -> Result<(), SourceError> {
        if self.catalog.table(table).is_some_and(|known| known.triggered) {
            return self.refuse_or_warn(format!(
                "rows are added to `{table}`, which has a trigger or a rule by now: only the database can tell what it \
                 does; {DUMP_ANEW}"
            ));
        }
        Ok(())
    }

    /// Checks the memory from time to time.
    pub fn count_row(&mut self) -> Result<(), SourceError> {
        self.lexer.stream.rows += 1;
        if self.lexer.stream.rows.is_multiple_of(4096) {
            self.lexer.stream.check_memory(self.builder.size())?;
        }
        Ok(())
    }

    /// Adds the likely reason to an error: MySQL's texts are in a character set that the dump does not name.
    pub fn explained(&self, error: SourceError) -> SourceError {
        let window = self.lexer.stream.window();
        let start = &window[..window.len().min(64 << 10)];
        let invalid = std::str::from_utf8(start).is_err_and(|error| error.error_len().is_some());
        let unnamed = self.dialect() == Dialect::MySql && !self.session.names_charset;
        let explain = |detail: String| {
            if detail.contains("CREATE TABLE") {
                return detail;
            }
            format!(
                "{detail}; the dump does not name its character set (SET NAMES), and is not UTF-8: dump with \
                 mysqldump --default-character-set=utf8mb4 --set-charset"
            )
        };
        match error {
            SourceError::Broken { at, detail } if invalid && unnamed => {
                SourceError::Broken { at, detail: explain(detail) }
            }
            SourceError::Truncated { at, detail } if invalid && unnamed => {
                SourceError::Truncated { at, detail: explain(detail) }
            }
            other => other,
        }
    }

    /// Checks at the end that the dump is complete.
    pub fn check_complete(&mut self) -> Result<(), SourceError> {
        if self.lexer.delimiter != b";" {
            return Err(self.lexer.stream.truncated("the dump ends before `DELIMITER ;`"));
        }
        if !self.lexer.is_complete() {
            return Err(self.lexer.stream.truncated("the comment that closes a complete dump is missing"));
        }
        if let Some(open) = self.session.unclosed(self.lexer.has_footer()) {
            return Err(self.lexer.stream.truncated(open));
        }
        self.check_all_created()?;
        if self.lexer.old_header && !self.lexer.has_footer() {
            self.warnings.add(
                "the dump is from a mysqldump before version 10, which writes no closing comment: whether it is \
                 complete cannot be known",
            );
        }
        Ok(())
    }
}

/// Names of a statement that are compared with the tables of the query.
const MAX_NAMES: usize = 10_000;

/// Tokens of a statement that is kept as a whole.
const MAX_TOKENS: usize = 200_000;

fn separated(token: &Token, line_start: bool) -> Result<(), String> {
    if line_start && token.is_any(&FIRST_WORDS) {
        return Err(format!("{} starts within another statement: the `;` before it is missing", show(token)));
    }
    Ok(())
}

/// A token, as it is shown in a message.
pub fn show(token: &Token) -> String {
    match token {
        Token::Word(word) | Token::Name(word) => {
            format!("`{}`", word.chars().take(40).collect::<String>().printable())
        }
        Token::Text(_) => "a text".into(),
        Token::Symbol(symbol) => format!("`{}`", char::from(*symbol).escape_debug()),
        Token::Stop => "the end of the statement".into(),
        Token::End => "the end of the dump".into(),
    }
}

/// The error of bytes in the column of an id whose type is not known.
pub fn unknown_bytes(role: Role, slot: usize) -> String {
    format!(
        "{role}.{} has bytes that are no text, and no CREATE TABLE defines them as binary: dump the definitions of the \
         tables, too, or use mysqldump --hex-blob",
        role.columns()[slot]
    )
}

pub fn not_utf8(role: Role, slot: usize) -> String {
    format!(
        "{role}.{} is not UTF-8: dump texts with pg_dump --encoding=UTF8 or mysqldump --default-character-set=utf8mb4, \
         and binary columns with mysqldump --hex-blob",
        role.columns()[slot]
    )
}
