//! The tables that a dump turns out to have, and which of them are ours.

use std::collections::BTreeMap;
use std::fmt;

use super::error::SourceError;
use super::mapping::{Mapping, Role, Route};

/// A table's full name. Empty parts are unknown or not written.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Where one dump holds several PostgreSQL databases.
    pub database: String,
    /// PostgreSQL's schema, MySQL's database.
    pub schema: String,
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.database, &self.schema] {
            if !part.is_empty() && part != PUBLIC {
                write!(f, "{part}.")?;
            }
        }
        f.write_str(&self.name)
    }
}

/// The schema that is meant when PostgreSQL's tools write none.
pub const PUBLIC: &str = "public";

/// How the database compares and qualifies names.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    pub any_case: bool,
    /// The schema of a table for which none was asked; none: a table of any schema will do, if there is only one.
    pub default_schema: Option<&'static str>,
}

/// What is to be done with the rows of a table.
#[derive(Debug, PartialEq, Eq)]
pub enum Use {
    Read(Route),
    Skip,
    /// The table is ours, but nobody has said what its columns are.
    NoColumns,
}

pub struct Catalogue<'m> {
    mapping: &'m Mapping,
    naming: Naming,
    tables: BTreeMap<TableName, Vec<String>>,
    /// Partitions and heirs: their rows are rows of the parent too.
    parents: BTreeMap<TableName, TableName>,
    sighted: [Option<TableName>; 3],
    faults: [Vec<String>; 3],
    ambiguous: Vec<String>,
}

/// Enough names for a message, and for any honest dump.
const MAX_SHOWN: usize = 30;
const MAX_TABLES: usize = 100_000;

impl<'m> Catalogue<'m> {
    pub fn new(mapping: &'m Mapping, naming: Naming) -> Self {
        Self {
            mapping,
            naming,
            tables: BTreeMap::new(),
            parents: BTreeMap::new(),
            sighted: [const { None }; 3],
            faults: [const { Vec::new() }; 3],
            ambiguous: Vec::new(),
        }
    }

    /// Notes a table and its columns.
    pub fn create(&mut self, table: &TableName, columns: Vec<String>) {
        self.judge(table, &columns);
        self.note(table, columns);
    }

    /// Notes that a table's rows are the parent's too.
    pub fn attach(&mut self, child: &TableName, parent: TableName) {
        // A table that has a parent keeps it, so that no circle can close.
        if self.parents.len() < MAX_TABLES && self.root(&parent) != child {
            self.parents.entry(child.clone()).or_insert(parent);
        }
    }

    /// The table that was partitioned, or inherited from.
    fn root<'t>(&'t self, mut table: &'t TableName) -> &'t TableName {
        while let Some(parent) = self.parents.get(table) {
            table = parent;
        }
        table
    }

    /// Says what to do with rows of these columns, or of all the table's columns in their order.
    pub fn look_up(&mut self, table: &TableName, columns: Option<Vec<String>>) -> Use {
        let Some(columns) = columns else {
            let columns = self.tables.get(table).or_else(|| self.tables.get(self.root(table)));
            return match columns {
                Some(columns) if !columns.is_empty() => {
                    let columns = columns.clone();
                    self.judge(table, &columns)
                }
                _ if self.role(table).is_some() => Use::NoColumns,
                _ => {
                    self.note(table, Vec::new());
                    Use::Skip
                }
            };
        };
        let verdict = self.judge(table, &columns);
        if !self.knows(table) {
            self.note(table, columns);
        }
        verdict
    }

    /// Whether the table's columns were told.
    pub fn knows(&self, table: &TableName) -> bool {
        self.tables.get(table).is_some_and(|columns| !columns.is_empty())
    }

    pub fn is_ours(&self, table: &TableName) -> bool {
        self.role(table).is_some()
    }

    fn note(&mut self, table: &TableName, columns: Vec<String>) {
        if self.tables.len() < MAX_TABLES {
            self.tables.insert(table.clone(), columns);
        }
    }

    fn role(&self, table: &TableName) -> Option<Role> {
        let table = self.root(table);
        let same = |a: &str, b: &str| a == b || (self.naming.any_case && a.eq_ignore_ascii_case(b));
        Role::ALL.into_iter().find(|role| {
            let schema = self.mapping.schema(*role).or(self.naming.default_schema);
            same(self.mapping.table(*role), &table.name) && schema.is_none_or(|schema| same(schema, &table.schema))
        })
    }

    fn judge(&mut self, table: &TableName, columns: &[String]) -> Use {
        let Some(role) = self.role(table) else { return Use::Skip };
        let table = self.root(table).clone();
        match &self.sighted[role as usize] {
            Some(other) if *other != table => {
                if self.ambiguous.len() < MAX_SHOWN {
                    self.ambiguous.push(format!(
                        "table `{}` is there twice, as {other} and as {table}: choose with --map {role}=SCHEMA.TABLE, \
                         or dump one database only",
                        table.name
                    ));
                }
                return Use::Skip;
            }
            Some(_) => {}
            None => self.sighted[role as usize] = Some(table.clone()),
        }
        let route = self.mapping.route(role, &table.to_string(), columns, self.naming.any_case);
        match route {
            Ok(route) => {
                self.faults[role as usize].clear();
                Use::Read(route)
            }
            Err(faults) => {
                self.faults[role as usize] = faults;
                Use::Skip
            }
        }
    }

    /// At the end of the dump: were all tables and columns there?
    pub fn verdict(self) -> Result<(), SourceError> {
        let mut lines = self.ambiguous;
        let mut absent = false;
        for role in Role::ALL {
            if self.sighted[role as usize].is_none() {
                let schema = self.mapping.schema(role).map(|schema| format!("{schema}.")).unwrap_or_default();
                let table = self.mapping.table(role);
                lines.push(format!("table `{schema}{table}` is not there: name it with --map {role}=TABLE"));
                absent = true;
            }
        }
        lines.extend(self.faults.into_iter().flatten());
        if lines.is_empty() {
            return Ok(());
        }
        if absent {
            let shown: Vec<String> =
                self.tables.iter().take(MAX_SHOWN).map(|(table, columns)| show(table, columns)).collect();
            let more = if self.tables.len() > MAX_SHOWN { ", ..." } else { "" };
            lines.push(match shown.as_slice() {
                [] => "no table was found at all".into(),
                _ => format!("found: {}{more}", shown.join(", ")),
            });
        }
        Err(SourceError::Unfit(lines))
    }
}

fn show(table: &TableName, columns: &[String]) -> String {
    if columns.is_empty() { table.to_string() } else { format!("{table} ({})", columns.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName { schema: PUBLIC.into(), name: name.into(), ..TableName::default() }
    }

    #[test]
    fn no_circle_of_parents_closes() {
        let mapping = Mapping::default();
        let mut catalogue = Catalogue::new(&mapping, Naming { any_case: false, default_schema: Some(PUBLIC) });
        for (child, parent) in [("a", "b"), ("c", "a"), ("a", "c"), ("b", "c"), ("b", "faces"), ("faces", "faces")] {
            catalogue.attach(&table(child), table(parent));
        }
        assert!(catalogue.is_ours(&table("c")));
        assert_eq!(catalogue.root(&table("c")), &table("faces"));
    }

    #[test]
    fn absent_tables_come_with_what_was_found() {
        let mapping = Mapping::default();
        let mut catalogue = Catalogue::new(&mapping, Naming { any_case: false, default_schema: Some(PUBLIC) });
        catalogue.create(&table("labels"), vec!["id".into(), "title".into()]);
        catalogue.create(&table("images"), vec!["id".into(), "url".into()]);
        assert_eq!(catalogue.look_up(&table("labels"), None), Use::Skip);
        let Err(SourceError::Unfit(lines)) = catalogue.verdict() else { panic!("it fits") };
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert_eq!(lines[3], "found: images (id, url), labels (id, title)");
    }
}
