//! SET, and what it changes: character set, escapes, quotes, search path, transactions.

use super::super::charset::CharacterSet;
use super::super::error::SourceError;
use super::catalog::PUBLIC;
use super::known_settings::{SQL_MODES, is_mysql_setting, is_postgres_setting, is_setting, setting};
use super::lexer::{Dialect, Token};
use super::script::{Script, show};
use super::shape::has_shape;
use super::token_list::split;

impl Script<'_, '_> {
    pub fn set(&mut self) -> Result<(), SourceError> {
        match self.dialect() {
            Dialect::MySql => self.set_mysql(),
            Dialect::Postgres => self.set_postgres(),
        }
    }

    fn set_postgres(&mut self) -> Result<(), SourceError> {
        while self.lexer.peek()?.is_any(&["SESSION", "LOCAL"]) {
            self.lexer.token()?;
        }
        let variable = match self.lexer.token()? {
            Token::Word(word) | Token::Name(word) => word.to_ascii_lowercase(),
            other => return Err(self.lexer.broken(format!("SET is followed by {}", show(&other)))),
        };
        let value = self.collect_statement()?;
        let value = match value.as_slice() {
            [first, rest @ ..] if *first == Token::Symbol(b'=') || first.is("TO") => rest,
            // SET NAMES 'UTF8', SET TIME ZONE, SET SESSION AUTHORIZATION and the like.
            all if [
                "names",
                "time",
                "authorization",
                "role",
                "transaction",
                "constraints",
                "characteristics",
                "xml",
            ]
            .contains(&variable.as_str()) =>
            {
                all
            }
            _ => return Err(self.lexer.broken(format!("SET {variable} has neither `=` nor TO"))),
        };
        if !is_postgres_setting(&variable) {
            self.refuse_or_warn(format!("the setting `{variable}` is not known, and PostgreSQL may not know it"))?;
        }
        let plain = ["transaction", "characteristics", "constraints", "xml", "time"].contains(&variable.as_str());
        if !plain && !split(value).into_iter().all(|value| is_setting(&variable, value)) {
            return self.odd(&format!("the value of SET {variable}"));
        }
        let first = value.first();
        match variable.as_str() {
            "search_path" => {
                self.schema = match first {
                    Some(Token::Text(text)) => String::from_utf8_lossy(text).into_owned(),
                    Some(Token::Word(word)) => word.to_ascii_lowercase(),
                    Some(Token::Name(name)) => name.clone(),
                    _ => String::new(),
                };
                if self.schema.is_empty() {
                    PUBLIC.clone_into(&mut self.schema);
                }
            }
            "standard_conforming_strings" => {
                self.lexer.syntax.backslashes = matches!(setting(first).as_str(), "off" | "false" | "0" | "no");
            }
            "client_encoding" | "names" => {
                let name = setting(first);
                if !name.is_empty() && name != "default" {
                    self.lexer.syntax.charset = CharacterSet::postgres(&name)
                        .ok_or_else(|| self.refused(format!("the encoding `{name}` is not known")))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn set_mysql(&mut self) -> Result<(), SourceError> {
        let tokens = self.collect_statement()?;
        let mut global = false;
        for assignment in split(&tokens) {
            match assignment {
                [] => return Err(self.lexer.broken("SET assigns nothing")),
                [first, second, ..] if first.is("NAMES") => {
                    self.session.names_charset = true;
                    self.set_client_charset(&setting(Some(second)))?;
                }
                [first, second, third, ..] if first.is_any(&["CHARACTER", "CHAR"]) && second.is("SET") => {
                    self.set_client_charset(&setting(Some(third)))?;
                }
                [first, second, ..] if first.is("CHARSET") => self.set_client_charset(&setting(Some(second)))?,
                [first, ..]
                    if first.is_any(&["PASSWORD", "TRANSACTION", "ROLE", "DEFAULT", "RESOURCE", "STATEMENT"]) => {}
                [first, second, ..] if first.is_any(&["GLOBAL", "SESSION", "LOCAL"]) && second.is("TRANSACTION") => {}
                _ => self.assign_mysql(assignment, &mut global)?,
            }
        }
        Ok(())
    }

    /// Refuses a user variable without a value, which is NULL, and a system variable that is not known.
    fn check_mysql_value(&mut self, value: &[Token]) -> Result<(), SourceError> {
        let mut at = 0;
        while at < value.len() {
            let marks = value[at..].iter().take_while(|token| **token == Token::Symbol(b'@')).count();
            let Some(Token::Word(name) | Token::Name(name)) = value.get(at + marks).filter(|_| marks > 0) else {
                at += 1 + marks;
                continue;
            };
            at += marks + 1;
            if marks == 1 && !self.session.is_assigned(name) {
                return Err(self.lexer.broken(format!("@{name} has no value: the statement that sets it is missing")));
            }
            let scope = ["GLOBAL", "SESSION", "LOCAL"].iter().any(|scope| name.eq_ignore_ascii_case(scope));
            if marks == 2 && !scope && !is_mysql_setting(name) {
                self.refuse_or_warn(format!("the variable @@{name} is not known, and the server may not know it"))?;
            }
        }
        Ok(())
    }

    /// Handles one `variable = value` of a SET. `global` holds for the rest of the statement.
    fn assign_mysql(&mut self, assignment: &[Token], global: &mut bool) -> Result<(), SourceError> {
        let equals = assignment.iter().position(|token| *token == Token::Symbol(b'='));
        let Some(equals) = equals.filter(|at| *at > 0) else {
            return Err(self.lexer.broken("SET has a variable without `=`"));
        };
        let (target, value) = (&assignment[..equals], &assignment[equals + 1..]);
        if value.is_empty() {
            return Err(self.lexer.broken("SET has a variable without a value"));
        }
        // A value is never a statement: the `;` between them is lost.
        if value.iter().any(|token| token.is_any(&["INSERT", "CREATE", "DROP", "LOCK"]) && !value[0].is("INSERT")) {
            return Err(self.lexer.broken("SET contains another statement: the `;` before it is missing"));
        }
        // A variable in the value is restored, or its value is used at least.
        let mut restored = None;
        for (at, token) in value.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| &value[at]);
            let two = at.checked_sub(2).map(|at| &value[at]);
            if let Token::Word(name) | Token::Name(name) = token
                && before == Some(&Token::Symbol(b'@'))
                && two != Some(&Token::Symbol(b'@'))
            {
                restored = self.session.restore(name).or(restored);
            }
        }
        if !has_shape(Dialect::MySql, target, &TARGETS) || !has_shape(Dialect::MySql, value, &VALUES) {
            return self.odd("SET");
        }
        // The results of queries may have no character set.
        let may_be_null = target.last().is_some_and(|token| token.is("character_set_results"))
            || value.first().is_some_and(|token| token.is_any(&["IFNULL", "COALESCE", "IF"]));
        if !may_be_null {
            self.check_mysql_value(value)?;
        }
        let mut name = String::new();
        let mut system = true;
        match target {
            [Token::Symbol(b'@'), Token::Symbol(b'@'), rest @ ..] => {
                *global = rest.first().is_some_and(|token| token.is_any(&["GLOBAL", "PERSIST", "PERSIST_ONLY"]));
                name = setting(rest.last());
            }
            // `@x := value` has its colon before the equals sign.
            [Token::Symbol(b'@'), Token::Word(word) | Token::Name(word), ..] => {
                system = false;
                word.clone_into(&mut name);
            }
            [scope, last] if scope.is_any(&["GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY"]) => {
                *global = scope.is_any(&["GLOBAL", "PERSIST", "PERSIST_ONLY"]);
                name = setting(Some(last));
            }
            [.., last] => name = setting(Some(last)),
            [] => {}
        }
        if system && !is_mysql_setting(&name) {
            self.refuse_or_warn(format!("the variable `{name}` is not known, and the server may not know it"))?;
        }
        if !system {
            self.session.assign(&name);
            if matches!(value, [Token::Symbol(b'@'), Token::Symbol(b'@'), ..]) {
                self.session.save(&name, self.lexer.syntax);
            }
            return Ok(());
        }
        if *global {
            return Ok(());
        }
        match name.as_str() {
            "sql_mode" => match restored {
                Some(saved) => {
                    self.session.sets_sql_mode = true;
                    self.lexer.syntax.backslashes = saved.syntax.backslashes;
                    self.lexer.syntax.ansi_quotes = saved.syntax.ansi_quotes;
                    self.session.zero_is_zero = saved.zero_is_zero;
                }
                None => self.set_sql_mode(value)?,
            },
            "character_set_client" | "names" => match restored {
                Some(saved) => self.lexer.syntax.charset = saved.syntax.charset,
                None => self.set_client_charset(&setting(value.first()))?,
            },
            "character_set_results" | "character_set_connection" => match value {
                [Token::Word(_) | Token::Name(_) | Token::Text(_)] if restored.is_none() => {
                    let charset = setting(value.first());
                    if !["null", "default"].contains(&charset.as_str()) && CharacterSet::mysql(&charset).is_none() {
                        return Err(self.refused(format!("the character set `{charset}` is not known")));
                    }
                }
                _ => {}
            },
            "autocommit" => {
                let known = ["0", "1", "on", "off", "true", "false", "default"];
                if let [Token::Word(word)] = value
                    && !known.contains(&word.to_ascii_lowercase().as_str())
                {
                    return Err(self.lexer.broken(format!("autocommit cannot have the value {word}")));
                }
                self.session.manual_commit = matches!(setting(value.first()).as_str(), "0" | "off" | "false");
                if !self.session.manual_commit {
                    self.session.uncommitted = false;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn set_sql_mode(&mut self, value: &[Token]) -> Result<(), SourceError> {
        self.session.sets_sql_mode = true;
        let texts: Vec<String> = value
            .iter()
            .filter_map(|token| match token {
                Token::Text(text) => Some(String::from_utf8_lossy(text).to_ascii_uppercase()),
                Token::Word(word) | Token::Name(word) => Some(word.to_ascii_uppercase()),
                _ => None,
            })
            .collect();
        let is_word = matches!(value, [Token::Word(_)]) && !value[0].is("DEFAULT");
        if is_word || matches!(value, [Token::Text(_)]) {
            let unknown = texts.iter().flat_map(|text| text.split(',')).map(str::trim).find(|mode| {
                !mode.is_empty() && !SQL_MODES.contains(mode) && !mode.bytes().all(|byte| byte.is_ascii_digit())
            });
            if let Some(mode) = unknown {
                let refusal = format!("the sql_mode {mode} is not known, and the server may not know it");
                self.refuse_or_warn(refusal)?;
            }
        }
        let has =
            |modes: &[&str]| texts.iter().flat_map(|text| text.split(',')).any(|mode| modes.contains(&mode.trim()));
        let removes = value.first().is_some_and(|token| token.is("REPLACE"));
        let adds = value.len() > 1 && !removes;
        let syntax = &mut self.lexer.syntax;
        let quotes = ["ANSI_QUOTES", "ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL"];
        let flag = |old: bool, found: bool| match (removes, adds) {
            (true, _) => old && !found,
            (_, true) => old || found,
            _ => found,
        };
        syntax.backslashes = !flag(!syntax.backslashes, has(&["NO_BACKSLASH_ESCAPES"]));
        syntax.ansi_quotes = flag(syntax.ansi_quotes, has(&quotes));
        self.session.zero_is_zero = flag(self.session.zero_is_zero, has(&["NO_AUTO_VALUE_ON_ZERO"]));
        Ok(())
    }

    /// Sets the character set of MySQL's statements.
    pub fn set_client_charset(&mut self, name: &str) -> Result<(), SourceError> {
        // A value such as @@character_set_database is not known here.
        if name.is_empty() || name == "@" {
            return Ok(());
        }
        self.lexer.syntax.charset = CharacterSet::mysql(name)
            .ok_or_else(|| self.refused(format!("the character set `{name}` is not known")))?;
        Ok(())
    }
}

/// What SET of MySQL assigns to, and the values that dumps assign.
const TARGETS: [&str; 3] = [
    "[ < GLOBAL | SESSION | LOCAL | PERSIST | PERSIST_ONLY > ] name",
    "@ @ [ < GLOBAL | SESSION | LOCAL | PERSIST | PERSIST_ONLY > . ] name",
    "@ < ident | text > [ : ]",
];
const VALUES: [&str; 4] = ["value", "@ < ident | text >", "@ @ name", "expr"];
