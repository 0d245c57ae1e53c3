//! Dumps that are SQL scripts: what pg_dump, mysqldump, mariadb-dump and sqlite3's .dump write.
//!
//! The script is not run. Of its statements those that fill our tables are read, those that name tables and columns
//! are noted, and all others are passed by the rules of the dialect, so that nothing in a string, a comment or a
//! function's body is taken for a statement.

use std::borrow::Cow;

use super::candidates::Gatherer;
use super::catalogue::{Catalogue, Naming, PUBLIC, TableName, Use};
use super::error::SourceError;
use super::lexer::{Dialect, Lexer, Token};
use super::mapping::{Mapping, Role, Route, Row};
use super::stream::Stream;
use super::values::Rules;

pub struct Script<'s, 'm> {
    pub(super) lexer: Lexer<'s>,
    pub(super) gatherer: &'m mut Gatherer,
    catalogue: Catalogue<'m>,
    /// Where an unqualified name belongs.
    database: String,
    schema: String,
}

/// An INSERT's words up to its first row are compared with the one before only if they are this short.
const MAX_HEAD: usize = 1024;

/// The earliest unmistakable mark tells the dialect; without any the standard holds.
pub fn dialect(head: &[u8]) -> Dialect {
    const MARKS: [(&[u8], Dialect); 11] = [
        (b"-- PostgreSQL database", Dialect::Standard),
        (b"SET standard_conforming_strings", Dialect::Standard),
        (b"pg_catalog.", Dialect::Standard),
        (b" FROM stdin;", Dialect::Standard),
        (b"PRAGMA ", Dialect::Standard),
        (b"-- MySQL dump", Dialect::MySql),
        (b"-- MariaDB dump", Dialect::MySql),
        (b"/*!", Dialect::MySql),
        (b"INSERT INTO `", Dialect::MySql),
        (b"TABLE `", Dialect::MySql),
        (b"TABLES `", Dialect::MySql),
    ];
    let first = |(mark, dialect): (&[u8], Dialect)| Some((memchr::memmem::find(head, mark)?, dialect));
    MARKS.into_iter().filter_map(first).min_by_key(|(at, _)| *at).map_or(Dialect::Standard, |(_, dialect)| dialect)
}

/// Reads a script to its end and gathers the rows of our tables.
pub fn read(
    stream: Stream<'_>,
    dialect: Dialect,
    mapping: &Mapping,
    gatherer: &mut Gatherer,
) -> Result<(), SourceError> {
    let naming = match dialect {
        Dialect::Standard => Naming { any_case: false, default_schema: Some(PUBLIC) },
        Dialect::MySql => Naming { any_case: true, default_schema: None },
    };
    let schema = naming.default_schema.unwrap_or_default().to_owned();
    let lexer = Lexer::new(stream, dialect);
    let catalogue = Catalogue::new(mapping, naming);
    let mut script = Script { lexer, gatherer, catalogue, database: String::new(), schema };
    script.statements()?;
    if !script.lexer.is_complete() {
        return Err(script.lexer.stream.truncated("the comment that closes a complete dump is missing"));
    }
    script.catalogue.verdict()
}

impl Script<'_, '_> {
    fn statements(&mut self) -> Result<(), SourceError> {
        let mysql = self.lexer.dialect == Dialect::MySql;
        loop {
            match self.lexer.token()? {
                Token::End => return Ok(()),
                Token::Symbol(b';') => {}
                Token::Symbol(b'\\') if !mysql => self.meta_command()?,
                word if word.is("INSERT") || (mysql && word.is("REPLACE")) => self.insert()?,
                word if word.is("COPY") && !mysql => self.copy()?,
                word if word.is("CREATE") => self.create()?,
                word if word.is("ALTER") && !mysql => self.alter()?,
                word if word.is("SET") && !mysql => self.set()?,
                word if word.is("USE") && mysql => {
                    self.schema = self.name()?.unwrap_or_default();
                    self.lexer.skip_statement()?;
                }
                word if word.is("DELIMITER") && mysql => self.delimited()?,
                _ => self.lexer.skip_statement()?,
            }
        }
    }

    /// psql's `\connect`; others, like `\restrict`, mean nothing here.
    fn meta_command(&mut self) -> Result<(), SourceError> {
        let line = self.lexer.rest_of_line()?;
        if let Some(database) = line.strip_prefix("connect ") {
            self.database = database.trim().to_owned();
        }
        Ok(())
    }

    /// From `DELIMITER ;;` to `DELIMITER ;`: triggers, functions and events, whose statements are none of the dump's.
    fn delimited(&mut self) -> Result<(), SourceError> {
        while self.lexer.rest_of_line()? != ";" {
            loop {
                self.lexer.skip_blank()?;
                let fresh = self.lexer.stream.at_line_start();
                match self.lexer.token()? {
                    Token::End => return Err(self.lexer.stream.truncated("it ends before `DELIMITER ;`")),
                    word if fresh && word.is("DELIMITER") => break,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// `SET search_path = shop, pg_catalog` and `SET standard_conforming_strings = off`.
    fn set(&mut self) -> Result<(), SourceError> {
        let variable = self.lexer.token()?;
        let path = variable.is("search_path");
        if path || variable.is("standard_conforming_strings") {
            let _ = self.lexer.take_symbol(b'=')? || self.lexer.take_word("TO")?;
            if path {
                self.schema = self.name()?.unwrap_or_else(|| PUBLIC.to_owned());
            } else {
                self.lexer.backslashes = self.lexer.peek()?.is("off");
            }
        } else if variable == Token::Symbol(b';') {
            return Ok(());
        }
        self.lexer.skip_statement()
    }

    /// A name, folded as the database folds it.
    fn name(&mut self) -> Result<Option<String>, SourceError> {
        if !matches!(self.lexer.peek()?, Token::Word(_) | Token::Name(_)) {
            return Ok(None);
        }
        Ok(match self.lexer.token()? {
            Token::Name(name) => Some(name),
            Token::Word(word) if self.lexer.dialect == Dialect::Standard => Some(word.to_ascii_lowercase()),
            Token::Word(word) => Some(word),
            _ => None,
        })
    }

    fn table_name(&mut self) -> Result<Option<TableName>, SourceError> {
        let Some(mut name) = self.name()? else { return Ok(None) };
        let mut schema = self.schema.clone();
        while self.lexer.take_symbol(b'.')? {
            let Some(next) = self.name()? else { return Ok(None) };
            schema = std::mem::replace(&mut name, next);
        }
        Ok(Some(TableName { database: self.database.clone(), schema, name }))
    }

    /// `(a, b, c)`, if it comes next.
    fn column_list(&mut self) -> Result<Option<Vec<String>>, SourceError> {
        if !self.lexer.take_symbol(b'(')? {
            return Ok(None);
        }
        let mut columns = Vec::new();
        // PostgreSQL has tables without columns.
        if self.lexer.take_symbol(b')')? {
            return Ok(Some(columns));
        }
        loop {
            let Some(column) = self.name()? else {
                return Err(self.lexer.broken("a list of columns has something else in it"));
            };
            columns.push(column);
            if self.lexer.take_symbol(b')')? {
                return Ok(Some(columns));
            }
            if !self.lexer.take_symbol(b',')? {
                return Err(self.lexer.broken("a list of columns is not closed"));
            }
        }
    }

    fn create(&mut self) -> Result<(), SourceError> {
        const BEFORE_TABLE: [&str; 7] = ["UNLOGGED", "TEMP", "TEMPORARY", "GLOBAL", "LOCAL", "FOREIGN", "VIRTUAL"];
        while BEFORE_TABLE.iter().any(|word| self.lexer.peek().is_ok_and(|token| token.is(word))) {
            self.lexer.token()?;
        }
        if self.lexer.take_word("TRIGGER")? {
            return self.lexer.skip_trigger();
        }
        if !self.lexer.take_word("TABLE")? {
            return self.lexer.skip_statement();
        }
        if self.lexer.take_word("IF")? {
            let _ = self.lexer.take_word("NOT")? && self.lexer.take_word("EXISTS")?;
        }
        let Some(table) = self.table_name()? else { return self.lexer.skip_statement() };
        if self.lexer.take_symbol(b'(')? {
            let columns = self.column_definitions()?;
            if self.lexer.take_word("INHERITS")? && self.lexer.take_symbol(b'(')? {
                self.attach(&table)?;
            }
            self.catalogue.create(&table, columns);
        } else if self.lexer.take_word("PARTITION")? && self.lexer.take_word("OF")? {
            self.attach(&table)?;
        }
        self.lexer.skip_statement()
    }

    /// The name of the table's parent comes next.
    fn attach(&mut self, child: &TableName) -> Result<(), SourceError> {
        if let Some(parent) = self.table_name()? {
            self.catalogue.attach(child, parent);
        }
        Ok(())
    }

    /// `ALTER TABLE ONLY public.faces ATTACH PARTITION public.faces_2016 FOR VALUES ...`
    fn alter(&mut self) -> Result<(), SourceError> {
        if self.lexer.take_word("TABLE")? {
            self.lexer.take_word("ONLY")?;
            if let Some(parent) = self.table_name()?
                && self.lexer.take_word("ATTACH")?
                && self.lexer.take_word("PARTITION")?
                && let Some(child) = self.table_name()?
            {
                self.catalogue.attach(&child, parent);
            }
        }
        self.lexer.skip_statement()
    }

    /// The names of the columns between the parentheses of a CREATE TABLE.
    fn column_definitions(&mut self) -> Result<Vec<String>, SourceError> {
        let mut columns = Vec::new();
        loop {
            let quoted = matches!(self.lexer.peek()?, Token::Name(_));
            if let Some(name) = self.name()?
                && (quoted || !self.is_constraint(&name)?)
            {
                columns.push(name);
            }
            let mut depth = 0;
            loop {
                match self.lexer.token()? {
                    Token::End => return Err(self.lexer.stream.truncated("it ends within a table's definition")),
                    Token::Symbol(b'(') => depth += 1,
                    Token::Symbol(b')') if depth == 0 => return Ok(columns),
                    Token::Symbol(b')') => depth -= 1,
                    Token::Symbol(b',') if depth == 0 => break,
                    _ => {}
                }
            }
        }
    }

    /// Whether a bare word at the place of a column begins a constraint or an index instead.
    fn is_constraint(&mut self, word: &str) -> Result<bool, SourceError> {
        const BOTH: [&str; 6] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "LIKE"];
        const MYSQL: [&str; 5] = ["KEY", "INDEX", "FULLTEXT", "SPATIAL", "PERIOD"];
        let is_any = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
        if word.eq_ignore_ascii_case("EXCLUDE") {
            let next = self.lexer.peek()?;
            return Ok(next.is("USING") || *next == Token::Symbol(b'('));
        }
        Ok(is_any(&BOTH) || (self.lexer.dialect == Dialect::MySql && is_any(&MYSQL)))
    }

    fn copy(&mut self) -> Result<(), SourceError> {
        let Some(table) = self.table_name()? else { return self.lexer.skip_statement() };
        let columns = self.column_list()?;
        if !(self.lexer.take_word("FROM")? && self.lexer.take_word("STDIN")?) {
            return self.lexer.skip_statement();
        }
        if !self.lexer.take_symbol(b';')? {
            return Err(self.lexer.broken("only COPY's text format without options can be read"));
        }
        let verdict = self.catalogue.look_up(&table, columns);
        self.lexer.skip_line()?;
        match verdict {
            Use::Read(route) => self.copied_rows(&route),
            Use::Skip => self.skip_copied_rows(),
            Use::NoColumns => Err(self.no_columns(&table)),
        }
    }

    fn no_columns(&self, table: &TableName) -> SourceError {
        self.lexer.broken(format!(
            "the rows of `{table}` come without the names of their columns, and no CREATE TABLE says them"
        ))
    }

    fn insert(&mut self) -> Result<(), SourceError> {
        let start = self.lexer.stream.offset();
        let window = self.lexer.stream.fill(MAX_HEAD)?;
        let head = window[..window.len().min(MAX_HEAD)].to_vec();
        const BEFORE_INTO: [&str; 4] = ["IGNORE", "LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED"];
        while BEFORE_INTO.iter().any(|word| self.lexer.peek().is_ok_and(|token| token.is(word))) {
            self.lexer.token()?;
        }
        if !self.lexer.take_word("INTO")? {
            return self.lexer.skip_statement();
        }
        let Some(table) = self.table_name()? else { return self.lexer.skip_statement() };
        if !self.catalogue.is_ours(&table) && self.catalogue.knows(&table) {
            return self.lexer.skip_insert();
        }
        let columns = self.column_list()?;
        if self.lexer.take_word("OVERRIDING")? {
            self.lexer.token()?;
            self.lexer.token()?;
        }
        if !(self.lexer.take_word("VALUES")? || self.lexer.take_word("VALUE")?) {
            return self.lexer.skip_statement();
        }
        match self.catalogue.look_up(&table, columns) {
            Use::Read(route) => {
                let length = usize::try_from(self.lexer.stream.offset() - start).ok();
                let head = length.and_then(|length| head.get(..length));
                let repeated = head.map(|head| [b"\nINSERT", head].concat());
                self.inserted_rows(&route, repeated.as_deref())
            }
            Use::Skip => self.lexer.skip_insert(),
            Use::NoColumns => Err(self.no_columns(&table)),
        }
    }

    /// Reads rows up to the semicolon. Dumps with one row in each INSERT begin them all alike: as long as `repeated`
    /// follows, it is the next row.
    fn inserted_rows(&mut self, route: &Route, repeated: Option<&[u8]>) -> Result<(), SourceError> {
        let rules = Rules { dialect: self.lexer.dialect, backslashes: self.lexer.backslashes };
        let mut values = Vec::new();
        loop {
            self.lexer.skip_blank()?;
            let length = loop {
                let stream = &mut self.lexer.stream;
                match rules.row(stream.window(), &mut values) {
                    Ok(Some(length)) => break length,
                    Ok(None) => {
                        if !stream.grow()? {
                            return Err(stream.truncated("it ends within a row"));
                        }
                    }
                    Err(fault) => return Err(stream.broken(fault.at, fault.detail)),
                }
            };
            let stream = &self.lexer.stream;
            if values.len() != route.width {
                return Err(stream.broken(0, wrong_width(route, values.len())));
            }
            let mut row = Row::default();
            for (slot, place) in route.places.iter().enumerate() {
                let Some(place) = *place else { continue };
                let value = values[place];
                let bytes = rules
                    .decode(stream.window(), value, is_id(route.role, slot))
                    .map_err(|fault| stream.broken(fault.at, fault.detail))?;
                row[slot] = utf8(bytes).map_err(|_| stream.broken(0, not_utf8(route.role, slot)))?;
            }
            self.gatherer.add(route.role, row)?;
            self.lexer.stream.rows += 1;
            self.lexer.stream.consume(length);
            self.lexer.skip_blank()?;
            match self.lexer.stream.fill(1)?.first() {
                Some(b',') => self.lexer.stream.consume(1),
                Some(b';') => {
                    self.lexer.stream.consume(1);
                    let Some(repeated) = repeated else { return Ok(()) };
                    if !self.lexer.stream.fill(repeated.len())?.starts_with(repeated) {
                        return Ok(());
                    }
                    self.lexer.stream.consume(repeated.len());
                }
                // ON CONFLICT DO NOTHING, ON DUPLICATE KEY UPDATE
                _ => return self.lexer.skip_statement(),
            }
        }
    }
}

/// Whether the column identifies a row; ids that are binary are kept as hex digits.
fn is_id(role: Role, slot: usize) -> bool {
    let column = role.columns()[slot];
    column == "id" || column.ends_with("_id")
}

pub fn utf8(bytes: Option<Cow<'_, [u8]>>) -> Result<Option<Cow<'_, str>>, std::str::Utf8Error> {
    Ok(match bytes {
        None => None,
        Some(Cow::Borrowed(bytes)) => Some(Cow::Borrowed(std::str::from_utf8(bytes)?)),
        Some(Cow::Owned(bytes)) => Some(Cow::Owned(String::from_utf8(bytes).map_err(|error| error.utf8_error())?)),
    })
}

pub fn wrong_width(route: &Route, found: usize) -> String {
    format!("a row of {} has {found} values for {} columns", route.role, route.width)
}

pub fn not_utf8(role: Role, slot: usize) -> String {
    format!(
        "{role}.{} is not UTF-8: dump text with pg_dump --encoding=UTF8 or mysqldump --default-character-set=utf8mb4, \
         and binary columns with mysqldump --hex-blob",
        role.columns()[slot]
    )
}
