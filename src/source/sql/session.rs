//! What a script has opened and must close, and the settings that it saves and restores.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::TableName;
use super::lexer::Syntax;

/// The state of the session that a script builds up.
#[derive(Debug, Default)]
pub struct Session {
    /// BEGIN or START TRANSACTION without its COMMIT.
    pub in_transaction: bool,
    /// Whether MySQL commits each statement by itself.
    pub manual_commit: bool,
    /// Whether rows of the query's tables were read since the last BEGIN or COMMIT.
    pub uncommitted: bool,
    /// The tables of LOCK TABLES without UNLOCK TABLES.
    locked: Option<BTreeSet<TableName>>,
    /// The key of psql's `\\restrict`, until `\\unrestrict` names it.
    pub restricted: Option<String>,
    /// MySQL's NO_AUTO_VALUE_ON_ZERO.
    pub zero_is_zero: bool,
    /// Whether the script sets the `sql_mode`, so that it says what a double quote is.
    pub sets_sql_mode: bool,
    /// Whether the script names the character set of its texts.
    pub names_charset: bool,
    /// User variables that keep settings: `SET @OLD_SQL_MODE = @@SQL_MODE`.
    saved: BTreeMap<String, SavedSettings>,
    /// User variables that have a value.
    assigned: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct SavedSettings {
    pub syntax: Syntax,
    pub zero_is_zero: bool,
    restored: bool,
}

/// User variables remembered.
const MAX_SAVED: usize = 1000;

impl Session {
    pub fn save(&mut self, variable: &str, syntax: Syntax) {
        if self.saved.len() < MAX_SAVED {
            let saved = SavedSettings { syntax, zero_is_zero: self.zero_is_zero, restored: false };
            self.saved.insert(variable.to_ascii_lowercase(), saved);
        }
    }

    /// The settings that a variable keeps. From now on it counts as restored.
    pub fn restore(&mut self, variable: &str) -> Option<SavedSettings> {
        let saved = self.saved.get_mut(&variable.to_ascii_lowercase())?;
        saved.restored = true;
        Some(*saved)
    }

    /// Locks tables, and unlocks all others.
    pub fn lock(&mut self, tables: impl IntoIterator<Item = TableName>) {
        self.locked = Some(tables.into_iter().collect());
    }

    pub fn unlock(&mut self) {
        self.locked = None;
    }

    /// Whether a table can be changed: all can, or only those that are locked.
    pub fn may_change(&self, table: &TableName) -> bool {
        let same = |locked: &TableName| locked.name.eq_ignore_ascii_case(&table.name);
        self.locked.as_ref().is_none_or(|locked| locked.iter().any(same))
    }

    /// Notes that a user variable has a value.
    pub fn assign(&mut self, variable: &str) {
        if self.assigned.len() < MAX_SAVED {
            self.assigned.insert(variable.to_ascii_lowercase());
        }
    }

    /// Whether a user variable has a value.
    pub fn is_assigned(&self, variable: &str) -> bool {
        self.assigned.contains(&variable.to_ascii_lowercase()) || self.assigned.len() >= MAX_SAVED
    }

    pub fn begin(&mut self) {
        self.in_transaction = true;
        self.uncommitted = false;
    }

    pub fn commit(&mut self) {
        self.in_transaction = false;
        self.uncommitted = false;
    }

    /// What is still open at the end. `has_footer`: the dump's closing comment was read, so that all of it is there.
    pub fn unclosed(&self, has_footer: bool) -> Option<String> {
        if self.in_transaction {
            return Some("BEGIN has no COMMIT: the database keeps nothing".into());
        }
        if self.manual_commit && self.uncommitted {
            return Some("autocommit is off, and there is no COMMIT after the last rows".into());
        }
        if self.restricted.is_some() {
            return Some("`\\restrict` has no `\\unrestrict`".into());
        }
        if has_footer {
            return None;
        }
        if self.locked.is_some() {
            return Some("LOCK TABLES has no UNLOCK TABLES".into());
        }
        // mysqldump saves several at the start, and restores all at the end; a script that keeps a single setting is no
        // dump.
        let open: Vec<&str> =
            self.saved.iter().filter(|(_, saved)| !saved.restored).map(|(name, _)| name.as_str()).collect();
        match open.as_slice() {
            [] | [_] => None,
            [first, ..] => Some(format!("@{first} and {} more variables are never restored", open.len() - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::Dialect;
    use super::*;

    #[test]
    fn what_is_open_at_the_end_is_named() {
        let mut session = Session::default();
        session.begin();
        assert!(session.unclosed(true).unwrap().contains("COMMIT"));
        session.commit();
        assert_eq!(session.unclosed(false), None);
        session.lock([TableName::default()]);
        assert!(session.unclosed(false).unwrap().contains("UNLOCK"));
        assert_eq!(session.unclosed(true), None);
        session.unlock();
        for name in ["OLD_A", "OLD_B"] {
            session.save(name, Syntax::new(Dialect::MySql));
        }
        assert!(session.unclosed(false).unwrap().contains("@old_a and 1 more"));
        assert!(session.restore("old_b").is_some());
        assert_eq!(session.unclosed(false), None);
    }
}
