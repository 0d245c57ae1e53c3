//! The tables found in a dump, and the roles they have.

use std::collections::BTreeMap;
use std::fmt;

use super::error::SourceError;
use super::mapping::{ColumnMap, Mapping, Role};

/// A table's qualified name. Unknown parts are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Set where one dump contains several PostgreSQL databases.
    pub database: String,
    /// The schema in PostgreSQL, the database in MySQL.
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

/// PostgreSQL's default schema.
pub const PUBLIC: &str = "public";

/// How the database compares and qualifies names.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    /// Names are compared without regard to case.
    pub any_case: bool,
    /// The schema assumed when `--map` gives none. None: any schema matches, if the table exists in only one.
    pub default_schema: Option<&'static str>,
}

/// What to do with the rows of a table.
#[derive(Debug, PartialEq, Eq)]
pub enum TableUse {
    Read(ColumnMap),
    Skip,
    /// The table has a role, but its columns are unknown.
    NoColumns,
}

pub struct Catalog<'m> {
    mapping: &'m Mapping,
    naming: Naming,
    tables: BTreeMap<TableName, Vec<String>>,
    /// Parents of partitions and inheriting tables: a child's rows are also the parent's rows.
    parents: BTreeMap<TableName, TableName>,
    found: [Option<TableName>; 3],
    faults: [Vec<String>; 3],
    ambiguous: Vec<String>,
}

/// Tables listed in a message.
const MAX_SHOWN: usize = 30;
/// Tables remembered; no realistic dump has more.
const MAX_TABLES: usize = 100_000;

impl<'m> Catalog<'m> {
    pub fn new(mapping: &'m Mapping, naming: Naming) -> Self {
        Self {
            mapping,
            naming,
            tables: BTreeMap::new(),
            parents: BTreeMap::new(),
            found: [const { None }; 3],
            faults: [const { Vec::new() }; 3],
            ambiguous: Vec::new(),
        }
    }

    /// Records a table and its columns.
    pub fn create(&mut self, table: &TableName, columns: Vec<String>) {
        self.resolve(table, &columns);
        self.record(table, columns);
    }

    /// Records that the rows of `child` are also rows of `parent`.
    pub fn attach(&mut self, child: &TableName, parent: TableName) {
        // The first parent stays, so that no cycle can form.
        if self.parents.len() < MAX_TABLES && self.root(&parent) != child {
            self.parents.entry(child.clone()).or_insert(parent);
        }
    }

    /// Returns the topmost parent, or the table itself.
    fn root<'t>(&'t self, mut table: &'t TableName) -> &'t TableName {
        while let Some(parent) = self.parents.get(table) {
            table = parent;
        }
        table
    }

    /// Returns what to do with rows of these columns. None: the rows have all columns in the table's order.
    pub fn look_up(&mut self, table: &TableName, columns: Option<Vec<String>>) -> TableUse {
        let Some(columns) = columns else {
            let columns = self.tables.get(table).or_else(|| self.tables.get(self.root(table)));
            return match columns {
                Some(columns) if !columns.is_empty() => {
                    let columns = columns.clone();
                    self.resolve(table, &columns)
                }
                _ if self.role(table).is_some() => TableUse::NoColumns,
                _ => {
                    self.record(table, Vec::new());
                    TableUse::Skip
                }
            };
        };
        let check = self.resolve(table, &columns);
        if !self.knows(table) {
            self.record(table, columns);
        }
        check
    }

    /// Whether the table's columns are known.
    pub fn knows(&self, table: &TableName) -> bool {
        self.tables.get(table).is_some_and(|columns| !columns.is_empty())
    }

    /// Whether the query reads the table.
    pub fn is_used(&self, table: &TableName) -> bool {
        self.role(table).is_some()
    }

    fn record(&mut self, table: &TableName, columns: Vec<String>) {
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

    fn resolve(&mut self, table: &TableName, columns: &[String]) -> TableUse {
        let Some(role) = self.role(table) else { return TableUse::Skip };
        let table = self.root(table).clone();
        match &self.found[role as usize] {
            Some(other) if *other != table => {
                if self.ambiguous.len() < MAX_SHOWN {
                    self.ambiguous.push(format!(
                        "table `{}` exists twice, as {other} and as {table}: choose one with --map {role}=SCHEMA.TABLE, \
                         or dump only one database",
                        table.name
                    ));
                }
                return TableUse::Skip;
            }
            Some(_) => {}
            None => self.found[role as usize] = Some(table.clone()),
        }
        let column_map = self.mapping.column_map(role, &table.to_string(), columns, self.naming.any_case);
        match column_map {
            Ok(column_map) => {
                self.faults[role as usize].clear();
                TableUse::Read(column_map)
            }
            Err(faults) => {
                self.faults[role as usize] = faults;
                TableUse::Skip
            }
        }
    }

    /// Checks at the end of the dump that all tables and columns were found.
    pub fn check(self) -> Result<(), SourceError> {
        let mut lines = self.ambiguous;
        let mut missing = false;
        for role in Role::ALL {
            if self.found[role as usize].is_none() {
                let schema = self.mapping.schema(role).map(|schema| format!("{schema}.")).unwrap_or_default();
                let table = self.mapping.table(role);
                lines.push(format!("table `{schema}{table}` is missing: name it with --map {role}=TABLE"));
                missing = true;
            }
        }
        lines.extend(self.faults.into_iter().flatten());
        if lines.is_empty() {
            return Ok(());
        }
        if missing {
            let shown: Vec<String> =
                self.tables.iter().take(MAX_SHOWN).map(|(table, columns)| describe(table, columns)).collect();
            let more = if self.tables.len() > MAX_SHOWN { ", ..." } else { "" };
            lines.push(match shown.as_slice() {
                [] => "the dump contains no table".into(),
                _ => format!("found: {}{more}", shown.join(", ")),
            });
        }
        Err(SourceError::Unfit(lines))
    }
}

fn describe(table: &TableName, columns: &[String]) -> String {
    if columns.is_empty() { table.to_string() } else { format!("{table} ({})", columns.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName { schema: PUBLIC.into(), name: name.into(), ..TableName::default() }
    }

    #[test]
    fn parents_form_no_cycle() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, Naming { any_case: false, default_schema: Some(PUBLIC) });
        for (child, parent) in [("a", "b"), ("c", "a"), ("a", "c"), ("b", "c"), ("b", "faces"), ("faces", "faces")] {
            catalog.attach(&table(child), table(parent));
        }
        assert!(catalog.is_used(&table("c")));
        assert_eq!(catalog.root(&table("c")), &table("faces"));
    }

    #[test]
    fn missing_table_error_lists_the_tables_found() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, Naming { any_case: false, default_schema: Some(PUBLIC) });
        catalog.create(&table("labels"), vec!["id".into(), "title".into()]);
        catalog.create(&table("images"), vec!["id".into(), "url".into()]);
        assert_eq!(catalog.look_up(&table("labels"), None), TableUse::Skip);
        let Err(SourceError::Unfit(lines)) = catalog.check() else { panic!("expected an error") };
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert_eq!(lines[3], "found: images (id, url), labels (id, title)");
    }
}
