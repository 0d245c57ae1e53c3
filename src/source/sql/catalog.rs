//! The tables found in a dump, and the roles they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::super::column::{Column, ColumnDefault, ColumnType};
use super::super::error::SourceError;
use super::super::mapping::{ColumnMap, Mapping, Role, WIDTH};

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

/// What is known about a table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Empty if they are unknown.
    pub columns: Vec<Column>,
    /// The columns of each primary key and unique constraint.
    pub keys: Vec<Vec<String>>,
    /// Whether one of the keys is the primary key.
    pub has_primary: bool,
    /// Whether the dump creates the table.
    pub created: bool,
    /// Whether a trigger or a rule may do anything when rows are inserted.
    pub triggered: bool,
    /// Whether rows were skipped, because the query does not read the table.
    pub skipped: bool,
    /// Tables whose rows include the rows of this one: PostgreSQL's partitioned and inherited tables.
    parents: Vec<TableName>,
    /// The number of the table among those whose rows belong to the same role.
    part: u32,
}

impl Table {
    /// Whether the rows of the table count for others.
    pub fn has_parents(&self) -> bool {
        !self.parents.is_empty()
    }

    /// Whether the rows of the table count for another one.
    pub fn is_below(&self, parent: &TableName) -> bool {
        self.parents.contains(parent)
    }

    /// A table of these columns.
    pub fn of(columns: Vec<Column>) -> Self {
        Self { columns, ..Self::default() }
    }
}

/// What to do with the rows of a table.
#[derive(Debug)]
pub enum TableUse {
    Read(Box<RowPlan>),
    /// The query does not read the table. With the number of values in a row, if it is known.
    Skip(Option<usize>),
    /// The table has a role, but its columns are unknown.
    NoColumns,
    /// The statement lists columns that the table does not have.
    Wrong(String),
}

/// How the rows of a statement are read.
#[derive(Debug, Clone)]
pub struct RowPlan {
    pub columns: ColumnMap,
    /// The definitions of the role's columns, with the defaults of those that the statement leaves out.
    pub slots: [Column; WIDTH],
    /// The names of the role's columns in the table; those that are left out are empty.
    pub slot_names: [String; WIDTH],
    /// The positions of the columns of each key other than that on the id, among the values of a row.
    pub other_keys: Vec<Vec<usize>>,
    /// The positions and types of columns that the query does not read, and whose values PostgreSQL checks.
    pub others: Vec<(usize, ColumnType)>,
    /// Whether the table has a key on the role's id.
    pub keyed: bool,
    pub part: u32,
}

pub struct Catalog<'m> {
    mapping: &'m Mapping,
    naming: Naming,
    tables: BTreeMap<TableName, Table>,
    found: [Option<TableName>; 3],
    /// Columns that the last definition of each role's table lacks.
    faults: [Vec<String>; 3],
    /// Columns that rows lack. A later definition does not heal them.
    row_faults: BTreeSet<String>,
    ambiguous: BTreeSet<String>,
    /// Bytes of the definitions, about.
    size: usize,
    parts: u32,
}

/// Tables listed in a message.
const MAX_SHOWN: usize = 30;
/// Tables remembered; no realistic dump has more.
const MAX_TABLES: usize = 100_000;
/// Bytes of definitions remembered.
const MAX_SIZE: usize = 64 << 20;
/// Parents of a table.
const MAX_PARENTS: usize = 16;
/// Generations of parents.
const MAX_DEPTH: u32 = 4;
/// Columns of a table with those of its parents.
const MAX_COLUMNS: usize = 4096;

impl<'m> Catalog<'m> {
    pub fn new(mapping: &'m Mapping, naming: Naming) -> Self {
        Self {
            mapping,
            naming,
            tables: BTreeMap::new(),
            found: [const { None }; 3],
            faults: [const { Vec::new() }; 3],
            row_faults: BTreeSet::new(),
            ambiguous: BTreeSet::new(),
            size: 0,
            parts: 0,
        }
    }

    /// Records a table and its columns.
    pub fn create(&mut self, name: &TableName, mut table: Table) {
        // Missing columns are faults that `check` reports.
        let _ = self.resolve(name, &names_of(&table.columns));
        if let Some(known) = self.tables.get_mut(name) {
            table.parents.append(&mut known.parents);
            table.triggered |= known.triggered;
            table.part = known.part;
        } else {
            table.part = self.next_part(name);
        }
        table.created = true;
        self.record(name, table);
    }

    /// Numbers the table: 0, unless its rows count for another table, too.
    fn next_part(&mut self, name: &TableName) -> u32 {
        let is_root = |role: Role| self.same(self.mapping.table(role), &name.name);
        if Role::ALL.into_iter().any(is_root) {
            return 0;
        }
        self.parts += 1;
        self.parts
    }

    fn record(&mut self, name: &TableName, mut table: Table) {
        let size: usize = table.columns.iter().map(|column| size_of::<Column>() + column.name.len()).sum();
        self.size += size + size_of::<Table>() + name.name.len();
        if self.size > MAX_SIZE {
            table.columns.clear();
        }
        if self.tables.len() < MAX_TABLES {
            self.tables.insert(name.clone(), table);
        }
    }

    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.get(name)
    }

    pub fn table_mut(&mut self, name: &TableName) -> Option<&mut Table> {
        self.tables.get_mut(name)
    }

    /// Whether the dump creates tables. If so, it creates all of them.
    pub fn creates_tables(&self) -> bool {
        self.tables.values().any(|table| table.created)
    }

    /// Forgets a table. False: it was not known.
    pub fn forget(&mut self, name: &TableName) -> bool {
        self.tables.remove(name).is_some()
    }

    /// Records that inserts into a table that is not known fire a trigger.
    pub fn note_trigger(&mut self, name: &TableName) {
        let part = self.next_part(name);
        self.record(name, Table { triggered: true, part, ..Table::default() });
    }

    /// Whether a schema or a database has a table that the query reads.
    pub fn has_used_in(&self, part: &str) -> bool {
        let is_in = |name: &TableName| name.schema == part || name.database == part;
        self.tables.keys().any(|name| is_in(name) && self.role(name).is_some())
    }

    /// Forgets the tables of a schema or a database.
    pub fn forget_all(&mut self, part: &str) {
        self.tables.retain(|name, _| name.schema != part && name.database != part);
    }

    /// Records that the rows of `child` are also rows of `parent`.
    ///
    /// # Errors
    /// Rows of `child` were skipped before, although they count.
    pub fn attach(&mut self, child: &TableName, parent: TableName) -> Result<(), String> {
        let is_cycle = self.ancestors(&parent).contains(child);
        if is_cycle || self.tables.len() >= MAX_TABLES {
            return Ok(());
        }
        let part = self.next_part(child);
        let table = self.tables.entry(child.clone()).or_insert_with(|| Table { part, ..Table::default() });
        if table.parents.len() < MAX_PARENTS && !table.parents.contains(&parent) {
            table.parents.push(parent);
        }
        let skipped = table.skipped;
        match self.role(child) {
            Some(role) if skipped => Err(format!(
                "the rows of `{child}` count for {role}, but the statement that says so comes after them, which only \
                     the database can follow"
            )),
            _ => Ok(()),
        }
    }

    /// The table and all its parents, their parents and so on.
    fn ancestors(&self, name: &TableName) -> Vec<TableName> {
        let mut found = vec![name.clone()];
        let mut next = 0;
        while next < found.len() && found.len() < MAX_PARENTS {
            if let Some(table) = self.tables.get(&found[next]) {
                for parent in &table.parents {
                    if !found.contains(parent) {
                        found.push(parent.clone());
                    }
                }
            }
            next += 1;
        }
        found
    }

    /// Returns what to do with rows of these columns. None: the rows have all columns in the table's order.
    pub fn look_up(&mut self, name: &TableName, columns: Option<Vec<String>>) -> TableUse {
        let defined = self.columns_of(name);
        let used = self.role(name).is_some();
        let Some(listed) = columns else {
            let visible: Vec<Column> = defined.iter().filter(|column| !column.hidden).cloned().collect();
            if used {
                return match defined.is_empty() {
                    true => TableUse::NoColumns,
                    false => self.plan(name, &names_of(&visible), &defined),
                };
            }
            self.skip(name);
            return TableUse::Skip((!defined.is_empty()).then_some(visible.len()));
        };
        let width = listed.len();
        if let Err(fault) = self.check_listed(name, &listed, &defined) {
            return TableUse::Wrong(fault);
        }
        if !used {
            self.skip(name);
            return TableUse::Skip(Some(width));
        }
        let found = self.plan(name, &listed, &defined);
        if !self.tables.contains_key(name) {
            let columns = listed.into_iter().map(|name| Column { name, ..Column::default() }).collect();
            self.record(name, Table { columns, part: 0, ..Table::default() });
        }
        found
    }

    /// The columns of a table: those of its parents, in their order, and then its own.
    pub fn columns_of(&self, name: &TableName) -> Vec<Column> {
        let mut columns = Vec::new();
        self.collect_columns(name, MAX_DEPTH, &mut columns);
        match self.tables.get(name) {
            // A table that was attached later has columns in an order of its own.
            Some(table) if table.columns.len() == columns.len() => table.columns.clone(),
            _ => columns,
        }
    }

    fn collect_columns(&self, name: &TableName, depth: u32, columns: &mut Vec<Column>) {
        let Some(table) = self.tables.get(name) else { return };
        if depth > 0 {
            for parent in &table.parents {
                self.collect_columns(parent, depth - 1, columns);
            }
        }
        if columns.is_empty() {
            columns.extend_from_slice(&table.columns);
            return;
        }
        for column in &table.columns {
            if columns.len() < MAX_COLUMNS && !columns.iter().any(|known| known.name == column.name) {
                columns.push(column.clone());
            }
        }
    }

    fn skip(&mut self, name: &TableName) {
        match self.tables.get_mut(name) {
            Some(table) => table.skipped = true,
            None => {
                let part = self.next_part(name);
                self.record(name, Table { skipped: true, part, ..Table::default() });
            }
        }
    }

    /// Whether rows of several tables count for a role.
    pub fn is_split(&self, role: Role) -> bool {
        self.tables.iter().any(|(name, table)| !table.parents.is_empty() && self.role(name) == Some(role))
    }

    /// The role of a table, or of a table for which its rows count.
    pub fn role(&self, name: &TableName) -> Option<Role> {
        self.role_and_root(name).map(|(role, _)| role)
    }

    fn role_and_root(&self, name: &TableName) -> Option<(Role, TableName)> {
        let plain = self.tables.get(name).is_none_or(|table| table.parents.is_empty());
        let ancestors = if plain { vec![name.clone()] } else { self.ancestors(name) };
        ancestors.into_iter().find_map(|table| {
            let role = Role::ALL.into_iter().find(|role| {
                let schema = self.mapping.schema(*role).or(self.naming.default_schema);
                self.same(self.mapping.table(*role), &table.name)
                    && schema.is_none_or(|schema| self.same(schema, &table.schema))
            })?;
            Some((role, table))
        })
    }

    fn same(&self, a: &str, b: &str) -> bool {
        a == b || (self.naming.any_case && a.eq_ignore_ascii_case(b))
    }

    /// The role of a table of this name, whatever its schema.
    pub fn role_of_name(&self, name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| self.mapping.table(*role).eq_ignore_ascii_case(name))
    }

    /// Whether a name is that of a table that the query reads, whatever its schema.
    pub fn is_used_name(&self, name: &str) -> bool {
        self.role_of_name(name).is_some()
    }

    /// Checks the columns that a statement lists against the definition of the table.
    fn check_listed(&self, name: &TableName, listed: &[String], defined: &[Column]) -> Result<(), String> {
        let same = |a: &str, b: &str| self.same(a, b);
        let known = self.tables.get(name).is_some_and(|table| table.created) && !defined.is_empty();
        for (at, column) in listed.iter().enumerate() {
            if known && !defined.iter().any(|defined| same(&defined.name, column)) {
                return Err(format!("column `{column}` does not exist in table `{name}`"));
            }
            if listed.len() < 100 && listed[..at].iter().any(|other| same(other, column)) {
                return Err(format!("column `{column}` is named twice"));
            }
        }
        Ok(())
    }

    /// The name of a role's column in the table.
    pub fn column_name(&self, role: Role, slot: usize) -> Option<&str> {
        self.mapping.column(role, slot)
    }

    /// Whether a key of the table is on its id alone.
    pub fn is_id_key(&self, role: Role, key: &[String]) -> bool {
        let id = self.mapping.column(role, 0).unwrap_or_default();
        matches!(key, [column] if column.eq_ignore_ascii_case(id))
    }

    /// Plans the rows of a table that the query reads.
    fn plan(&mut self, name: &TableName, listed: &[String], defined: &[Column]) -> TableUse {
        let Some(role) = self.role(name) else { return TableUse::Skip(Some(listed.len())) };
        // Columns that the statement leaves out have their defaults.
        let any_case = self.naming.any_case;
        let same = |a: &str, b: &str| a == b || (any_case && a.eq_ignore_ascii_case(b));
        let mut all = listed.to_vec();
        all.extend(
            defined.iter().filter(|column| !listed.iter().any(|name| same(name, &column.name))).map(|c| c.name.clone()),
        );
        let columns = match self.resolve(name, &all) {
            Ok(Some(columns)) => columns,
            Ok(None) => return TableUse::Skip(Some(listed.len())),
            Err(faults) => {
                if self.row_faults.len() < MAX_SHOWN {
                    self.row_faults.extend(faults);
                }
                return TableUse::Skip(Some(listed.len()));
            }
        };
        let mut slots: [Column; WIDTH] = Default::default();
        for (slot, index) in columns.indices.iter().enumerate() {
            if let Some(name) = index.map(|index| &all[index])
                && let Some(column) = defined.iter().find(|column| same(&column.name, name))
            {
                slots[slot] = column.clone();
            }
        }
        let indices = columns.indices.map(|index| index.filter(|index| *index < listed.len()));
        let columns = ColumnMap { indices, width: listed.len(), ..columns };
        let table = self.tables.get(name);
        let keys = table.map(|table| table.keys.as_slice()).unwrap_or_default();
        let keyed = keys.iter().any(|key| self.is_id_key(role, key));
        let positions = |key: &Vec<String>| {
            key.iter().map(|name| listed.iter().position(|column| column.eq_ignore_ascii_case(name))).collect()
        };
        let other_keys: Vec<Vec<usize>> =
            keys.iter().filter(|key| !self.is_id_key(role, key)).filter_map(positions).collect();
        let slot_name = |slot: usize| (slot < role.columns().len()).then(|| self.mapping.column(role, slot)).flatten();
        let slot_names = std::array::from_fn(|slot| slot_name(slot).unwrap_or_default().to_owned());
        let part = table.map_or(0, |table| table.part);
        let others = listed.iter().enumerate().filter(|(at, _)| !any_case && !columns.indices.contains(&Some(*at)));
        let others = others.filter_map(|(at, name)| {
            let kind = &defined.iter().find(|column| column.name == *name)?.kind;
            kind.has_rules().then(|| (at, kind.clone()))
        });
        let others = others.collect();
        TableUse::Read(Box::new(RowPlan { columns, slots, slot_names, other_keys, others, keyed, part }))
    }

    /// Finds the role's columns. None: the rows do not count.
    fn resolve(&mut self, name: &TableName, columns: &[String]) -> Result<Option<ColumnMap>, Vec<String>> {
        let Some((role, root)) = self.role_and_root(name) else { return Ok(None) };
        match &self.found[role as usize] {
            Some(other) if *other != root => {
                if self.ambiguous.len() < MAX_SHOWN {
                    self.ambiguous.insert(format!(
                        "table `{}` exists twice, as {other} and as {root}: choose one with --map {role}=SCHEMA.TABLE, \
                         or dump only one database",
                        root.name
                    ));
                }
                return Ok(None);
            }
            Some(_) => {}
            None => self.found[role as usize] = Some(root.clone()),
        }
        match self.mapping.column_map(role, &root.to_string(), columns, self.naming.any_case) {
            Ok(column_map) => {
                self.faults[role as usize].clear();
                Ok(Some(column_map))
            }
            Err(faults) => {
                // The columns of a child follow from its parents, which may come later.
                if root == *name {
                    self.faults[role as usize] = faults.clone();
                }
                Err(faults)
            }
        }
    }

    /// The types of the columns of a role's table, as far as they are known.
    pub fn column_types(&self, role: Role) -> [ColumnType; WIDTH] {
        let columns = self.found[role as usize].as_ref().map(|name| self.columns_of(name)).unwrap_or_default();
        let type_of = |slot: usize| {
            let name = (slot < role.columns().len()).then(|| self.mapping.column(role, slot)).flatten()?;
            columns.iter().find(|column| self.same(&column.name, name)).map(|column| column.kind.clone())
        };
        std::array::from_fn(|slot| type_of(slot).unwrap_or_default())
    }

    /// Checks at the end of the dump that all tables and columns were found.
    pub fn check(&self) -> Result<(), SourceError> {
        let mut lines: Vec<String> = self.ambiguous.iter().cloned().collect();
        let mut missing = false;
        for role in Role::ALL {
            if self.found[role as usize].is_none() && !self.mapping.is_left_out(role) {
                let schema = self.mapping.schema(role).map(|schema| format!("{schema}.")).unwrap_or_default();
                let table = self.mapping.table(role);
                let or_none = if role == Role::Labels { ", or use --map labels= if it does not exist" } else { "" };
                lines.push(format!("table `{schema}{table}` is missing: name it with --map {role}=TABLE{or_none}"));
                missing = true;
            }
            lines.extend_from_slice(&self.faults[role as usize]);
        }
        lines.extend(self.row_faults.iter().filter(|fault| !lines.contains(fault)).cloned().collect::<Vec<_>>());
        if lines.is_empty() {
            return Ok(());
        }
        if missing {
            let more = self.tables.len().saturating_sub(MAX_SHOWN);
            let shown: Vec<String> =
                self.tables.iter().take(MAX_SHOWN).map(|(table, known)| describe(table, &known.columns)).collect();
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            lines.push(match shown.as_slice() {
                [] => "the dump contains no table".into(),
                _ => format!("found: {}{more}", shown.join(", ")),
            });
        }
        Err(SourceError::Unfit(lines))
    }
}

impl RowPlan {
    /// The value of a column that the statement leaves out. None: only the database knows it.
    pub fn omitted(&self, slot: usize) -> Option<Option<&str>> {
        match &self.slots[slot] {
            column if column.not_null && column.default == ColumnDefault::Null => None,
            Column { default: ColumnDefault::Null, .. } => Some(None),
            Column { default: ColumnDefault::Literal(text), .. } => Some(Some(text)),
            Column { default: ColumnDefault::Computed, .. } => None,
        }
    }
}

fn names_of(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

fn describe(table: &TableName, columns: &[Column]) -> String {
    if columns.is_empty() { table.to_string() } else { format!("{table} ({})", names_of(columns).join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName { schema: PUBLIC.into(), name: name.into(), ..TableName::default() }
    }

    fn of(columns: &[&str]) -> Table {
        let columns = columns.iter().map(|name| Column { name: (*name).into(), ..Column::default() }).collect();
        Table { columns, ..Table::default() }
    }

    const NAMING: Naming = Naming { any_case: false, default_schema: Some(PUBLIC) };

    #[test]
    fn parents_form_no_cycle() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, NAMING);
        for (child, parent) in [("a", "b"), ("c", "a"), ("a", "c"), ("b", "c"), ("b", "faces"), ("faces", "faces")] {
            catalog.attach(&table(child), table(parent)).unwrap();
        }
        assert_eq!(catalog.role(&table("c")), Some(Role::Faces));
        assert_eq!(catalog.role_and_root(&table("c")), Some((Role::Faces, table("faces"))));
    }

    #[test]
    fn any_of_several_parents_gives_the_role() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, NAMING);
        catalog.create(&table("audited"), of(&["who"]));
        catalog.create(&table("labels"), of(&["id", "name"]));
        catalog.create(&table("old_labels"), of(&[]));
        catalog.attach(&table("old_labels"), table("audited")).unwrap();
        catalog.attach(&table("old_labels"), table("labels")).unwrap();
        let TableUse::Read(plan) = catalog.look_up(&table("old_labels"), Some(vec!["name".into(), "id".into()])) else {
            panic!("expected rows of labels")
        };
        assert_eq!(plan.columns.indices, [Some(1), Some(0), None, None]);
        assert_ne!(plan.part, 0);
    }

    #[test]
    fn parents_that_come_after_the_rows_are_refused() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, NAMING);
        catalog.create(&table("old"), of(&["id", "name"]));
        assert!(matches!(catalog.look_up(&table("old"), None), TableUse::Skip(Some(2))));
        assert!(catalog.attach(&table("old"), table("labels")).unwrap_err().contains("comes after them"));
    }

    #[test]
    fn left_out_columns_have_their_defaults() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, NAMING);
        let mut labels = of(&["id", "name"]);
        labels.columns[1].default = ColumnDefault::Literal("nobody".into());
        catalog.create(&table("labels"), labels);
        let TableUse::Read(plan) = catalog.look_up(&table("labels"), Some(vec!["id".into()])) else {
            panic!("expected rows of labels")
        };
        assert_eq!((plan.columns.width, plan.columns.indices[1]), (1, None));
        assert_eq!(plan.omitted(1), Some(Some("nobody")));
    }

    #[test]
    fn missing_table_error_lists_the_tables_found() {
        let mapping = Mapping::default();
        let mut catalog = Catalog::new(&mapping, NAMING);
        catalog.create(&table("labels"), of(&["id", "title"]));
        catalog.create(&table("images"), of(&["id", "url"]));
        assert!(matches!(catalog.look_up(&table("labels"), None), TableUse::Skip(_)));
        let Err(SourceError::Unfit(lines)) = catalog.check() else { panic!("expected an error") };
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert_eq!(lines[3], "found: images (id, url), labels (id, title)");
    }
}
