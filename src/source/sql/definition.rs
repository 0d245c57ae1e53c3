//! CREATE, ALTER and DROP: the tables, their columns, keys and parents.

use super::super::column::Column;
use super::super::error::SourceError;
use super::super::mapping::Role;
use super::catalog::{Table, TableName};
use super::lexer::{Dialect, Token};
use super::row::MAX_VALUES;
use super::script::{DUMP_ANEW, Script, show};
use super::settings::split;
use super::types::{TextDefaults, apply_defaults, closing, column, word_of};

/// What CREATE and DROP may concern besides tables. None of it changes rows.
const OBJECTS: [&str; 44] = [
    "ACCESS",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "DATABASE",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "FOREIGN",
    "FULLTEXT",
    "FUNCTION",
    "GROUP",
    "INDEX",
    "LANGUAGE",
    "LOGFILE",
    "MATERIALIZED",
    "OPERATOR",
    "OWNED",
    "PACKAGE",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "ROLE",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "SPATIAL",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLESPACE",
    "TEXT",
    "TRANSFORM",
    "TRIGGER",
    "TYPE",
    "UNDO",
    "USER",
    "VIEW",
    "PROCEDURAL",
    "TRUSTED",
    "UNIQUE",
    "DEFAULT",
];

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

/// Words in a list of columns that start a constraint or an index.
const CONSTRAINTS: [&str; 6] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE"];
const CONSTRAINTS_MYSQL: [&str; 5] = ["KEY", "INDEX", "FULLTEXT", "SPATIAL", "PERIOD"];

impl Script<'_, '_> {
    pub fn create(&mut self) -> Result<(), SourceError> {
        const BEFORE: [&str; 11] = [
            "OR",
            "REPLACE",
            "UNLOGGED",
            "TEMP",
            "TEMPORARY",
            "GLOBAL",
            "LOCAL",
            "VIRTUAL",
            "RECURSIVE",
            "CONSTRAINT",
            "AGGREGATE",
        ];
        let mut replaces = false;
        loop {
            replaces |= self.lexer.peek()?.is("REPLACE");
            if self.lexer.take_any(&BEFORE)? {
                continue;
            }
            // MySQL: DEFINER=`root`@`localhost` SQL SECURITY DEFINER, ALGORITHM=UNDEFINED.
            if self.dialect() == Dialect::MySql && self.lexer.take_any(&["DEFINER", "ALGORITHM", "SQL"])? {
                while !self.lexer.peek()?.is_any(&["TABLE", "SQL", "DEFINER"]) && !self.lexer.peek()?.is_any(&OBJECTS) {
                    if matches!(self.lexer.token()?, Token::Stop | Token::End) {
                        return Err(self.lexer.broken("CREATE names no kind of object"));
                    }
                    if self.lexer.take_word("SECURITY")? {
                        self.lexer.token()?;
                    }
                }
                continue;
            }
            if self.lexer.peek()?.is("FOREIGN") {
                self.lexer.token()?;
                if self.lexer.peek()?.is("TABLE") {
                    continue;
                }
                return self.skip_plain();
            }
            break;
        }
        if self.lexer.take_word("TABLE")? {
            return self.create_table(replaces);
        }
        if self.lexer.take_word("TRIGGER")? || self.lexer.take_word("RULE")? {
            return self.create_trigger();
        }
        if self.lexer.take_word("UNIQUE")? {
            return self.create_unique_index();
        }
        if !self.lexer.peek()?.is_any(&OBJECTS) {
            let found = self.shown_token()?;
            return Err(self.lexer.broken(format!("CREATE {found} is not known")));
        }
        if self.lexer.take_any(&["FUNCTION", "PROCEDURE", "EVENT", "PACKAGE", "VIEW", "MATERIALIZED", "RULE"])? {
            // Their bodies may contain anything.
            return self.lexer.skip_statement();
        }
        if self.lexer.take_word("SCHEMA")? {
            let tokens = self.collect_statement()?;
            return match tokens.iter().find(|token| token.is("CREATE")) {
                Some(_) => Err(self.refused("CREATE SCHEMA contains other statements")),
                None => Ok(()),
            };
        }
        self.skip_plain()
    }

    /// Handles `CREATE TRIGGER t AFTER INSERT ON faces ...` and `CREATE RULE r AS ON INSERT TO faces DO ...`.
    fn create_trigger(&mut self) -> Result<(), SourceError> {
        let mut before = Vec::new();
        loop {
            // The body starts later; the table comes first.
            let token = self.lexer.peek()?;
            if *token == Token::Stop || *token == Token::End || token.is_any(&["BEGIN", "EXECUTE", "DO"]) {
                break;
            }
            before.push(self.lexer.token()?);
            if before.len() > 200 {
                break;
            }
        }
        let on = before.iter().position(|token| token.is("ON"));
        let start = match on {
            Some(on)
                if before.get(on + 1).is_some_and(|token| token.is_any(&["INSERT", "UPDATE", "DELETE", "SELECT"])) =>
            {
                on + 3
            }
            Some(on) => on + 1,
            None => before.len(),
        };
        let inserts = before.iter().any(|token| token.is("INSERT"));
        if let Some(name) = self.name_in(before.get(start..).unwrap_or_default())
            && inserts
        {
            match self.catalog.table_mut(&name) {
                Some(table) => table.triggered = true,
                None => self.catalog.note_trigger(&name),
            }
        }
        self.lexer.skip_trigger()
    }

    /// Reads a qualified name at the start of tokens.
    pub fn name_in(&self, tokens: &[Token]) -> Option<TableName> {
        self.name_and_rest(tokens).map(|(name, _)| name)
    }

    /// Reads a qualified name at the start of tokens, and returns what follows it, too.
    pub fn name_and_rest<'t>(&self, tokens: &'t [Token]) -> Option<(TableName, &'t [Token])> {
        let fold = |token: &Token| match token {
            Token::Word(word) if self.dialect() == Dialect::Postgres => Some(word.to_ascii_lowercase()),
            Token::Word(word) | Token::Name(word) => Some(word.clone()),
            Token::Text(text) if self.dialect() == Dialect::Sqlite => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        let mut name = fold(tokens.first()?)?;
        let mut schema = self.schema.clone();
        let mut rest = &tokens[1..];
        while let [Token::Symbol(b'.'), next, more @ ..] = rest {
            schema = std::mem::replace(&mut name, fold(next)?);
            rest = more;
        }
        if self.dialect() == Dialect::Sqlite {
            name.make_ascii_lowercase();
            schema.make_ascii_lowercase();
            if schema == "main" {
                schema.clear();
            }
        }
        Some((TableName { database: self.database.clone(), schema, name }, rest))
    }

    /// Handles `CREATE UNIQUE INDEX i ON faces (id)` after UNIQUE.
    fn create_unique_index(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        let Some(on) = tokens.iter().position(|token| token.is("ON")) else {
            return Err(self.lexer.broken("CREATE UNIQUE INDEX names no table"));
        };
        let start = on + 1 + usize::from(tokens.get(on + 1).is_some_and(|token| token.is("ONLY")));
        let Some((table, rest)) = self.name_and_rest(tokens.get(start..).unwrap_or_default()) else {
            return Err(self.lexer.broken("CREATE UNIQUE INDEX names no table"));
        };
        let partial = rest.iter().any(|token| token.is("WHERE"));
        if let Some(open) = rest.iter().position(|token| *token == Token::Symbol(b'('))
            && !partial
        {
            self.add_key(&table, key_columns(&rest[open..]));
        }
        Ok(())
    }

    fn add_key(&mut self, name: &TableName, key: Vec<String>) {
        if let Some(role) = self.catalog.role(name)
            && self.catalog.is_id_key(role, &key)
        {
            self.builder.set_keyed(role);
        }
        if let Some(table) = self.catalog.table_mut(name)
            && table.keys.len() < MAX_VALUES
        {
            table.keys.push(key);
        }
    }

    fn create_table(&mut self, replaces: bool) -> Result<(), SourceError> {
        let mut keeps = false;
        if self.lexer.take_word("IF")? {
            keeps = self.lexer.take_word("NOT")? && self.lexer.take_word("EXISTS")?;
        }
        let Some(name) = self.table_name()? else { return Err(self.no_table_name("CREATE TABLE")) };
        let role = self.catalog.role(&name);
        if self.catalog.table(&name).is_some_and(|known| known.created) {
            if keeps {
                return self.lexer.skip_statement();
            }
            if !replaces {
                return Err(self.lexer.broken(format!("CREATE TABLE: `{name}` exists already")));
            }
        }
        if replaces {
            self.drop_table(&name)?;
        }
        let mut table = Table::default();
        if self.lexer.take_symbol(b'(')? {
            if self.lexer.peek()?.is_any(&["SELECT", "WITH", "LIKE"]) && self.dialect() == Dialect::MySql {
                return self.create_from_query(&name);
            }
            self.column_definitions(&mut table)?;
        }
        let rest = self.collect_statement()?;
        let mut defaults = TextDefaults::default();
        let mut parents = Vec::new();
        let mut at = 0;
        while let Some(token) = rest.get(at) {
            let value = |from: usize| {
                let from = from + usize::from(rest.get(from) == Some(&Token::Symbol(b'=')));
                rest.get(from).and_then(word_of)
            };
            if token.is("INHERITS") {
                let end = closing(&rest, at + 1);
                let inner = rest.get(at + 2..end).unwrap_or_default();
                parents.extend(split(inner).into_iter().filter_map(|parent| self.name_in(parent)));
                at = end;
            } else if token.is("PARTITION") && rest.get(at + 1).is_some_and(|token| token.is("OF")) {
                parents.extend(self.name_in(rest.get(at + 2..).unwrap_or_default()));
            } else if token.is("CHARSET") {
                defaults.charset = value(at + 1);
            } else if token.is("CHARACTER") && rest.get(at + 1).is_some_and(|token| token.is("SET")) {
                defaults.charset = value(at + 2);
            } else if token.is("COLLATE") {
                defaults.collation = value(at + 1);
            } else if at == 0 && token.is("LIKE") {
                self.copy_columns(&rest[1..], &mut table)?;
                break;
            } else if token.is_any(&["SELECT", "AS", "VALUES", "TABLE"]) && self.dialect() != Dialect::Postgres
                || (token.is("AS") && self.dialect() == Dialect::Postgres)
            {
                if role.is_some() {
                    return Err(self.refused(format!("only the database can work out CREATE TABLE AS; {DUMP_ANEW}")));
                }
                break;
            } else if token.is_any(&["PARTITION", "WITH", "WITHOUT", "STORAGE", "OPTIONS"]) {
                // Partitions and storage parameters follow, of which none is a parent.
                if !rest[at..].iter().any(|token| token.is("AS")) {
                    break;
                }
            }
            at += 1;
        }
        apply_defaults(self.dialect(), &mut table.columns, &defaults);
        if let Some(role) = role
            && table.keys.iter().any(|key| self.catalog.is_id_key(role, key))
        {
            self.builder.set_keyed(role);
        }
        self.catalog.create(&name, table);
        for parent in parents {
            self.attach(&name, parent)?;
        }
        Ok(())
    }

    fn create_from_query(&mut self, name: &TableName) -> Result<(), SourceError> {
        if self.catalog.role(name).is_some() {
            return Err(self.refused(format!("only the database can work out CREATE TABLE ... SELECT; {DUMP_ANEW}")));
        }
        self.catalog.create(name, Table::default());
        self.lexer.skip_statement()
    }

    /// Copies the columns of the table named by `LIKE other`.
    fn copy_columns(&mut self, source: &[Token], table: &mut Table) -> Result<(), SourceError> {
        match self.name_in(source).and_then(|name| self.catalog.table(&name)) {
            Some(source) => {
                table.columns.extend_from_slice(&source.columns);
                if self.dialect() == Dialect::MySql {
                    table.keys.clone_from(&source.keys);
                }
                Ok(())
            }
            None => Err(self.lexer.broken("CREATE TABLE ... LIKE names a table that the dump does not define")),
        }
    }

    /// Records that the rows of `child` count for `parent`.
    fn attach(&mut self, child: &TableName, parent: TableName) -> Result<(), SourceError> {
        self.catalog.attach(child, parent).map_err(|detail| self.refused(detail))
    }

    /// Reads the columns and keys up to the parenthesis that closes a CREATE TABLE.
    fn column_definitions(&mut self, table: &mut Table) -> Result<(), SourceError> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut depth = 0;
        let mut count = 0;
        loop {
            let token = self.lexer.token()?;
            let ends = match token {
                Token::End => return Err(self.lexer.stream.truncated("the dump ends within a table definition")),
                Token::Stop => return Err(self.lexer.broken("a table definition is not closed")),
                Token::Symbol(b'(') => {
                    depth += 1;
                    false
                }
                Token::Symbol(b')') if depth > 0 => {
                    depth -= 1;
                    false
                }
                Token::Symbol(b')') => true,
                Token::Symbol(b',') => depth == 0,
                _ => false,
            };
            if !ends {
                // Long checks and comments do not matter.
                if tokens.len() < 1000 {
                    tokens.push(token);
                }
                continue;
            }
            let last = token == Token::Symbol(b')');
            if !(tokens.is_empty() && last && count == 0) {
                self.definition(&tokens, table)?;
            }
            count += 1;
            if count > MAX_VALUES {
                return Err(self.lexer.broken(format!("a table has more than {MAX_VALUES} columns")));
            }
            tokens.clear();
            if last {
                return Ok(());
            }
        }
    }

    /// Reads a column, a constraint or an index.
    fn definition(&mut self, tokens: &[Token], table: &mut Table) -> Result<(), SourceError> {
        let dialect = self.dialect();
        let Some(first) = tokens.first() else {
            return Err(self.lexer.broken("a table definition has an empty place between commas"));
        };
        let bare = matches!(first, Token::Word(_));
        if bare && first.is("LIKE") {
            return self.copy_columns(&tokens[1..], table);
        }
        let constraint = bare
            && (first.is_any(&CONSTRAINTS) || (dialect == Dialect::MySql && first.is_any(&CONSTRAINTS_MYSQL)))
            && (!first.is("EXCLUDE")
                || tokens.get(1).is_some_and(|token| token.is("USING") || *token == Token::Symbol(b'(')));
        if constraint {
            table.keys.extend(constraint_key(tokens));
            return Ok(());
        }
        let name = match first {
            Token::Word(word) if dialect == Dialect::Postgres => word.to_ascii_lowercase(),
            Token::Word(word) | Token::Name(word) => word.clone(),
            Token::Text(text) if dialect == Dialect::Sqlite => String::from_utf8_lossy(text).into_owned(),
            other => {
                return Err(self.lexer.broken(format!("a column of a table definition starts with {}", show(other))));
            }
        };
        let clauses = column(dialect, name, &tokens[1..]);
        if clauses.is_key {
            table.keys.push(vec![clauses.column.name.clone()]);
        }
        table.columns.push(clauses.column);
        Ok(())
    }

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
            let tokens = self.collect_statement()?;
            if schema && tokens.iter().any(|token| token.is("RENAME")) {
                return Err(self.refused(format!("a schema is renamed, which cannot be followed; {DUMP_ANEW}")));
            }
            return Ok(());
        }
        if self.lexer.take_word("IF")? {
            self.lexer.take_word("EXISTS")?;
        }
        self.lexer.take_word("ONLY")?;
        let Some(name) = self.table_name()? else { return Err(self.no_table_name("ALTER TABLE")) };
        self.lexer.take_symbol(b'*')?;
        let tokens = self.collect_statement()?;
        for change in split(&tokens) {
            self.alter_table(&name, change)?;
        }
        Ok(())
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
        if is(0, &["ATTACH"]) && is(1, &["PARTITION"]) {
            return match self.name_in(&change[2..]) {
                Some(child) => self.attach(&child, name.clone()),
                None => Err(self.lexer.broken("ATTACH PARTITION names no table")),
            };
        }
        if is(0, &["INHERIT"]) {
            return match self.name_in(&change[1..]) {
                Some(parent) => self.attach(name, parent),
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
            self.definition(rest.get(from..).unwrap_or_default(), &mut defined)?;
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
            return unclear(self, "DROP");
        }
        if is(0, &["MODIFY", "CHANGE"]) {
            let mut at = 1 + usize::from(is(1, &["COLUMN"]));
            let old = change.get(at).and_then(word_of).unwrap_or_default();
            at += usize::from(is(0, &["CHANGE"]));
            let mut defined = Table::default();
            self.definition(change.get(at..).unwrap_or_default(), &mut defined)?;
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
            if self.lexer.take_word("IF")? {
                self.lexer.take_word("EXISTS")?;
            }
            let Some(name) = self.name()? else { return Err(self.lexer.broken("DROP names no schema")) };
            let filled = Role::ALL.into_iter().any(|role| !self.builder.is_empty(role));
            if filled && self.catalog.has_used_in(&name) {
                return Err(
                    self.refused(format!("`{name}` is dropped after rows of its tables were read; {DUMP_ANEW}"))
                );
            }
            self.catalog.forget_all(&name);
            return self.skip_plain();
        }
        if self.lexer.take_any(&["TABLE", "TABLES"])? {
            if self.lexer.take_word("IF")? {
                self.lexer.take_word("EXISTS")?;
            }
            loop {
                let Some(name) = self.table_name()? else { return Err(self.no_table_name("DROP TABLE")) };
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
        self.skip_plain()
    }

    fn drop_table(&mut self, name: &TableName) -> Result<(), SourceError> {
        self.remove_rows(name, "DROP TABLE")?;
        self.catalog.forget(name);
        Ok(())
    }
}

/// The columns of a primary key or unique constraint. None: it is another constraint, or an index.
fn constraint_key(tokens: &[Token]) -> Option<Vec<String>> {
    let mut at = 0;
    if tokens.first()?.is("CONSTRAINT") {
        at = 1 + usize::from(!tokens.get(1)?.is_any(&["PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]));
    }
    if !tokens.get(at)?.is_any(&["PRIMARY", "UNIQUE"]) {
        return None;
    }
    let open = tokens.iter().position(|token| *token == Token::Symbol(b'('))?;
    Some(key_columns(&tokens[open..]))
}

/// The columns in the parentheses at the start of tokens.
fn key_columns(tokens: &[Token]) -> Vec<String> {
    let inner = tokens.get(1..closing(tokens, 0)).unwrap_or_default();
    split(inner)
        .into_iter()
        .map(|part| match part {
            // An expression is no column.
            [first, rest @ ..] if !matches!(rest.first(), Some(Token::Symbol(b'.'))) => {
                word_of(first).unwrap_or_else(|| "?".into())
            }
            _ => "?".into(),
        })
        .collect()
}
