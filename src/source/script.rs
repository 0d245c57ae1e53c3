//! Reads dumps that are SQL scripts, as pg_dump, mysqldump, mariadb-dump and sqlite3's .dump write them.
//!
//! The script is not executed. Statements that fill the tables of the query are read, those that define tables and
//! columns are recorded, and all others are skipped by the rules of the dialect, so that text in a string, a comment
//! or a function body is never taken for a statement.

use std::borrow::Cow;

use super::candidates::CandidateBuilder;
use super::catalog::{Catalog, Naming, PUBLIC, TableName, TableUse};
use super::error::SourceError;
use super::lexer::{Dialect, Lexer, Token};
use super::mapping::{ColumnMap, Mapping, Role, SourceRow};
use super::stream::Stream;
use super::values::RowScanner;

pub struct Script<'s, 'm> {
    pub(super) lexer: Lexer<'s>,
    pub(super) builder: &'m mut CandidateBuilder,
    catalog: Catalog<'m>,
    /// The database and schema of unqualified names.
    database: String,
    schema: String,
}

/// Longest start of an INSERT, up to its first row, that is compared with the next one, in bytes.
const MAX_HEAD: usize = 1024;

/// Detects the dialect by the earliest distinctive mark. Without one it is the standard.
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

/// Reads a whole script and collects the rows of the query's tables.
pub fn read(
    stream: Stream<'_>,
    dialect: Dialect,
    mapping: &Mapping,
    builder: &mut CandidateBuilder,
) -> Result<(), SourceError> {
    let naming = match dialect {
        Dialect::Standard => Naming { any_case: false, default_schema: Some(PUBLIC) },
        Dialect::MySql => Naming { any_case: true, default_schema: None },
    };
    let schema = naming.default_schema.unwrap_or_default().to_owned();
    let lexer = Lexer::new(stream, dialect);
    let catalog = Catalog::new(mapping, naming);
    let mut script = Script { lexer, builder, catalog, database: String::new(), schema };
    script.statements()?;
    if !script.lexer.is_complete() {
        return Err(script.lexer.stream.truncated("the comment that closes a complete dump is missing"));
    }
    script.catalog.check()
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

    /// Handles psql's `\connect`. Others, such as `\restrict`, are ignored.
    fn meta_command(&mut self) -> Result<(), SourceError> {
        let line = self.lexer.rest_of_line()?;
        if let Some(database) = line.strip_prefix("connect ") {
            self.database = database.trim().to_owned();
        }
        Ok(())
    }

    /// Skips from `DELIMITER ;;` to `DELIMITER ;`: triggers, functions and events, which contain no rows of the dump.
    fn delimited(&mut self) -> Result<(), SourceError> {
        while self.lexer.rest_of_line()? != ";" {
            loop {
                self.lexer.skip_blank()?;
                let fresh = self.lexer.stream.at_line_start();
                match self.lexer.token()? {
                    Token::End => return Err(self.lexer.stream.truncated("the dump ends before `DELIMITER ;`")),
                    word if fresh && word.is("DELIMITER") => break,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Handles `SET search_path = shop, pg_catalog` and `SET standard_conforming_strings = off`.
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

    /// Reads a name, folded to lower case as the database folds it.
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

    /// Reads `(a, b, c)` if it comes next.
    fn column_list(&mut self) -> Result<Option<Vec<String>>, SourceError> {
        if !self.lexer.take_symbol(b'(')? {
            return Ok(None);
        }
        let mut columns = Vec::new();
        // PostgreSQL allows tables without columns.
        if self.lexer.take_symbol(b')')? {
            return Ok(Some(columns));
        }
        loop {
            let Some(column) = self.name()? else {
                return Err(self.lexer.broken("the list of columns contains something else than names"));
            };
            columns.push(column);
            if self.lexer.take_symbol(b')')? {
                return Ok(Some(columns));
            }
            if !self.lexer.take_symbol(b',')? {
                return Err(self.lexer.broken("the list of columns is not closed"));
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
            self.catalog.create(&table, columns);
        } else if self.lexer.take_word("PARTITION")? && self.lexer.take_word("OF")? {
            self.attach(&table)?;
        }
        self.lexer.skip_statement()
    }

    /// Reads the name of the table's parent.
    fn attach(&mut self, child: &TableName) -> Result<(), SourceError> {
        if let Some(parent) = self.table_name()? {
            self.catalog.attach(child, parent);
        }
        Ok(())
    }

    /// Handles `ALTER TABLE ONLY public.faces ATTACH PARTITION public.faces_2016 FOR VALUES ...`.
    fn alter(&mut self) -> Result<(), SourceError> {
        if self.lexer.take_word("TABLE")? {
            self.lexer.take_word("ONLY")?;
            if let Some(parent) = self.table_name()?
                && self.lexer.take_word("ATTACH")?
                && self.lexer.take_word("PARTITION")?
                && let Some(child) = self.table_name()?
            {
                self.catalog.attach(&child, parent);
            }
        }
        self.lexer.skip_statement()
    }

    /// Reads the column names between the parentheses of a CREATE TABLE.
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
                    Token::End => return Err(self.lexer.stream.truncated("the dump ends within a table definition")),
                    Token::Symbol(b'(') => depth += 1,
                    Token::Symbol(b')') if depth == 0 => return Ok(columns),
                    Token::Symbol(b')') => depth -= 1,
                    Token::Symbol(b',') if depth == 0 => break,
                    _ => {}
                }
            }
        }
    }

    /// Whether a bare word in the list of columns starts a constraint or an index instead of a column.
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
            return Err(self.lexer.broken("only COPY's text format without options is supported"));
        }
        let table_use = self.catalog.look_up(&table, columns);
        self.lexer.skip_line()?;
        match table_use {
            TableUse::Read(column_map) => self.copied_rows(&column_map),
            TableUse::Skip => self.skip_copied_rows(),
            TableUse::NoColumns => Err(self.no_columns(&table)),
        }
    }

    fn no_columns(&self, table: &TableName) -> SourceError {
        self.lexer.broken(format!("the rows of `{table}` have no column names, and no CREATE TABLE defines them"))
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
        if !self.catalog.is_used(&table) && self.catalog.knows(&table) {
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
        match self.catalog.look_up(&table, columns) {
            TableUse::Read(column_map) => {
                let length = usize::try_from(self.lexer.stream.offset() - start).ok();
                let head = length.and_then(|length| head.get(..length));
                let repeated = head.map(|head| [b"\nINSERT", head].concat());
                self.inserted_rows(&column_map, repeated.as_deref())
            }
            TableUse::Skip => self.lexer.skip_insert(),
            TableUse::NoColumns => Err(self.no_columns(&table)),
        }
    }

    /// Reads rows up to the semicolon. Dumps with one row per INSERT start each statement alike: while `repeated`
    /// follows, the next row is read without parsing the statement.
    fn inserted_rows(&mut self, column_map: &ColumnMap, repeated: Option<&[u8]>) -> Result<(), SourceError> {
        let rules = RowScanner { dialect: self.lexer.dialect, backslashes: self.lexer.backslashes };
        let mut values = Vec::new();
        loop {
            self.lexer.skip_blank()?;
            let length = loop {
                let stream = &mut self.lexer.stream;
                match rules.row(stream.window(), &mut values) {
                    Ok(Some(length)) => break length,
                    Ok(None) => {
                        if !stream.grow()? {
                            return Err(stream.truncated("the dump ends within a row"));
                        }
                    }
                    Err(fault) => return Err(stream.broken(fault.at, fault.detail)),
                }
            };
            let stream = &self.lexer.stream;
            if values.len() != column_map.width {
                return Err(stream.broken(0, wrong_width(column_map, values.len())));
            }
            let mut row = SourceRow::default();
            for (slot, index) in column_map.indices.iter().enumerate() {
                let Some(index) = *index else { continue };
                let value = values[index];
                let bytes = rules
                    .decode(stream.window(), value, is_id(column_map.role, slot))
                    .map_err(|fault| stream.broken(fault.at, fault.detail))?;
                row[slot] = utf8(bytes).map_err(|_| stream.broken(0, not_utf8(column_map.role, slot)))?;
            }
            self.builder.add(column_map.role, row)?;
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

/// Whether the column is an id. Binary ids are kept as hex digits.
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

pub fn wrong_width(column_map: &ColumnMap, found: usize) -> String {
    format!("a row of {} has {found} values for {} columns", column_map.role, column_map.width)
}

pub fn not_utf8(role: Role, slot: usize) -> String {
    format!(
        "{role}.{} is not UTF-8: dump texts with pg_dump --encoding=UTF8 or mysqldump --default-character-set=utf8mb4, \
         and binary columns with mysqldump --hex-blob",
        role.columns()[slot]
    )
}
