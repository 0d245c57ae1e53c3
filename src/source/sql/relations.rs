//! What statements create, drop and name besides tables: nothing is created twice, or named before it is created.

use super::super::error::SourceError;
use super::catalog::{PUBLIC, TableName};
use super::lexer::{Dialect, Token};
use super::objects::{MAX_OBJECTS, ObjectKind, relation_key};
use super::script::Script;

use super::token_list::{closing, split, word_of};
use super::type_name::{POSTGRES_TYPES, type_end};

impl Script<'_, '_> {
    /// Whether a table, a view, a sequence or an index of this name exists, as far as the script tells.
    pub fn has_relation(&self, name: &TableName) -> bool {
        self.catalog.table(name).is_some_and(|table| table.created)
            || self.objects.is_known(ObjectKind::Relation, &relation_key(name))
    }

    /// Refuses a relation that the script names but does not create, although it creates tables.
    pub fn check_relation(&mut self, name: &TableName) -> Result<(), SourceError> {
        let system = name.schema == "pg_catalog" || name.schema == "information_schema" || name.name.starts_with("pg_");
        if system || self.has_relation(name) {
            return Ok(());
        }
        if !self.catalog.creates_tables() {
            self.note_early(name);
            return Ok(());
        }
        self.refuse_or_warn(format!("`{name}` does not exist: no statement before this one creates it"))
    }

    /// Notes a relation that is named before the script created a table.
    pub fn note_early(&mut self, name: &TableName) {
        if self.objects.early.len() < MAX_OBJECTS {
            self.objects.early.insert(name.clone());
        }
    }

    /// Refuses a relation that was named before it is created.
    pub fn check_early(&mut self, name: &TableName) -> Result<(), SourceError> {
        match self.objects.early.remove(name) {
            true => self.refuse_or_warn(format!("`{name}` is named before it is created")),
            false => Ok(()),
        }
    }

    /// Checks at the end that a script with tables created all that it named.
    pub fn check_all_created(&mut self) -> Result<(), SourceError> {
        if !self.catalog.creates_tables() {
            return Ok(());
        }
        if let Some(unknown) = self.objects.unknown.take() {
            self.refuse_or_warn(format!("{unknown} does not exist: no statement before creates it"))?;
        }
        let missing = self.objects.early.iter().find(|name| !self.has_relation(name)).cloned();
        match missing {
            Some(name) => self.refuse_or_warn(format!("`{name}` does not exist: no statement creates it")),
            None => Ok(()),
        }
    }

    /// Refuses a relation that exists already, or whose schema does not exist.
    pub fn check_new_relation(&mut self, name: &TableName) -> Result<(), SourceError> {
        if self.has_relation(name) {
            return Err(self.lexer.broken(format!("`{name}` exists already")));
        }
        self.check_schema(&name.schema)
    }

    fn check_schema(&mut self, schema: &str) -> Result<(), SourceError> {
        let known = self.dialect() == Dialect::MySql
            || [PUBLIC, "pg_catalog", ""].contains(&schema)
            || !self.objects.has_schemas
            || self.objects.is_known(ObjectKind::Schema, schema);
        if known && !self.objects.has_schemas && self.objects.early_schemas.len() < MAX_OBJECTS {
            self.objects.early_schemas.insert(schema.to_owned());
        }
        match known {
            true => Ok(()),
            false => self.refuse_or_warn(format!("the schema `{schema}` does not exist")),
        }
    }

    /// Records what CREATE creates. `tokens` start with the kind of object.
    pub fn note_created(&mut self, tokens: &[Token], replaces: bool) -> Result<(), SourceError> {
        let Some(kind) = tokens.first().and_then(word_of).map(|word| word.to_ascii_uppercase()) else { return Ok(()) };
        let mut at = 1;
        while tokens.get(at).is_some_and(|token| {
            token.is_any(&["IF", "NOT", "EXISTS", "CONCURRENTLY", "VIEW", "INDEX"]) && matches!(token, Token::Word(_))
        }) {
            at += 1;
        }
        let keeps = replaces || tokens.get(1..at).is_some_and(|words| words.iter().any(|word| word.is("EXISTS")));
        let rest = tokens.get(at..).unwrap_or_default();
        let named = self.name_and_rest(rest);
        match (kind.as_str(), named) {
            ("EXTENSION", _) => self.objects.has_extensions = true,
            ("SCHEMA", Some((name, _))) if self.dialect() == Dialect::Postgres => {
                self.objects.has_schemas = true;
                if name.name != PUBLIC && self.objects.early_schemas.remove(&name.name) {
                    return self.refuse_or_warn(format!("the schema `{}` is named before it is created", name.name));
                }
                let new = self.objects.define(ObjectKind::Schema, name.name.clone());
                if !new && !keeps && name.name != "authorization" {
                    return Err(self.lexer.broken(format!("the schema `{}` exists already", name.name)));
                }
            }
            ("VIEW" | "SEQUENCE" | "MATERIALIZED", Some((name, _))) => {
                if !keeps {
                    self.check_new_relation(&name)?;
                }
                self.check_early(&name)?;
                self.objects.define(ObjectKind::Relation, relation_key(&name));
                self.check_query(rest)?;
            }
            ("INDEX" | "UNIQUE", _) if self.dialect() == Dialect::Postgres => {
                let on = rest.iter().position(|token| token.is("ON"));
                let only = on.filter(|on| rest.get(on + 1).is_some_and(|token| token.is("ONLY")));
                let from = on.map_or(0, |on| on + 1) + usize::from(only.is_some());
                let Some((table, _)) = self.name_and_rest(rest.get(from..).unwrap_or_default()) else { return Ok(()) };
                self.check_relation(&table)?;
                // The index is in the schema of its table.
                if on != Some(0)
                    && let Some(index) = rest.first().and_then(word_of)
                {
                    let name = TableName { name: index, ..table };
                    if !keeps {
                        self.check_new_relation(&name)?;
                    }
                    self.objects.define(ObjectKind::Relation, relation_key(&name));
                }
            }
            ("TYPE" | "DOMAIN", Some((name, after))) => {
                self.check_schema(&name.schema)?;
                let new = self.objects.define(ObjectKind::Type, name.name.clone());
                // A type without a definition is completed later.
                if !new && !after.is_empty() && !self.objects.is_known(ObjectKind::Type, &format!("{} ...", name.name))
                {
                    return Err(self.lexer.broken(format!("the type `{}` exists already", name.name)));
                }
                if after.is_empty() {
                    self.objects.define(ObjectKind::Type, format!("{} ...", name.name));
                }
            }
            ("FUNCTION" | "PROCEDURE", Some((name, after))) if self.dialect() == Dialect::Postgres => {
                self.check_schema(&name.schema)?;
                if let Some(at) = after.iter().position(|token| token.is("RETURNS")) {
                    let set = after.get(at + 1).is_some_and(|token| token.is("SETOF"));
                    if !after.get(at + 1).is_some_and(|token| token.is_any(&["TABLE", "NULL"])) {
                        self.check_type(after.get(at + 1 + usize::from(set)..).unwrap_or_default())?;
                    }
                }
                if let Some(at) = after.iter().position(|token| token.is("LANGUAGE"))
                    && let Some(language) = after.get(at + 1).and_then(word_of)
                    && !["plpgsql", "sql", "c", "internal"].contains(&language.to_ascii_lowercase().as_str())
                    && !self.objects.has_extensions
                {
                    self.refuse_or_warn(format!("the language `{language}` is not known"))?;
                }
                let arguments = after.get(..=closing(after, 0)).unwrap_or_default();
                let new = self.objects.define(ObjectKind::Function, format!("{name} {arguments:?}"));
                if !new && !keeps {
                    return Err(self.lexer.broken(format!("the function `{name}` exists already")));
                }
            }
            ("COLLATION", Some((name, _))) => {
                self.check_schema(&name.schema)?;
                if !self.objects.define(ObjectKind::Collation, name.name.clone()) && !keeps {
                    return Err(self.lexer.broken(format!("the collation `{}` exists already", name.name)));
                }
            }
            ("TRIGGER", Some((name, after))) => {
                let on = after.iter().position(|token| token.is("ON"));
                let table = on.and_then(|on| self.name_in(&after[on + 1..]));
                if let Some(table) = table {
                    self.check_relation(&table)?;
                    let table = if self.dialect() == Dialect::Postgres { table.to_string() } else { table.schema };
                    let new = self.objects.define(ObjectKind::Trigger, format!("{} {table}", name.name));
                    if !new && !keeps {
                        return Err(self.lexer.broken(format!("the trigger `{}` exists already", name.name)));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that the tables after FROM and JOIN of a query exist.
    fn check_query(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        let common: Vec<String> = tokens
            .windows(3)
            .filter(|three| three[1].is("AS") && three[2] == Token::Symbol(b'('))
            .filter_map(|three| word_of(&three[0]))
            .collect();
        for (at, token) in tokens.iter().enumerate() {
            let starts = token.is_any(&["FROM", "JOIN"])
                && matches!(tokens.get(at + 1), Some(Token::Word(_) | Token::Name(_)))
                && !tokens.get(at + 1).is_some_and(|next| next.is_any(&["ONLY", "LATERAL", "CURRENT"]));
            if !starts {
                continue;
            }
            // `extract(year FROM x)` and the like are within parentheses; a function is followed by one.
            if let Some((name, after)) = self.name_and_rest(&tokens[at + 1..])
                && !matches!(after.first(), Some(Token::Symbol(b'(' | b')' | b'+' | b'-' | b':')))
                && !common.contains(&name.name)
                && (self.dialect() == Dialect::Postgres || name.schema == self.schema)
            {
                self.check_relation(&name)?;
            }
        }
        Ok(())
    }

    /// Forgets what DROP drops. `tokens` start with the kind of object.
    pub fn note_dropped(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        let Some(kind) = tokens.first().and_then(word_of).map(|word| word.to_ascii_uppercase()) else { return Ok(()) };
        let mut at = 1;
        while tokens.get(at).is_some_and(|token| token.is_any(&["IF", "EXISTS", "VIEW", "CONCURRENTLY"])) {
            at += 1;
        }
        let lenient = tokens.get(..at).is_some_and(|words| words.iter().any(|word| word.is("EXISTS")));
        for part in split(tokens.get(at..).unwrap_or_default()) {
            let Some((name, after)) = self.name_and_rest(part) else { continue };
            match kind.as_str() {
                "VIEW" | "SEQUENCE" | "INDEX" | "MATERIALIZED" => {
                    if !lenient
                        && self.dialect() == Dialect::Postgres
                        && self.catalog.creates_tables()
                        && kind != "INDEX"
                    {
                        self.check_relation(&name)?;
                    }
                    self.objects.forget(ObjectKind::Relation, &relation_key(&name));
                }
                "SCHEMA" => {
                    self.objects.has_schemas = true;
                    self.objects.forget(ObjectKind::Schema, &name.name);
                }
                "TYPE" | "DOMAIN" => self.objects.forget(ObjectKind::Type, &name.name),
                "COLLATION" => self.objects.forget(ObjectKind::Collation, &name.name),
                "FUNCTION" | "PROCEDURE" => self.objects.forget_all(ObjectKind::Function, &format!("{name} ")),
                "TRIGGER" => {
                    let on = after.iter().position(|token| token.is("ON"));
                    match on.and_then(|on| self.name_in(&after[on + 1..])) {
                        Some(table) => self.objects.forget(ObjectKind::Trigger, &format!("{} {table}", name.name)),
                        None => self.objects.forget_all(ObjectKind::Trigger, &format!("{} ", name.name)),
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses a column of a type that PostgreSQL does not have, and that the script does not create.
    pub fn check_type(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        if self.dialect() != Dialect::Postgres {
            return Ok(());
        }
        let Some(end) = type_end(Dialect::Postgres, tokens, 0) else { return Ok(()) };
        // Types of extensions are in schemas of their own.
        let qualified = tokens.get(1) == Some(&Token::Symbol(b'.'));
        if self.objects.has_extensions && (qualified || !self.objects.is_path_empty) {
            return Ok(());
        }
        let mut at = 0;
        while tokens.get(at + 1) == Some(&Token::Symbol(b'.')) && at + 2 < end {
            at += 2;
        }
        let Some(name) = tokens.get(at).and_then(word_of).map(|name| name.to_ascii_lowercase()) else { return Ok(()) };
        let is_table = |script: &Self| script.name_in(tokens).is_some_and(|table| script.has_relation(&table));
        if POSTGRES_TYPES.contains(&name.as_str()) || self.objects.is_known(ObjectKind::Type, &name) || is_table(self) {
            return Ok(());
        }
        self.refuse_or_warn(format!("the type `{name}` is not known, and the dump does not create it"))
    }

    /// Refuses a cast to a type that does not exist: `'x'::text`.
    pub fn check_casts(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        for (at, pair) in tokens.windows(2).enumerate() {
            if matches!(pair, [Token::Symbol(b':'), Token::Symbol(b':')]) {
                self.check_type(&tokens[at + 2..])?;
            }
        }
        Ok(())
    }

    /// Notes a function or a collation that is changed or used, and that no statement creates.
    fn note_unknown(&mut self, what: &str, name: &TableName, known: bool) {
        let system = ["pg_catalog", "information_schema"].contains(&name.schema.as_str());
        if !known && !system && !self.objects.has_extensions && self.objects.unknown.is_none() {
            self.objects.unknown = Some(format!("the {what} `{name}`"));
        }
    }

    /// Notes the collation of a column if the script does not create it.
    pub fn check_known_collation(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        let named = tokens.iter().position(|token| token.is("COLLATE")).map(|at| &tokens[at + 1..]);
        if let Some(tokens) = named
            && tokens.get(1) == Some(&Token::Symbol(b'.'))
            && let Some(name) = self.name_in(tokens)
        {
            let known = self.objects.is_known(ObjectKind::Collation, &name.name);
            self.note_unknown("collation", &name, known);
        }
        Ok(())
    }

    /// Checks that what ALTER changes exists. `tokens` start with the kind of object.
    pub fn check_altered(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        if self.dialect() != Dialect::Postgres || tokens.get(1).is_some_and(|token| token.is("IF")) {
            return Ok(());
        }
        let Some((name, _)) = self.name_and_rest(tokens.get(1..).unwrap_or_default()) else { return Ok(()) };
        if tokens[0].is("INDEX") {
            let attaches = tokens.iter().position(|token| token.is("ATTACH"));
            let part = attaches.and_then(|at| self.name_in(tokens.get(at + 2..)?));
            for index in [Some(name).filter(|_| part.is_some()), part].into_iter().flatten() {
                self.check_relation(&index)?;
            }
        } else if tokens[0].is_any(&["FUNCTION", "PROCEDURE"]) {
            let known = self.objects.knows_any(ObjectKind::Function, &format!("{name} "));
            self.note_unknown("function", &name, known);
        } else if tokens[0].is("COLLATION") {
            let known = self.objects.is_known(ObjectKind::Collation, &name.name);
            self.note_unknown("collation", &name, known);
        }
        Ok(())
    }

    /// Checks that the table of COMMENT ON TABLE exists. `tokens` follow COMMENT.
    pub fn check_commented(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        let is_table = tokens.get(1).is_some_and(|token| token.is("TABLE"));
        match self.name_in(tokens.get(2..).unwrap_or_default()).filter(|_| is_table) {
            Some(name) => self.check_relation(&name),
            None => Ok(()),
        }
    }

    /// Records the index of a key. Without a name it has that of its table and columns.
    pub fn note_index(&mut self, table: &TableName, constraint: &[Token], key: &[String]) {
        let named = constraint.first().is_some_and(|token| token.is("CONSTRAINT"));
        let primary = constraint.iter().any(|token| token.is("PRIMARY"));
        let name = match constraint.get(1).and_then(word_of).filter(|_| named) {
            Some(name) => name,
            None if primary => format!("{}_pkey", table.name),
            None => format!("{}_{}_key", table.name, key.join("_")),
        };
        self.note_relation(&TableName { name, ..table.clone() });
    }

    /// Records the sequence of a numbered column: `t_c_seq`.
    pub fn note_sequence(&mut self, table: &TableName, column: &str) {
        let name = TableName { name: format!("{}_{column}_seq", table.name), ..table.clone() };
        self.objects.define(ObjectKind::Relation, relation_key(&name));
    }

    /// Records a relation of any kind.
    pub fn note_relation(&mut self, name: &TableName) {
        self.objects.define(ObjectKind::Relation, relation_key(name));
    }
}
