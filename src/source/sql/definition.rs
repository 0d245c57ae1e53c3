//! CREATE, ALTER and DROP: the tables, their columns, keys and parents.

use std::collections::BTreeSet;

use super::super::charset::CharacterSet;
use super::super::column::Column;
use super::super::error::SourceError;
use super::super::mapping::Role;
use super::catalog::{Table, TableName};
use super::lexer::{Dialect, Token};
use super::objects::ObjectKind;
use super::row::MAX_VALUES;
use super::script::{DUMP_ANEW, Script, show};
use super::settings::split;
use super::shapes;
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

/// Tokens of a column or a constraint that are looked at.
const MAX_DEFINITION: usize = 1000;

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
                    if self.lexer.take_word("SECURITY")? && !self.lexer.take_any(&["DEFINER", "INVOKER"])? {
                        return self.odd("CREATE ... SQL SECURITY");
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
        if self.lexer.peek()?.is_any(&["TRIGGER", "RULE"]) {
            return self.create_trigger(replaces);
        }
        if !self.lexer.peek()?.is_any(&OBJECTS) {
            let found = self.shown_token()?;
            return Err(self.lexer.broken(format!("CREATE {found} is not known")));
        }
        let routine = self.lexer.peek()?.is_any(&["FUNCTION", "PROCEDURE", "EVENT", "PACKAGE"]);
        if routine && self.dialect() == Dialect::MySql {
            // Their bodies may contain anything.
            return self.lexer.skip_statement();
        }
        let tokens = self.collect_body()?;
        if tokens[0].is("SCHEMA") && tokens.iter().any(|token| token.is("CREATE")) {
            return Err(self.refused("CREATE SCHEMA contains other statements"));
        }
        let mut view = &tokens[usize::from(tokens[0].is("MATERIALIZED"))..];
        if tokens[0].is("MATERIALIZED") {
            view = match view {
                [rest @ .., with, data] if with.is("WITH") && data.is("DATA") => rest,
                [rest @ .., with, no, data] if with.is("WITH") && no.is("NO") && data.is("DATA") => rest,
                rest => rest,
            };
            if view.windows(2).any(|pair| pair[0].is_any(&["WITH", "NO"]) && pair[1].is("DATA")) {
                return self.odd("CREATE MATERIALIZED VIEW");
            }
        }
        let known = shapes::is_atomic_function(view)
            .unwrap_or_else(|| shapes::is_statement(self.dialect(), "CREATE", view) && !shapes::repeats_option(view));
        if !known {
            return self.odd("CREATE");
        }
        if tokens[0].is("UNIQUE") {
            self.create_unique_index(&tokens[1..])?;
        }
        self.note_created(&tokens, replaces)
    }

    /// Collects the rest of a statement with its first word, for which the statement was looked at.
    fn collect_body(&mut self) -> Result<Vec<Token>, SourceError> {
        let first = self.lexer.token()?;
        let rest = self.collect_statement()?;
        Ok([vec![first], rest].concat())
    }

    /// Handles `CREATE TRIGGER t AFTER INSERT ON faces ...` and `CREATE RULE r AS ON INSERT TO faces DO ...`.
    fn create_trigger(&mut self, replaces: bool) -> Result<(), SourceError> {
        let mysql = self.dialect() == Dialect::MySql;
        let mut before = Vec::new();
        if mysql {
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
            let row = before.iter().position(|token| token.is("ROW")).map_or(0, |row| row + 1);
            if !shapes::is_mysql_trigger(&before[..row]) {
                return self.odd("CREATE TRIGGER");
            }
        } else {
            let tokens = self.collect_body()?;
            if !shapes::is_statement(Dialect::Postgres, "CREATE", &tokens) {
                return self.odd("CREATE TRIGGER");
            }
            let body = tokens.iter().position(|token| token.is_any(&["EXECUTE", "DO"])).unwrap_or(tokens.len());
            before.extend_from_slice(&tokens[..body]);
        }
        if before.first().is_some_and(|token| token.is("TRIGGER")) {
            self.note_created(&before, replaces)?;
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
        if mysql { self.lexer.skip_statement() } else { Ok(()) }
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
            _ => None,
        };
        let mut name = fold(tokens.first()?)?;
        let mut schema = self.schema.clone();
        let mut rest = &tokens[1..];
        while let [Token::Symbol(b'.'), next, more @ ..] = rest {
            schema = std::mem::replace(&mut name, fold(next)?);
            rest = more;
        }
        Some((TableName { database: self.database.clone(), schema, name }, rest))
    }

    /// Handles `CREATE UNIQUE INDEX i ON faces (id)` after UNIQUE.
    fn create_unique_index(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
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
        if !replaces && !keeps {
            self.check_new_relation(&name)?;
        }
        self.check_early(&name)?;
        self.check_locks(&name)?;
        if replaces {
            self.drop_table(&name)?;
        }
        let mut table = Table::default();
        if self.lexer.take_symbol(b'(')? {
            if self.lexer.peek()?.is_any(&["SELECT", "WITH", "LIKE"]) && self.dialect() == Dialect::MySql {
                return self.create_from_query(&name);
            }
            self.column_definitions(&name, &mut table)?;
        }
        let rest = self.collect_statement()?;
        if !shapes::is_table_end(self.dialect(), &rest) {
            self.odd("what follows the columns of CREATE TABLE")?;
        }
        self.check_columns(&name, &table, rest.iter().any(|token| token.is("INHERITS")))?;
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
        self.check_collation(defaults.collation.as_deref(), defaults.charset.as_deref())?;
        apply_defaults(self.dialect(), &mut table.columns, &defaults);
        if let Some(role) = role
            && table.keys.iter().any(|key| self.catalog.is_id_key(role, key))
        {
            self.builder.set_keyed(role);
        }
        self.catalog.create(&name, table);
        for parent in parents {
            self.check_relation(&parent)?;
            self.attach(&name, parent)?;
        }
        Ok(())
    }

    /// Refuses a collation or a character set that MySQL does not have.
    fn check_collation(&mut self, collation: Option<&str>, charset: Option<&str>) -> Result<(), SourceError> {
        if self.dialect() != Dialect::MySql {
            return Ok(());
        }
        let is_charset = |name: &str| CharacterSet::mysql(name).is_some() || name.eq_ignore_ascii_case("default");
        let is_collation = |name: &str| {
            let lower = name.to_ascii_lowercase();
            let ends = ["_ci", "_bin", "_cs", "_as", "_ai", "_ks"].iter().any(|end| lower.ends_with(end));
            let starts = lower.split('_').next().is_some_and(|start| start == "uca1400" || is_charset(start));
            lower == "binary" || lower == "default" || (starts && ends)
        };
        if let Some(name) = collation.filter(|name| !is_collation(name)) {
            return self.refuse_or_warn(format!("the collation `{name}` is not known"));
        }
        match charset.filter(|name| !is_charset(name)) {
            Some(name) => self.refuse_or_warn(format!("the character set `{name}` is not known")),
            None => Ok(()),
        }
    }

    /// Refuses columns that come twice, and keys on columns that do not exist.
    fn check_columns(&mut self, name: &TableName, table: &Table, inherits: bool) -> Result<(), SourceError> {
        let any_case = self.dialect() == Dialect::MySql;
        let folded = |name: &str| if any_case { name.to_ascii_lowercase() } else { name.to_owned() };
        let mut known = BTreeSet::new();
        for column in &table.columns {
            if !known.insert(folded(&column.name)) {
                return Err(self.lexer.broken(format!("column `{}` of `{name}` is defined twice", column.name)));
            }
        }
        let missing = table.keys.iter().flatten().find(|column| *column != "?" && !known.contains(&folded(column)));
        match missing {
            Some(column) if !inherits && !known.is_empty() => {
                Err(self.lexer.broken(format!("a key of `{name}` names the column `{column}`, which does not exist")))
            }
            _ => Ok(()),
        }
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
    fn column_definitions(&mut self, name: &TableName, table: &mut Table) -> Result<(), SourceError> {
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
                if tokens.len() < MAX_DEFINITION {
                    tokens.push(token);
                }
                continue;
            }
            let last = token == Token::Symbol(b')');
            if !(tokens.is_empty() && last && count == 0) {
                self.definition(name, &tokens, table)?;
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
    fn definition(&mut self, table_name: &TableName, tokens: &[Token], table: &mut Table) -> Result<(), SourceError> {
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
        // What is very long was cut.
        let whole = tokens.len() < MAX_DEFINITION;
        if constraint {
            if whole && !shapes::is_constraint(dialect, tokens) {
                self.odd("a constraint of a table")?;
            }
            if let Some(key) = constraint_key(tokens) {
                table.keys.push(key);
                self.set_primary(table_name, table, tokens.iter().any(|token| token.is("PRIMARY")))?;
            }
            return Ok(());
        }
        let name = match first {
            Token::Word(word) if dialect == Dialect::Postgres => word.to_ascii_lowercase(),
            Token::Word(word) | Token::Name(word) => word.clone(),
            other => {
                return Err(self.lexer.broken(format!("a column of a table definition starts with {}", show(other))));
            }
        };
        if whole && !shapes::is_column(dialect, tokens) {
            self.odd(&format!("the column `{name}` of `{table_name}`"))?;
        }
        self.check_type(&tokens[1..])?;
        let collation = tokens.windows(2).find(|pair| pair[0].is("COLLATE")).and_then(|pair| word_of(&pair[1]));
        let charset = tokens
            .windows(3)
            .find(|three| three[0].is("CHARACTER") && three[1].is("SET"))
            .and_then(|three| word_of(&three[2]));
        self.check_collation(collation.as_deref(), charset.as_deref())?;
        let clauses = column(dialect, name, &tokens[1..]);
        if clauses.column.kind.numbered && dialect == Dialect::Postgres {
            self.note_sequence(table_name, &clauses.column.name);
        }
        if clauses.is_key {
            table.keys.push(vec![clauses.column.name.clone()]);
            self.set_primary(table_name, table, clauses.is_primary)?;
        }
        table.columns.push(clauses.column);
        Ok(())
    }

    /// Notes the primary key of a table. There is no second one.
    fn set_primary(&mut self, name: &TableName, table: &mut Table, primary: bool) -> Result<(), SourceError> {
        if primary && table.has_primary {
            return Err(self.lexer.broken(format!("`{name}` has a second primary key")));
        }
        table.has_primary |= primary;
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
            let tokens = self.collect_body()?;
            if !shapes::is_statement(self.dialect(), "ALTER", &tokens) {
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
        if !shapes::is_change(self.dialect(), change) {
            self.odd(&format!("the change of `{name}`"))?;
        }
        let (primary, sequence) = (
            is(0, &["ADD"]) && change.iter().any(|token| token.is("PRIMARY")),
            change.windows(2).position(|pair| pair[0].is("SEQUENCE") && pair[1].is("NAME")),
        );
        if let Some(name) = sequence.and_then(|at| self.name_in(&change[at + 2..])) {
            self.check_new_relation(&name)?;
            self.note_relation(&name);
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
                    self.check_key(name, &key)?;
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
        if !shapes::is_statement(self.dialect(), "DROP", &tokens) {
            return self.odd("DROP");
        }
        self.note_dropped(&tokens)
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
