//! Reads dumps that are SQL scripts, as pg_dump, mysqldump and mariadb-dump write them, and scripts of the same kind
//! that people write. Those of SQLite are read by SQLite itself: see `sqlite_script`.
//!
//! The script is not executed. Every statement is understood and followed, or belongs to the statements that cannot
//! change the tables of the query, or is an error with its place.
//!
//! ```text
//! lexer        tokens                               token_list   parts of a list of tokens
//! script       the state of reading, names          statement    which statement is which
//! session      transactions, locks, saved settings  settings     SET, and what it changes
//! catalog      the tables found so far              types        types and collations of columns
//! creation     CREATE of what is no table           definition   CREATE TABLE
//! alteration   ALTER and DROP                       relations    what is created, dropped and named
//! objects      views, sequences, types and the like
//! insert       INSERT and REPLACE                   copy         COPY and its rows
//! row          the values of a row                  double       rows whose id is taken
//! expression   values that are no literals          escapes      the escapes of strings
//! change       UPDATE, DELETE, TRUNCATE             client       commands of psql and mysql
//! shape        a grammar of statements              word_order   the order of words in expressions and queries
//! type_name    names of types                       table_shapes, statement_shapes, known_settings
//! ```

mod alteration;
pub mod catalog;
mod change;
mod client;
mod copy;
mod creation;
mod definition;
mod double;
mod escapes;
mod expression;
mod insert;
mod known_settings;
mod lexer;
mod objects;
mod relations;
mod row;
mod script;
mod session;
mod settings;
mod shape;
mod statement;
mod statement_shapes;
mod table_shapes;
mod token_list;
mod type_name;
mod types;
mod word_order;

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
pub use script::{DUMP_ANEW, not_utf8};

/// Detects the dialect by the earliest distinctive mark. None: it is SQLite's. Without a mark it is PostgreSQL's, which
/// is closest to the standard.
pub fn dialect(head: &[u8]) -> Option<Dialect> {
    const MARKS: [(&[u8], Option<Dialect>); 25] = [
        (b"-- PostgreSQL database", Some(Dialect::Postgres)),
        (b"SET standard_conforming_strings", Some(Dialect::Postgres)),
        (b"pg_catalog.", Some(Dialect::Postgres)),
        (b" FROM stdin", Some(Dialect::Postgres)),
        (b"PRAGMA ", None),
        (b"BEGIN TRANSACTION;", None),
        (b"INSERT INTO sqlite_", None),
        (b" AUTOINCREMENT", None),
        (b"INSERT OR ", None),
        (b"sqlite_sequence", None),
        (b"-- MySQL dump", Some(Dialect::MySql)),
        (b"-- MariaDB dump", Some(Dialect::MySql)),
        (b"-- phpMyAdmin", Some(Dialect::MySql)),
        (b"/*!", Some(Dialect::MySql)),
        (b"/*M!", Some(Dialect::MySql)),
        (b"INSERT INTO `", Some(Dialect::MySql)),
        (b"TABLE `", Some(Dialect::MySql)),
        (b"TABLES `", Some(Dialect::MySql)),
        (b" ENGINE=", Some(Dialect::MySql)),
        (b" AUTO_INCREMENT", Some(Dialect::MySql)),
        (b"SET NAMES ", Some(Dialect::MySql)),
        (b"INSERT IGNORE ", Some(Dialect::MySql)),
        (b"ON DUPLICATE KEY", Some(Dialect::MySql)),
        (b"LOCK TABLES ", Some(Dialect::MySql)),
        (b"DELIMITER ", Some(Dialect::MySql)),
    ];
    let first = |(mark, dialect): (&[u8], Option<Dialect>)| Some((memchr::memmem::find(head, mark)?, dialect));
    MARKS
        .into_iter()
        .filter_map(first)
        .min_by_key(|(at, _)| *at)
        .map_or(Some(Dialect::Postgres), |(_, dialect)| dialect)
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
    }
}

/// Reads a whole script and collects the rows of the query's tables.
pub fn read(stream: Stream<'_>, dialect: Dialect, target: Target<'_>) -> Result<(), SourceError> {
    let naming = match dialect {
        Dialect::Postgres => Naming { any_case: false, default_schema: Some(PUBLIC) },
        Dialect::MySql => Naming { any_case: true, default_schema: None },
    };
    let schema = naming.default_schema.unwrap_or_default().to_owned();
    let catalog = Catalog::new(target.mapping, naming);
    let mut script = Script {
        lexer: Lexer::new(stream, dialect),
        builder: target.builder,
        catalog,
        objects: objects::Objects::default(),
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
