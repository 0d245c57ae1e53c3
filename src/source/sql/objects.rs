//! Objects of a database besides tables: what a script creates, so that what it creates twice or names before it is
//! created is noticed.

use std::collections::BTreeSet;

use super::catalog::TableName;

/// Objects remembered.
pub const MAX_OBJECTS: usize = 100_000;

/// Kinds of objects whose names must differ among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A view, a sequence or an index in PostgreSQL; tables are in the catalog.
    Relation,
    Function,
    Type,
    Schema,
    Trigger,
    Collation,
}

#[derive(Debug, Default)]
pub struct Objects {
    known: BTreeSet<(ObjectKind, String)>,
    /// Relations and schemas that were named before the script created its first table.
    pub early: BTreeSet<TableName>,
    pub early_schemas: BTreeSet<String>,
    /// Functions and collations that were named without being known.
    pub unknown: Option<String>,
    /// Whether the search path is empty, so that names without a schema are those of PostgreSQL.
    pub is_path_empty: bool,
    /// Whether the script creates, drops or changes schemas, so that it creates those that it uses.
    pub has_schemas: bool,
    /// Whether the script creates extensions, which define objects of their own.
    pub has_extensions: bool,
}

impl Objects {
    /// Records an object. False: it is known already.
    pub fn define(&mut self, kind: ObjectKind, key: String) -> bool {
        self.known.len() >= MAX_OBJECTS || self.known.insert((kind, key))
    }

    pub fn forget(&mut self, kind: ObjectKind, key: &str) {
        self.known.remove(&(kind, key.to_owned()));
    }

    /// Forgets what starts with a text, such as the functions of a name.
    pub fn forget_all(&mut self, kind: ObjectKind, start: &str) {
        self.known.retain(|(known, key)| *known != kind || !key.starts_with(start));
    }

    /// Whether an object is known whose key starts with a text.
    pub fn knows_any(&self, kind: ObjectKind, start: &str) -> bool {
        let from = (kind, start.to_owned());
        let next = self.known.range(from..).next();
        next.is_some_and(|(known, key)| *known == kind && key.starts_with(start)) || self.known.len() >= MAX_OBJECTS
    }

    pub fn is_known(&self, kind: ObjectKind, key: &str) -> bool {
        self.known.contains(&(kind, key.to_owned())) || self.known.len() >= MAX_OBJECTS
    }
}

/// The key of a relation.
pub fn relation_key(name: &TableName) -> String {
    format!("{}\0{}\0{}", name.database, name.schema, name.name)
}
