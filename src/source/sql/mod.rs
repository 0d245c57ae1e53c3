//! Reads dumps that are SQL scripts, as pg_dump, mysqldump, mariadb-dump and sqlite3's .dump write them, and scripts of
//! the same kind that people write.
//!
//! The script is not executed. Every statement is understood and followed, or belongs to the statements that cannot
//! change the tables of the query, or is an error with its place.
//!
//! ```text
//! lexer       tokens                             catalog     the tables found so far
//! script      the state of reading, names        session     transactions, locks, saved settings
//! statement   which statement is which           settings    SET, and what it changes
//! definition  CREATE, ALTER and DROP TABLE       types       types and collations of columns
//! insert      INSERT and REPLACE                 copy        COPY and its rows
//! double      rows whose id is taken             row         the values of a row
//! expression  values that are no literals        escapes     the escapes of strings
//! change      UPDATE, DELETE, TRUNCATE           client      commands of psql, mysql and sqlite3
//! ```

pub mod catalog;
mod change;
mod client;
mod copy;
mod definition;
mod double;
mod escapes;
mod expression;
mod insert;
mod lexer;
mod row;
mod script;
mod session;
mod settings;
mod statement;
mod types;

use super::candidates::CandidateBuilder;
use super::compare::Comparer;
use super::error::SourceError;
use super::mapping::{Mapping, Role};
use super::stream::Stream;
use super::warnings::Warnings;
use catalog::{Catalog, Naming, PUBLIC};
pub use copy::unescape;
pub use lexer::Dialect;
use lexer::Lexer;
use script::Script;
pub use script::not_utf8;

/// Detects the dialect by the earliest distinctive mark. Without one it is PostgreSQL's, which is closest to the
/// standard.
pub fn dialect(head: &[u8]) -> Dialect {
    const MARKS: [(&[u8], Dialect); 23] = [
        (b"-- PostgreSQL database", Dialect::Postgres),
        (b"SET standard_conforming_strings", Dialect::Postgres),
        (b"pg_catalog.", Dialect::Postgres),
        (b" FROM stdin", Dialect::Postgres),
        (b"PRAGMA ", Dialect::Sqlite),
        (b" AUTOINCREMENT", Dialect::Sqlite),
        (b"INSERT OR ", Dialect::Sqlite),
        (b"sqlite_sequence", Dialect::Sqlite),
        (b"-- MySQL dump", Dialect::MySql),
        (b"-- MariaDB dump", Dialect::MySql),
        (b"-- phpMyAdmin", Dialect::MySql),
        (b"/*!", Dialect::MySql),
        (b"/*M!", Dialect::MySql),
        (b"INSERT INTO `", Dialect::MySql),
        (b"TABLE `", Dialect::MySql),
        (b"TABLES `", Dialect::MySql),
        (b" ENGINE=", Dialect::MySql),
        (b" AUTO_INCREMENT", Dialect::MySql),
        (b"SET NAMES ", Dialect::MySql),
        (b"INSERT IGNORE ", Dialect::MySql),
        (b"ON DUPLICATE KEY", Dialect::MySql),
        (b"LOCK TABLES ", Dialect::MySql),
        (b"DELIMITER ", Dialect::MySql),
    ];
    let first = |(mark, dialect): (&[u8], Dialect)| Some((memchr::memmem::find(head, mark)?, dialect));
    MARKS.into_iter().filter_map(first).min_by_key(|(at, _)| *at).map_or(Dialect::Postgres, |(_, dialect)| dialect)
}

/// What a script is read into.
pub struct Target<'t> {
    pub builder: &'t mut CandidateBuilder,
    pub mapping: &'t Mapping,
    pub warnings: &'t Warnings,
    /// Whether refusals that need not concern the query's tables become warnings.
    pub lenient: bool,
}

/// The rules of comparison of a dialect's database.
pub fn comparer(dialect: Dialect) -> Comparer {
    match dialect {
        Dialect::Postgres => Comparer::Postgres,
        Dialect::MySql => Comparer::MySql,
        Dialect::Sqlite => Comparer::Sqlite,
    }
}

/// Reads a whole script and collects the rows of the query's tables.
pub fn read(stream: Stream<'_>, dialect: Dialect, target: Target<'_>) -> Result<(), SourceError> {
    let naming = match dialect {
        Dialect::Postgres => Naming { any_case: false, default_schema: Some(PUBLIC) },
        Dialect::MySql | Dialect::Sqlite => Naming { any_case: true, default_schema: None },
    };
    let schema = naming.default_schema.unwrap_or_default().to_owned();
    let catalog = Catalog::new(target.mapping, naming);
    let mut script = Script {
        lexer: Lexer::new(stream, dialect),
        builder: target.builder,
        catalog,
        session: session::Session::default(),
        database: String::new(),
        schema,
        warnings: target.warnings,
        lenient: target.lenient,
    };
    script.statements().map_err(|error| script.explained(error))?;
    script.check_complete()?;
    script.catalog.check()?;
    for role in Role::ALL {
        let columns = script.catalog.column_types(role);
        script.builder.set_columns(role, columns);
    }
    Ok(())
}
