//! CREATE of what is no table: triggers, indexes, views and the like.

use super::super::error::SourceError;
use super::catalog::TableName;
use super::definition::key_columns;
use super::lexer::{Dialect, Token};
use super::script::Script;
use super::statement_shapes;

/// What CREATE and DROP may concern besides tables. None of it changes rows.
pub const OBJECTS: [&str; 44] = [
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
                    let token = self.lexer.token()?;
                    if matches!(token, Token::Stop | Token::End) {
                        return Err(self.lexer.broken("CREATE names no kind of object"));
                    }
                    if token.is("SECURITY") && !self.lexer.take_any(&["DEFINER", "INVOKER"])? {
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
        const WITH_BODY: [&str; 5] = ["TRIGGER", "FUNCTION", "PROCEDURE", "EVENT", "PACKAGE"];
        self.lexer.in_body = self.dialect() == Dialect::MySql && self.lexer.peek()?.is_any(&WITH_BODY);
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
        let known = statement_shapes::is_atomic_function(view).unwrap_or_else(|| {
            statement_shapes::is_statement(self.dialect(), "CREATE", view) && !statement_shapes::repeats_option(view)
        });
        if !known {
            return self.odd("CREATE");
        }
        if tokens[0].is("UNIQUE") {
            self.create_unique_index(&tokens[1..])?;
        }
        self.note_created(&tokens, replaces)
    }

    /// Collects the rest of a statement with its first word, for which the statement was looked at.
    pub fn collect_body(&mut self) -> Result<Vec<Token>, SourceError> {
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
            if !statement_shapes::is_mysql_trigger(&before[..row]) {
                return self.odd("CREATE TRIGGER");
            }
        } else {
            let tokens = self.collect_body()?;
            if !statement_shapes::is_statement(Dialect::Postgres, "CREATE", &tokens) {
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
}
