//! Which statement is which. A statement is followed, skipped because it cannot change the query's tables, or refused.

use super::super::error::SourceError;
use super::catalog::TableName;
use super::known_settings::is_postgres_setting;
use super::lexer::{Dialect, Token};
use super::script::{DUMP_ANEW, Script, show};
use super::shape::has_shape;
use super::statement_shapes;
use super::token_list::{parts_of_name, split};

/// Statements that change no rows of tables, in any database.
const HARMLESS: [&str; 10] =
    ["ANALYZE", "EXPLAIN", "GRANT", "REVOKE", "VACUUM", "REINDEX", "CHECKPOINT", "PREPARE", "DEALLOCATE", "CLOSE"];

const HARMLESS_POSTGRES: [&str; 23] = [
    "ANALYSE",
    "CLUSTER",
    "COMMENT",
    "DECLARE",
    "DISCARD",
    "FETCH",
    "IMPORT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MOVE",
    "NOTIFY",
    "REASSIGN",
    "REFRESH",
    "RESET",
    "SECURITY",
    "SHOW",
    "UNLISTEN",
    "CHECKPOINT",
    "CLOSE",
    "DEALLOCATE",
    "PREPARE",
    "REVOKE",
];

const HARMLESS_MYSQL: [&str; 21] = [
    "CACHE",
    "CHANGE",
    "CHECK",
    "CHECKSUM",
    "DESC",
    "DESCRIBE",
    "FLUSH",
    "HELP",
    "INSTALL",
    "KILL",
    "OPTIMIZE",
    "PURGE",
    "REPAIR",
    "RESET",
    "RESIGNAL",
    "SHOW",
    "SHUTDOWN",
    "SIGNAL",
    "STOP",
    "UNINSTALL",
    "DO",
];

/// Functions that change no rows of tables.
const HARMLESS_FUNCTIONS: [&str; 16] = [
    "set_config",
    "setval",
    "nextval",
    "currval",
    "now",
    "version",
    "count",
    "max",
    "min",
    "sum",
    "coalesce",
    "concat",
    "ifnull",
    "if",
    "char",
    "database",
];

impl Script<'_, '_> {
    /// Reads all statements.
    pub fn statements(&mut self) -> Result<(), SourceError> {
        loop {
            self.lexer.begin_statement();
            let line_start = self.lexer.starts_line()?;
            match self.lexer.token()? {
                Token::End => return Ok(()),
                Token::Stop => {}
                Token::Word(word) => self.statement(word, line_start)?,
                Token::Symbol(b'\\') => self.backslash_command()?,
                // A statement in parentheses is a query.
                Token::Symbol(b'(') => self.query("a query")?,
                other => return Err(self.unknown_statement(&other)),
            }
        }
    }

    fn unknown_statement(&mut self, first: &Token) -> SourceError {
        self.lexer.broken(format!("{} starts no statement that is known: is the dump damaged?", show(first)))
    }

    fn statement(&mut self, word: String, line_start: bool) -> Result<(), SourceError> {
        let dialect = self.dialect();
        let (mysql, postgres) = (dialect == Dialect::MySql, dialect == Dialect::Postgres);
        if word.eq_ignore_ascii_case("INSERT") {
            return self.insert(&word, false);
        }
        match word.to_ascii_uppercase().as_str() {
            "REPLACE" if !postgres => self.insert(&word, true),
            "COPY" if postgres => self.copy(),
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop_objects(),
            "TRUNCATE" => self.truncate(),
            "DELETE" => self.delete(),
            "UPDATE" => self.update("UPDATE"),
            "MERGE" => self.update("MERGE"),
            "RENAME" if mysql => self.update("RENAME"),
            "SET" => self.set(),
            "USE" if mysql => {
                self.schema = match self.name()? {
                    Some(schema) => schema,
                    None => return Err(self.lexer.broken("USE names no database")),
                };
                // The client ends the command at the end of the line, too.
                self.lexer.take_stop().map(drop)
            }
            "DELIMITER" if mysql && line_start => self.set_delimiter(),
            "LOCK" if mysql => self.lock_tables(),
            "UNLOCK" if mysql => {
                self.session.unlock();
                self.skip_known(&word)
            }
            "BEGIN" => {
                self.lexer.in_body = mysql && self.lexer.peek()?.is("NOT");
                self.session.begin();
                self.skip_known(&word)
            }
            "START" if self.lexer.peek()?.is("TRANSACTION") => {
                self.session.begin();
                self.skip_known(&word)
            }
            "COMMIT" => {
                self.session.commit();
                self.skip_known(&word)
            }
            "END" if !mysql => {
                self.session.commit();
                self.skip_known(&word)
            }
            "ROLLBACK" | "ABORT" => self.rollback(&word),
            "SAVEPOINT" | "RELEASE" => self.skip_known(&word),
            "START" | "XA" if mysql => self.skip_known(&word),
            "DO" if mysql => self.do_expression(),
            "SELECT" | "VALUES" | "TABLE" => self.query(&word),
            "WITH" => self.with(),
            "LOAD" if mysql => self.load(),
            "CALL" | "EXECUTE" | "DO" => self.refuse_or_skip(format!(
                "{} runs code that may change any table, and only the database can tell how; {DUMP_ANEW}",
                word.to_ascii_uppercase()
            )),
            "HANDLER" | "BINLOG" if mysql => {
                self.refuse_or_skip(format!("only the database can follow {}; {DUMP_ANEW}", word.to_ascii_uppercase()))
            }
            upper => {
                let own: &[&str] = match dialect {
                    Dialect::Postgres => &HARMLESS_POSTGRES,
                    Dialect::MySql => &HARMLESS_MYSQL,
                };
                if upper == "REFRESH" && dialect == Dialect::Postgres {
                    return self.refresh();
                }
                if HARMLESS.contains(&upper) || own.contains(&upper) {
                    return self.skip_known(upper);
                }
                if mysql && line_start && self.client_command(upper)? {
                    return Ok(());
                }
                Err(self.unknown_statement(&Token::Word(word)))
            }
        }
    }

    /// Handles `LOCK TABLES a WRITE, b READ`. Until UNLOCK TABLES no other table can be changed.
    fn lock_tables(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        if !statement_shapes::is_statement(Dialect::MySql, "LOCK", &tokens) {
            return self.odd("LOCK");
        }
        if !tokens[0].is_any(&["TABLE", "TABLES"]) {
            return Ok(());
        }
        let tables: Vec<TableName> = split(&tokens[1..]).into_iter().filter_map(|part| self.name_in(part)).collect();
        for table in &tables {
            self.check_relation(table)?;
        }
        self.session.lock(tables);
        Ok(())
    }

    /// Handles `REFRESH MATERIALIZED VIEW counted`.
    fn refresh(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        let shape = "MATERIALIZED VIEW [ CONCURRENTLY ] name [ WITH [ NO ] DATA ]";
        if !has_shape(Dialect::Postgres, &tokens, &[shape]) {
            return self.odd("REFRESH");
        }
        let from = 2 + usize::from(tokens[2].is("CONCURRENTLY"));
        match self.name_in(&tokens[from..]) {
            Some(name) => self.check_relation(&name),
            None => Ok(()),
        }
    }

    /// Handles MariaDB's `DO SETVAL(counter, 5, 0)`.
    fn do_expression(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        if !statement_shapes::is_statement(Dialect::MySql, "DO", &tokens) {
            return self.odd("DO");
        }
        match tokens.as_slice() {
            [function, Token::Symbol(b'('), rest @ ..] if function.is("SETVAL") => match self.name_in(rest) {
                Some(sequence) => self.check_relation(&sequence),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Handles ROLLBACK. Rows that it takes back cannot be taken back here.
    fn rollback(&mut self, word: &str) -> Result<(), SourceError> {
        if (self.session.in_transaction || self.session.manual_commit) && self.session.uncommitted {
            return Err(self.refused(
                "ROLLBACK takes rows back that were read before, as the database does: the dump ended in an error, or \
                 is a test; dump the database again",
            ));
        }
        let to_savepoint = self.lexer.peek()?.is("TO");
        self.skip_known(word)?;
        if !to_savepoint {
            self.session.commit();
        }
        Ok(())
    }

    /// Skips a query, unless it calls a function that may change tables.
    fn query(&mut self, first: &str) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        if tokens.iter().any(|token| token.is("INTO")) && first.eq_ignore_ascii_case("SELECT") {
            let used = tokens.iter().any(|token| match token {
                Token::Word(name) | Token::Name(name) => self.catalog.is_used_name(name),
                _ => false,
            });
            if used {
                return Err(self.refused(format!("only the database can work out SELECT ... INTO; {DUMP_ANEW}")));
            }
        }
        let query = [&[Token::Word(first.to_owned())], tokens.as_slice()].concat();
        let whole = if first == "a query" { [&[Token::Symbol(b'(')], tokens.as_slice()].concat() } else { query };
        let shape = if first.eq_ignore_ascii_case("TABLE") {
            "TABLE [ ONLY ] name [ * ] [ < ORDER | LIMIT | OFFSET | FETCH | UNION > rest ]"
        } else {
            "query"
        };
        if !has_shape(self.dialect(), &whole, &[shape]) {
            return self.odd(first);
        }
        if let Some(Token::Word(name) | Token::Name(name)) = tokens.first()
            && name == "pg_catalog"
            && self.dialect() == Dialect::Postgres
        {
            self.search_path(&tokens);
            return self.system_function(&tokens);
        }
        self.search_path(&tokens);
        let unknown = tokens.windows(2).enumerate().find_map(|(at, pair)| match pair {
            [Token::Word(name) | Token::Name(name), Token::Symbol(b'(')] => {
                let qualified = at >= 2 && tokens[at - 1] == Token::Symbol(b'.');
                let built_in = qualified && matches!(&tokens[at - 2], Token::Word(name) if name == "pg_catalog");
                let lower = name.to_ascii_lowercase();
                let known = built_in
                    || qualified && self.dialect() == Dialect::MySql
                    || !qualified && HARMLESS_FUNCTIONS.contains(&lower.as_str())
                    || !qualified && (lower.starts_with("lo_") || lower.starts_with("pg_"));
                (!known && !self.lexer.syntax.dialect.is_query_word(&lower)).then(|| name.clone())
            }
            _ => None,
        });
        match unknown {
            Some(name) if self.dialect() == Dialect::Postgres => self.refuse_or_warn(format!(
                "the function `{name}` may change any table, and only the database can tell how; {DUMP_ANEW}"
            )),
            _ => Ok(()),
        }
    }

    /// Handles `SELECT pg_catalog.setval('public.counter', 5, true)` and the like.
    fn system_function(&mut self, tokens: &[Token]) -> Result<(), SourceError> {
        let known = has_shape(
            Dialect::Postgres,
            tokens,
            &[
                "pg_catalog . set_config ( text , text , < TRUE | FALSE > )",
                "pg_catalog . setval ( text , num [ , < TRUE | FALSE > ] )",
                "pg_catalog . < lo_open | lo_close | lowrite | lo_create | lo_unlink | lo_from_bytea | lo_put > args",
                "pg_catalog . < pg_restore_relation_stats | pg_restore_attribute_stats | pg_extension_config_dump > rest",
            ],
        );
        let upgrade = matches!(tokens.get(2), Some(Token::Word(name)) if name.starts_with("binary_upgrade_"));
        if !known && !upgrade {
            return self.odd("the call of a function of pg_catalog");
        }
        if let [_, _, function, _, Token::Text(name), ..] = tokens
            && function.is("set_config")
        {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if !is_postgres_setting(&name) {
                self.refuse_or_warn(format!("the setting `{name}` is not known, and PostgreSQL may not know it"))?;
            }
        }
        if let [_, _, function, _, Token::Text(name), ..] = tokens
            && function.is("setval")
        {
            let mut parts = parts_of_name(&String::from_utf8_lossy(name));
            let name = parts.pop().unwrap_or_default();
            let schema = parts.pop().unwrap_or_else(|| self.schema.clone());
            return self.check_relation(&TableName { database: self.database.clone(), schema, name });
        }
        Ok(())
    }

    /// Handles `SELECT pg_catalog.set_config('search_path', '', false)`.
    fn search_path(&mut self, tokens: &[Token]) {
        let Some(at) = tokens.iter().position(|token| token.is("set_config")) else { return };
        if let [Token::Symbol(b'('), Token::Text(name), Token::Symbol(b','), Token::Text(path), ..] = &tokens[at + 1..]
            && name == b"search_path"
        {
            let path = String::from_utf8_lossy(path);
            let first = path.split(',').next().unwrap_or_default().trim().trim_matches('"');
            self.objects.is_path_empty = first.is_empty();
            self.schema = if first.is_empty() { super::catalog::PUBLIC.into() } else { first.to_owned() };
        }
    }

    /// Handles `WITH ... INSERT`, whose rows only the database can work out, and skips `WITH ... SELECT`.
    fn with(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        let shape = "[ RECURSIVE ] ident [ parens ] AS [ [ NOT ] MATERIALIZED ] args rest";
        if !has_shape(
            self.dialect(),
            &tokens,
            &[shape, "[ RECURSIVE ] ident [ parens ] AS [ [ NOT ] MATERIALIZED ] args , rest"],
        ) {
            return self.odd("WITH");
        }
        let changes = tokens.iter().any(|token| token.is_any(&["INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE"]));
        let used = tokens.iter().any(|token| match token {
            Token::Word(name) | Token::Name(name) => self.catalog.is_used_name(name),
            _ => false,
        });
        if changes && used {
            return Err(self.refused(format!("only the database can work out the rows of WITH; {DUMP_ANEW}")));
        }
        Ok(())
    }

    /// Handles `LOAD DATA` and `LOAD XML`, whose rows are in another file.
    fn load(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        if tokens.first().is_some_and(|token| token.is("INDEX")) {
            return Ok(());
        }
        let into = tokens.windows(2).skip_while(|pair| !pair[0].is("TABLE")).find_map(|pair| match &pair[1] {
            Token::Word(name) | Token::Name(name) => Some(name.clone()),
            _ => None,
        });
        match into {
            Some(name) if !self.catalog.is_used_name(&name) && self.catalog.creates_tables() => Ok(()),
            _ => Err(self.refused(format!("the rows of LOAD are in another file; {DUMP_ANEW}"))),
        }
    }
}

impl Dialect {
    /// Whether a word before a parenthesis is no function.
    fn is_query_word(self, word: &str) -> bool {
        const WORDS: [&str; 22] = [
            "select", "from", "where", "and", "or", "in", "not", "exists", "values", "as", "on", "using", "join",
            "over", "any", "all", "union", "by", "limit", "then", "else", "when",
        ];
        WORDS.contains(&word)
    }
}
