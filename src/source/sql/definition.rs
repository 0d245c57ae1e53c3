//! CREATE TABLE: the columns, keys and parents of tables.

use std::collections::BTreeSet;

use super::super::charset::CharacterSet;
use super::super::error::SourceError;
use super::catalog::{Table, TableName};
use super::lexer::{Dialect, Token};
use super::row::MAX_VALUES;
use super::script::{DUMP_ANEW, Script, show};
use super::table_shapes;
use super::token_list::{closing, split, word_of};
use super::types::{TextDefaults, apply_defaults, column};

/// Tokens of a column or a constraint that are looked at.
const MAX_DEFINITION: usize = 1000;

/// Words in a list of columns that start a constraint or an index.
pub const CONSTRAINTS: [&str; 6] = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE"];
pub const CONSTRAINTS_MYSQL: [&str; 5] = ["KEY", "INDEX", "FULLTEXT", "SPATIAL", "PERIOD"];

/// What the names of collations of MySQL and MariaDB consist of, besides the character set: languages, versions and rules.
const COLLATION_PARTS: [&str; 85] = [
    "0900",
    "520",
    "ai",
    "as",
    "bg",
    "bin",
    "bs",
    "bulgarian",
    "ci",
    "croatian",
    "cs",
    "cyrl",
    "czech",
    "da",
    "danish",
    "de",
    "english",
    "eo",
    "es",
    "esperanto",
    "estonian",
    "et",
    "fa",
    "french",
    "general",
    "german1",
    "german2",
    "gl",
    "greek",
    "hr",
    "hu",
    "hungarian",
    "icelandic",
    "is",
    "ja",
    "ks",
    "la",
    "latn",
    "latvian",
    "lithuanian",
    "lt",
    "lv",
    "mn",
    "mysql500",
    "mysql561",
    "myanmar",
    "nb",
    "nn",
    "nopad",
    "pb",
    "persian",
    "pl",
    "polish",
    "ro",
    "roman",
    "romanian",
    "ru",
    "si",
    "sinhala",
    "sk",
    "sl",
    "slovak",
    "slovenian",
    "spanish",
    "spanish2",
    "sr",
    "sv",
    "swedish",
    "thai",
    "tr",
    "trad",
    "turkish",
    "uca1400",
    "ukrainian",
    "unicode",
    "vi",
    "vietnamese",
    "w2",
    "zh",
    "japanese",
    "chinese",
    "korean",
    "hebrew",
    "w1",
    "lao",
];

impl Script<'_, '_> {
    pub fn add_key(&mut self, name: &TableName, key: Vec<String>) {
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

    pub fn create_table(&mut self, replaces: bool) -> Result<(), SourceError> {
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
        if !table_shapes::is_table_end(self.dialect(), &rest) {
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
            let known = lower.split('_').skip(1).all(|part| COLLATION_PARTS.contains(&part));
            lower == "binary" || lower == "default" || (starts && ends && known)
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
                match self.dialect() {
                    Dialect::MySql => table.keys.clone_from(&source.keys),
                    // Whether the keys are copied, too, depends on clauses that follow.
                    Dialect::Postgres => table.keys.push(vec!["?".into()]),
                }
                Ok(())
            }
            None => Err(self.lexer.broken("CREATE TABLE ... LIKE names a table that the dump does not define")),
        }
    }

    /// Records that the rows of `child` count for `parent`.
    pub fn attach(&mut self, child: &TableName, parent: TableName) -> Result<(), SourceError> {
        self.catalog.attach(child, parent).map_err(|detail| self.refused(format!("{detail}; {DUMP_ANEW}")))
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
    pub fn definition(
        &mut self,
        table_name: &TableName,
        tokens: &[Token],
        table: &mut Table,
    ) -> Result<(), SourceError> {
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
            if whole && !table_shapes::is_constraint(dialect, tokens) {
                self.odd("a constraint of a table")?;
            }
            if let Some(key) = constraint_key(tokens) {
                if dialect == Dialect::Postgres {
                    self.note_index(table_name, tokens, &key);
                }
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
        if whole && !table_shapes::is_column(dialect, tokens) {
            self.odd(&format!("the column `{name}` of `{table_name}`"))?;
        }
        self.check_type(&tokens[1..])?;
        if dialect == Dialect::Postgres {
            self.check_casts(tokens)?;
            self.check_known_collation(tokens)?;
        }
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
        if clauses.is_key && dialect == Dialect::Postgres {
            let key = [clauses.column.name.clone()];
            self.note_index(table_name, &tokens[1..], &key);
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
}

/// The columns of a primary key or unique constraint. None: it is another constraint, or an index.
pub fn constraint_key(tokens: &[Token]) -> Option<Vec<String>> {
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
pub fn key_columns(tokens: &[Token]) -> Vec<String> {
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
