//! ALTER and DROP: the changes of tables that are followed.

use super::super::column::Column;
use super::super::error::SourceError;
use super::super::mapping::Role;
use super::catalog::{Table, TableName};
use super::creation::OBJECTS;
use super::definition::{CONSTRAINTS, CONSTRAINTS_MYSQL, constraint_key, key_columns};
use super::lexer::{Dialect, Token};
use super::objects::ObjectKind;
use super::script::{DUMP_ANEW, Script, show};
use super::token_list::{split, word_of};
use super::{statement_shapes, table_shapes};

/// Changes of a table that change no rows and no columns of it.
const HARMLESS_CHANGES: [&str; 44] = [
    "OWNER",
    "ENABLE",
    "DISABLE",
    "CLUSTER",
    "SET",
    "RESET",
    "REPLICA",
    "FORCE",
    "NO",
    "VALIDATE",
    "ENGINE",
    "AUTO_INCREMENT",
    "COMMENT",
    "CONVERT",
    "DEFAULT",
    "CHARACTER",
    "CHARSET",
    "COLLATE",
    "ROW_FORMAT",
    "ORDER",
    "ALGORITHM",
    "LOCK",
    "WAIT",
    "NOWAIT",
    "OPTIONS",
    "OF",
    "NOT",
    "PARTITION",
    "REBUILD",
    "OPTIMIZE",
    "ANALYZE",
    "CHECK",
    "REPAIR",
    "COALESCE",
    "REORGANIZE",
    "REMOVE",
    "CHECKSUM",
    "STATS_PERSISTENT",
    "KEY_BLOCK_SIZE",
    "MAX_ROWS",
    "MIN_ROWS",
    "AVG_ROW_LENGTH",
    "PACK_KEYS",
    "INSERT_METHOD",
];

impl Script<'_, '_> {
    pub fn alter(&mut self) -> Result<(), SourceError> {
        if self.lexer.take_word("FOREIGN")? && !self.lexer.peek()?.is("TABLE") {
            return self.skip_plain();
        }
        self.lexer.take_any(&["ONLINE", "IGNORE"])?;
        if !self.lexer.take_word("TABLE")? {
            if !self.lexer.peek()?.is_any(&OBJECTS) && !self.lexer.peek()?.is_any(&["LARGE", "SYSTEM", "INSTANCE"]) {
                let found = self.shown_token()?;
                return Err(self.lexer.broken(format!("ALTER {found} is not known")));
            }
            let schema = self.lexer.peek()?.is_any(&["SCHEMA", "DATABASE"]);
            self.lexer.in_body = self.lexer.peek()?.is("EVENT");
            let tokens = self.collect_body()?;
            if !statement_shapes::is_statement(self.dialect(), "ALTER", &tokens) {
                return self.odd("ALTER");
            }
            self.objects.has_schemas |= tokens[0].is("SCHEMA");
            if let [kind, rest @ ..] = tokens.as_slice()
                && kind.is_any(&["SEQUENCE", "VIEW"])
                && self.dialect() == Dialect::Postgres
                && !rest.first().is_some_and(|token| token.is("IF"))
                && let Some(name) = self.name_in(rest)
            {
                self.check_relation(&name)?;
            }
            self.check_altered(&tokens)?;
            if schema && tokens.iter().any(|token| token.is("RENAME")) {
                return Err(self.refused(format!("a schema is renamed, which cannot be followed; {DUMP_ANEW}")));
            }
            return Ok(());
        }
        let mut exists = true;
        if self.lexer.take_word("IF")? {
            exists = false;
            if !self.lexer.take_word("EXISTS")? {
                return self.odd("ALTER TABLE");
            }
        }
        self.lexer.take_word("ONLY")?;
        let Some(name) = self.table_name()? else { return Err(self.no_table_name("ALTER TABLE")) };
        self.lexer.take_symbol(b'*')?;
        let tokens = self.collect_statement()?;
        // What drops the former content comes before the tables.
        if exists && (self.catalog.creates_tables() || !tokens.first().is_some_and(|token| token.is("DROP"))) {
            self.check_relation(&name)?;
        }
        self.check_locks(&name)?;
        for change in split(&tokens) {
            self.alter_table(&name, change)?;
        }
        Ok(())
    }

    fn has_column(&self, table: &TableName, column: Option<String>) -> bool {
        let columns = self.catalog.table(table).map(|table| table.columns.as_slice()).unwrap_or_default();
        column.is_some_and(|column| columns.iter().any(|known| known.name.eq_ignore_ascii_case(&column)))
    }

    /// Follows one change of an ALTER TABLE.
    fn alter_table(&mut self, name: &TableName, change: &[Token]) -> Result<(), SourceError> {
        let role = self.catalog.role(name);
        let filled = role.is_some_and(|role| !self.builder.is_empty(role));
        let is = |at: usize, words: &[&str]| change.get(at).is_some_and(|token| token.is_any(words));
        let unclear = |script: &Self, what: &str| {
            Err(script.refused(format!("`{name}` is changed by {what}, which cannot be followed; {DUMP_ANEW}")))
        };
        if change.is_empty() {
            return Err(self.lexer.broken("ALTER TABLE has an empty change"));
        }
        let repeats = self.dialect() == Dialect::Postgres && statement_shapes::repeats_option(change);
        if repeats || !table_shapes::is_change(self.dialect(), change) {
            self.odd(&format!("the change of `{name}`"))?;
        }
        let (primary, sequence) = (
            is(0, &["ADD"]) && change.iter().any(|token| token.is("PRIMARY")),
            change.windows(2).position(|pair| pair[0].is("SEQUENCE") && pair[1].is("NAME")),
        );
        if let Some(name) = sequence.and_then(|at| self.name_in(&change[at + 2..])) {
            self.check_new_relation(&name)?;
            self.note_relation(&name);
        } else if is(0, &["ALTER"])
            && change.windows(2).any(|pair| pair[0].is("ADD") && pair[1].is("GENERATED"))
            && let Some(column) = change.get(1 + usize::from(is(1, &["COLUMN"]))).and_then(word_of)
        {
            self.note_sequence(name, &column);
        }
        if is(0, &["DROP"])
            && let Some(table) = self.catalog.table_mut(name)
        {
            table.has_primary = false;
        }
        if primary && let Some(table) = self.catalog.table_mut(name) {
            if table.has_primary {
                return Err(self.lexer.broken(format!("`{name}` has a second primary key")));
            }
            table.has_primary = true;
        }
        if is(0, &["ATTACH"]) && is(1, &["PARTITION"]) {
            return match self.name_in(&change[2..]) {
                Some(child) => {
                    self.check_relation(&child)?;
                    self.check_heir(&child, name, true)?;
                    if self.catalog.table(&child).is_some_and(|table| table.is_below(name)) {
                        return Err(self.lexer.broken(format!("`{child}` is already a partition of `{name}`")));
                    }
                    self.attach(&child, name.clone())
                }
                None => Err(self.lexer.broken("ATTACH PARTITION names no table")),
            };
        }
        if is(0, &["INHERIT"]) {
            return match self.name_in(&change[1..]) {
                Some(parent) => {
                    self.check_heir(name, &parent, false)?;
                    self.attach(name, parent)
                }
                None => Err(self.lexer.broken("INHERIT names no table")),
            };
        }
        if is(0, &["RENAME"]) {
            let other = is(1, &["INDEX", "KEY", "CONSTRAINT", "COLUMN"]);
            let to = change.iter().position(|token| token.is_any(&["TO", "AS"]));
            let target = to.and_then(|to| self.name_in(&change[to + 1..]));
            let becomes_used = !other && target.is_some_and(|target| self.catalog.role(&target).is_some());
            if becomes_used || (role.is_some() && !is(1, &["INDEX", "KEY", "CONSTRAINT"])) {
                return unclear(self, "RENAME");
            }
            return Ok(());
        }
        if is(0, &["ADD"]) {
            if let Some(key) = constraint_key(&change[1..]) {
                self.check_key(name, &key)?;
                if self.dialect() == Dialect::Postgres {
                    self.note_index(name, &change[1..], &key);
                }
            }
            self.check_reference(&change[1..])?;
        }
        let Some(role) = role else { return Ok(()) };
        if is(0, &["ADD"]) {
            let rest = &change[1..];
            let after = rest.get(usize::from(rest.first().is_some_and(|token| token.is("CONSTRAINT"))) * 2..);
            let start = after.unwrap_or_default();
            if start.first().is_some_and(|token| {
                matches!(token, Token::Word(_)) && (token.is_any(&CONSTRAINTS) || token.is_any(&CONSTRAINTS_MYSQL))
            }) {
                if let Some(key) = constraint_key(start) {
                    self.add_key(name, key);
                }
                self.note_reference(role, start);
                return Ok(());
            }
            if is(1, &["PARTITION", "GENERATED"]) {
                return Ok(());
            }
            let from = usize::from(rest.first().is_some_and(|token| token.is("COLUMN")));
            let mut defined = Table::default();
            self.definition(name, rest.get(from..).unwrap_or_default(), &mut defined)?;
            let places = change.iter().any(|token| token.is_any(&["FIRST", "AFTER"]));
            if filled && self.is_read(role, &defined.columns) || places {
                return unclear(self, "ADD COLUMN");
            }
            if let Some(table) = self.catalog.table_mut(name) {
                table.columns.append(&mut defined.columns);
            }
            return Ok(());
        }
        if is(0, &["DROP"]) {
            if is(1, &["CONSTRAINT", "INDEX", "KEY", "PRIMARY", "FOREIGN", "CHECK", "EXPRESSION"]) {
                return Ok(());
            }
            let from = 1 + usize::from(is(1, &["COLUMN"]));
            let is_known = self.catalog.table(name).is_some() || !filled;
            if is_known && is(from, &["IF"]) && !self.has_column(name, change.get(from + 2).and_then(word_of)) {
                return Ok(());
            }
            return unclear(self, "DROP");
        }
        if is(0, &["MODIFY", "CHANGE"]) {
            let mut at = 1 + usize::from(is(1, &["COLUMN"]));
            let old = change.get(at).and_then(word_of).unwrap_or_default();
            at += usize::from(is(0, &["CHANGE"]));
            let mut defined = Table::default();
            self.definition(name, change.get(at..).unwrap_or_default(), &mut defined)?;
            let Some(mut new) = defined.columns.pop() else { return Ok(()) };
            if !new.name.eq_ignore_ascii_case(&old) {
                return unclear(self, "CHANGE");
            }
            if let Some(table) = self.catalog.table_mut(name)
                && let Some(known) = table.columns.iter_mut().find(|known| known.name.eq_ignore_ascii_case(&old))
            {
                // The table's defaults are not known any more.
                if new.kind.class == known.kind.class && new.kind.class.is_text() {
                    new.kind = known.kind.clone();
                }
                *known = new;
            }
            return Ok(());
        }
        if is(0, &["ALTER"]) {
            if change.iter().any(|token| token.is("TYPE")) && filled {
                return unclear(self, "ALTER COLUMN TYPE");
            }
            return Ok(());
        }
        if is(0, &["DETACH", "TRUNCATE", "EXCHANGE", "DISCARD", "IMPORT"]) || is(0, &["NO"]) && is(1, &["INHERIT"]) {
            return unclear(self, &show(&change[0]));
        }
        if change[0].is_any(&HARMLESS_CHANGES) {
            return Ok(());
        }
        Err(self.lexer.broken(format!("ALTER TABLE `{name}` {} is not known", show(&change[0]))))
    }

    /// Refuses a key on columns that the table does not have.
    fn check_key(&mut self, name: &TableName, key: &[String]) -> Result<(), SourceError> {
        let columns = self.catalog.columns_of(name);
        let has = |name: &String| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        match key.iter().find(|column| *column != "?" && !has(column)) {
            Some(column) if !columns.is_empty() => {
                Err(self.lexer.broken(format!("a key of `{name}` names the column `{column}`, which does not exist")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a table below another one that lacks columns of it, or a partition that has further ones.
    fn check_heir(&mut self, child: &TableName, parent: &TableName, partition: bool) -> Result<(), SourceError> {
        let (own, wanted) = (self.catalog.columns_of(child), self.catalog.columns_of(parent));
        if own.is_empty() || wanted.is_empty() {
            return Ok(());
        }
        let lacks = |columns: &[Column], name: &str| !columns.iter().any(|column| column.name == name);
        if let Some(column) = wanted.iter().find(|column| lacks(&own, &column.name)) {
            return Err(self.lexer.broken(format!("`{child}` lacks the column `{}` of `{parent}`", column.name)));
        }
        match own.iter().find(|column| partition && lacks(&wanted, &column.name)) {
            Some(column) => Err(self.lexer.broken(format!(
                "the partition `{child}` has the column `{}`, which `{parent}` does not have",
                column.name
            ))),
            None => Ok(()),
        }
    }

    /// Refuses a foreign key of PostgreSQL on columns of the query's tables that have no key.
    fn check_reference(&mut self, constraint: &[Token]) -> Result<(), SourceError> {
        let at = constraint.iter().position(|token| token.is("REFERENCES"));
        let foreign = constraint.iter().any(|token| token.is("FOREIGN")) && self.dialect() == Dialect::Postgres;
        let Some((target, rest)) = at.filter(|_| foreign).and_then(|at| self.name_and_rest(&constraint[at + 1..]))
        else {
            return Ok(());
        };
        let Some(table) = self.catalog.table(&target).filter(|table| table.created) else { return Ok(()) };
        if self.catalog.role(&target).is_none() || rest.first() != Some(&Token::Symbol(b'(')) {
            return Ok(());
        }
        let mut columns = key_columns(rest);
        columns.sort();
        let fits = |key: &Vec<String>| {
            let mut key = key.clone();
            key.sort();
            key == columns || key.iter().any(|column| column == "?")
        };
        if !table.has_parents() && !table.keys.iter().any(fits) {
            return Err(self.lexer.broken(format!("a foreign key refers to columns of `{target}` that have no key")));
        }
        Ok(())
    }

    /// Notes a foreign key that PostgreSQL checks.
    fn note_reference(&mut self, role: Role, constraint: &[Token]) {
        let valid = !constraint.windows(2).any(|pair| pair[0].is("NOT") && pair[1].is("VALID"));
        if role != Role::Faces || !constraint.first().is_some_and(|token| token.is("FOREIGN")) || !valid {
            return;
        }
        let Some(open) = constraint.iter().position(|token| *token == Token::Symbol(b'(')) else { return };
        let columns = key_columns(&constraint[open..]);
        let target = constraint.iter().position(|token| token.is("REFERENCES"));
        let target =
            target.and_then(|at| self.name_in(&constraint[at + 1..])).and_then(|name| self.catalog.role(&name));
        for (slot, referred) in [(1, Role::Photos), (2, Role::Labels)] {
            let own = self.catalog.column_name(role, slot);
            let same =
                matches!(columns.as_slice(), [column] if own.is_some_and(|own| own.eq_ignore_ascii_case(column)));
            if same && target == Some(referred) && self.dialect() == Dialect::Postgres {
                self.builder.set_reference(slot);
            }
        }
    }

    fn is_read(&self, role: Role, columns: &[Column]) -> bool {
        (0..role.columns().len()).any(|slot| {
            let name = self.catalog.column_name(role, slot);
            columns.iter().any(|column| name.is_some_and(|name| name.eq_ignore_ascii_case(&column.name)))
        })
    }

    /// Handles DROP. The rows of a table that is dropped are gone.
    pub fn drop_objects(&mut self) -> Result<(), SourceError> {
        self.lexer.take_any(&["TEMPORARY", "FOREIGN"])?;
        if self.lexer.peek()?.is_any(&["DATABASE", "SCHEMA"]) {
            self.lexer.token()?;
            if self.lexer.take_word("IF")? && !self.lexer.take_word("EXISTS")? {
                return self.odd("DROP");
            }
            let Some(name) = self.name()? else { return Err(self.lexer.broken("DROP names no schema")) };
            let filled = Role::ALL.into_iter().any(|role| !self.builder.is_empty(role));
            if filled && self.catalog.has_used_in(&name) {
                return Err(
                    self.refused(format!("`{name}` is dropped after rows of its tables were read; {DUMP_ANEW}"))
                );
            }
            self.catalog.forget_all(&name);
            self.objects.has_schemas = true;
            self.objects.forget(ObjectKind::Schema, &name);
            return self.skip_plain();
        }
        if self.lexer.take_any(&["TABLE", "TABLES"])? {
            let mut exists = true;
            if self.lexer.take_word("IF")? {
                exists = false;
                if !self.lexer.take_word("EXISTS")? {
                    return self.odd("DROP TABLE");
                }
            }
            loop {
                let Some(name) = self.table_name()? else { return Err(self.no_table_name("DROP TABLE")) };
                if exists && self.catalog.creates_tables() {
                    self.check_relation(&name)?;
                }
                self.check_locks(&name)?;
                self.drop_table(&name)?;
                if !self.lexer.take_symbol(b',')? {
                    break;
                }
            }
            self.lexer.take_any(&["CASCADE", "RESTRICT"])?;
            return self.end_statement("DROP TABLE");
        }
        if !self.lexer.peek()?.is_any(&OBJECTS) && !self.lexer.peek()?.is_any(&["PREPARE", "OPERATOR"]) {
            let found = self.shown_token()?;
            return Err(self.lexer.broken(format!("DROP {found} is not known")));
        }
        let tokens = self.collect_body()?;
        if !statement_shapes::is_statement(self.dialect(), "DROP", &tokens) {
            return self.odd("DROP");
        }
        self.note_dropped(&tokens)
    }

    pub fn drop_table(&mut self, name: &TableName) -> Result<(), SourceError> {
        self.remove_rows(name, "DROP TABLE")?;
        self.catalog.forget(name);
        Ok(())
    }
}
