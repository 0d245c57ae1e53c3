//! Statements that change or remove rows: DELETE, TRUNCATE, UPDATE and the like.

use super::super::error::SourceError;
use super::super::mapping::Role;
use super::catalog::TableName;
use super::lexer::{Dialect, Token};
use super::script::{DUMP_ANEW, Script};

impl Script<'_, '_> {
    /// Removes the rows of a table that were read so far.
    pub fn remove_rows(&mut self, name: &TableName, statement: &str) -> Result<(), SourceError> {
        let Some(role) = self.catalog.role(name) else { return Ok(()) };
        if self.builder.is_empty(role) {
            return Ok(());
        }
        if self.catalog.is_split(role) {
            return Err(self.refused(format!(
                "{statement} removes rows of `{name}`, but rows of several tables count for {role}; {DUMP_ANEW}"
            )));
        }
        if self.session.in_transaction && self.dialect() != Dialect::MySql {
            self.session.uncommitted = true;
        }
        self.builder.clear(role);
        Ok(())
    }

    /// Handles `TRUNCATE [TABLE] a, b`.
    pub fn truncate(&mut self) -> Result<(), SourceError> {
        self.lexer.take_word("TABLE")?;
        loop {
            self.lexer.take_word("ONLY")?;
            let Some(name) = self.table_name()? else { return Err(self.no_table_name("TRUNCATE")) };
            self.lexer.take_symbol(b'*')?;
            self.remove_rows(&name, "TRUNCATE")?;
            if !self.lexer.take_symbol(b',')? {
                break;
            }
        }
        let rest = self.collect_statement()?;
        let filled = Role::ALL.into_iter().any(|role| !self.builder.is_empty(role));
        if filled && rest.iter().any(|token| token.is("CASCADE")) {
            return Err(self.refused(format!("TRUNCATE ... CASCADE empties other tables, too; {DUMP_ANEW}")));
        }
        Ok(())
    }

    /// Handles `DELETE FROM faces`. With a condition only the database can tell which rows are left.
    pub fn delete(&mut self) -> Result<(), SourceError> {
        self.lexer.take_any(&["LOW_PRIORITY", "QUICK"])?;
        if self.lexer.take_word("FROM")? {
            self.lexer.take_word("ONLY")?;
            let Some(name) = self.table_name()? else { return Err(self.no_table_name("DELETE FROM")) };
            if self.lexer.take_stop()? {
                return self.remove_rows(&name, "DELETE");
            }
            let role = self.catalog.role(&name);
            let plain = self.lexer.peek()?.is_any(&["WHERE", "ORDER", "LIMIT", "RETURNING"]);
            if plain {
                return match role {
                    Some(role) if !self.builder.is_empty(role) => Err(self.changes(&name, "DELETE ... WHERE")),
                    _ => self.skip_plain(),
                };
            }
        }
        self.change_unless_unused("DELETE")
    }

    /// Handles UPDATE, MERGE and RENAME TABLE.
    pub fn update(&mut self, statement: &str) -> Result<(), SourceError> {
        if statement == "RENAME" {
            let tokens = self.collect_statement()?;
            let used = tokens.iter().any(|token| match token {
                Token::Word(name) | Token::Name(name) => self.catalog.is_used_name(name),
                _ => false,
            });
            if used {
                return Err(self.refused(format!("RENAME TABLE cannot be followed; {DUMP_ANEW}")));
            }
            return Ok(());
        }
        self.change_unless_unused(statement)
    }

    /// Refuses a change of rows if it names a table that the query reads and that has rows by now.
    fn change_unless_unused(&mut self, statement: &str) -> Result<(), SourceError> {
        let at = self.refused("");
        match self.skip_and_find_used()? {
            None => Ok(()),
            Some(role) => Err(match at {
                SourceError::Refused { at, .. } => SourceError::Refused { at, detail: changed(role.name(), statement) },
                other => other,
            }),
        }
    }

    fn changes(&self, name: &TableName, statement: &str) -> SourceError {
        self.refused(changed(&name.to_string(), statement))
    }
}

fn changed(table: &str, statement: &str) -> String {
    format!(
        "{statement} changes rows of `{table}` that were read before, and only the database can tell how; {DUMP_ANEW}"
    )
}
