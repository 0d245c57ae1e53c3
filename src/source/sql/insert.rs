//! INSERT and REPLACE, in all forms of the three dialects.

use std::borrow::Cow;

use super::super::candidates::RowOrigin;
use super::super::charset::CharacterSet;
use super::super::column::{Column, Storage, TypeClass};
use super::super::error::SourceError;
use super::super::mapping::{ColumnMap, Role, SourceRow};
use super::super::stream::Stream;
use super::catalog::{RowPlan, TableName, TableUse};
use super::double::{OnDouble, PendingRows};
use super::expression;
use super::lexer::{Dialect, Token};
use super::row::{RowError, RowScanner, Scalar, Value};
use super::script::{DUMP_ANEW, Script, not_utf8, unknown_bytes};
use super::statement_shapes;
use facemill_domain::Printable;

/// Longest start of an INSERT, up to its first row, that is compared with the next one, in bytes.
const MAX_HEAD: usize = 1024;

/// Rows of unused tables are parsed in memory up to this size, in bytes.
const MAX_UNUSED_ROW: usize = 4 << 20;

impl Script<'_, '_> {
    /// Reads an INSERT or REPLACE after its first word, which is `verb`.
    pub fn insert(&mut self, verb: &str, replaces: bool) -> Result<(), SourceError> {
        let dialect = self.dialect();
        let mysql = dialect == Dialect::MySql;
        let start = self.lexer.stream.offset();
        let window = self.lexer.stream.fill(MAX_HEAD)?;
        let head = window[..window.len().min(MAX_HEAD)].to_vec();
        let mut on_double = if replaces { OnDouble::Replace } else { OnDouble::Refuse };
        loop {
            if mysql && self.lexer.take_any(&["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED"])? {
            } else if mysql && !replaces && self.lexer.take_word("IGNORE")? {
                on_double = OnDouble::Ignore;
            } else {
                break;
            }
        }
        if !self.lexer.take_word("INTO")? && !mysql {
            let found = self.shown_token()?;
            return Err(self.lexer.broken(format!("{verb} is followed by {found}, not by INTO")));
        }
        let Some(table) = self.table_name()? else { return Err(self.no_table_name(verb)) };
        if mysql && self.lexer.take_word("PARTITION")? {
            self.column_list()?;
        }
        if !mysql && self.lexer.take_word("AS")? {
            self.name()?;
        }
        let used = self.catalog.role(&table).is_some();
        let columns = match self.lexer.peek_query()? {
            true => return self.insert_query(&table, used),
            false => self.column_list()?,
        };
        if dialect == Dialect::Postgres && self.lexer.take_word("OVERRIDING")? {
            if self.lexer.take_word("USER")? && used {
                return Err(self.refused(format!("OVERRIDING USER VALUE lets the database number rows; {DUMP_ANEW}")));
            }
            self.lexer.take_word("SYSTEM")?;
            self.lexer.take_word("VALUE")?;
        }
        self.check_created(&table)?;
        self.check_locks(&table)?;
        self.check_triggers(&table)?;
        if mysql && columns.is_none() && self.lexer.take_word("SET")? {
            return self.insert_set(&table, on_double);
        }
        if !(self.lexer.take_word("VALUES")? || (mysql && self.lexer.take_word("VALUE")?)) {
            if self.lexer.peek()?.is_any(&["SELECT", "WITH", "TABLE"]) || self.lexer.peek_query()? {
                return self.insert_query(&table, used);
            }
            if self.lexer.take_word("DEFAULT")? && self.lexer.take_word("VALUES")? {
                if used {
                    return Err(self.refused(format!("only the database knows the row of DEFAULT VALUES; {DUMP_ANEW}")));
                }
                return self.skip_plain();
            }
            let found = self.shown_token()?;
            return Err(self.lexer.broken(format!("{verb} INTO `{table}` is followed by {found}, not by VALUES")));
        }
        let repeated = |script: &Self| {
            let length = usize::try_from(script.lexer.stream.offset() - start).ok()?;
            Some([b"\n", verb.as_bytes(), head.get(..length)?].concat())
        };
        match self.catalog.look_up(&table, columns) {
            TableUse::Read(plan) => {
                self.set_types(plan.columns.role);
                let repeated = repeated(self);
                self.inserted_rows(&plan, on_double, repeated.as_deref())
            }
            TableUse::Skip(width) => {
                let repeated = repeated(self);
                self.unused_rows(width, repeated.as_deref())
            }
            TableUse::NoColumns => Err(self.no_columns(&table)),
            TableUse::Wrong(detail) => Err(self.lexer.broken(detail)),
        }
    }

    /// Refuses rows that a query gives, or skips them where the query does not read the table.
    fn insert_query(&mut self, table: &TableName, used: bool) -> Result<(), SourceError> {
        if used {
            return Err(self.refused(format!(
                "only the database can work out the rows of a query that are added to `{table}`; {DUMP_ANEW}"
            )));
        }
        self.skip_plain()
    }

    pub fn no_columns(&self, table: &TableName) -> SourceError {
        self.lexer.broken(format!("the rows of `{table}` have no column names, and no CREATE TABLE defines them"))
    }

    /// Tells the builder the types of a role's columns before its first row.
    pub fn set_types(&mut self, role: Role) {
        if self.builder.is_empty(role) {
            let types = self.catalog.column_types(role);
            self.builder.set_columns(role, types);
        }
    }

    fn scanner(&self) -> RowScanner {
        RowScanner { syntax: self.lexer.syntax, raw: false }
    }

    /// Scans the row that comes next. None: it is larger than `most` bytes.
    fn next_row(&mut self, values: &mut Vec<Value>, most: usize) -> Result<Option<usize>, SourceError> {
        let rules = self.scanner();
        self.lexer.skip_blank()?;
        if rules.syntax.dialect == Dialect::MySql && matches!(self.lexer.stream.fill(1)?.first(), Some(b'R' | b'r')) {
            if !self.lexer.take_word("ROW")? {
                return Err(self.lexer.broken("a row does not start with `(`"));
            }
            self.lexer.skip_blank()?;
        }
        loop {
            let stream = &mut self.lexer.stream;
            match rules.row(stream.window(), values) {
                Ok(Some(length)) => return Ok(Some(length)),
                Ok(None) => {
                    if stream.window().len() > most {
                        return Ok(None);
                    }
                    if !stream.grow()? {
                        return Err(stream.truncated("the dump ends within a row"));
                    }
                }
                Err(fault) => return Err(stream.broken(fault.at, fault.detail)),
            }
        }
    }

    /// What follows a row.
    fn after_row(&mut self, repeated: Option<&[u8]>) -> Result<AfterRow, SourceError> {
        self.lexer.skip_blank()?;
        let length = self.lexer.delimiter.len();
        let window = self.lexer.stream.fill(length)?;
        if window.first() == Some(&b',') {
            self.lexer.stream.consume(1);
            return Ok(AfterRow::Row);
        }
        if window.starts_with(&self.lexer.delimiter) {
            self.lexer.stream.consume(length);
        } else if window.first() == Some(&b';') {
            self.lexer.stream.consume(1);
        } else {
            return Ok(AfterRow::Clause);
        }
        let Some(repeated) = repeated else { return Ok(AfterRow::End) };
        if !self.lexer.stream.fill(repeated.len())?.starts_with(repeated) {
            return Ok(AfterRow::End);
        }
        self.lexer.stream.consume(repeated.len());
        Ok(AfterRow::Statement)
    }

    /// Reads rows up to the end of the statement. Dumps with one row per INSERT start each statement alike: while
    /// `repeated` follows, the next row is read without parsing the statement.
    fn inserted_rows(
        &mut self,
        plan: &RowPlan,
        on_double: OnDouble,
        repeated: Option<&[u8]>,
    ) -> Result<(), SourceError> {
        let rules = self.scanner();
        let role = plan.columns.role;
        let mut values = Vec::new();
        let mut pending = PendingRows::default();
        loop {
            let Some(length) = self.next_row(&mut values, usize::MAX)? else {
                return Err(self.lexer.broken("a row is too large"));
            };
            let stream = &self.lexer.stream;
            if values.len() != plan.columns.width {
                return Err(stream.broken(0, wrong_width(&plan.columns, values.len())));
            }
            let zero_is_zero = self.session.zero_is_zero;
            check_expressions(stream, rules, &values)?;
            if !self.lenient {
                check_other_values(stream, rules, plan, &values)?;
            }
            let row = decode_row(stream, rules, plan, &values, zero_is_zero)?;
            let origin = RowOrigin { part: plan.part, keyed: plan.keyed, offset: stream.offset() };
            if let Some(place) = self.builder.add(role, &row, origin)? {
                match on_double {
                    OnDouble::Replace => self.builder.replace(role, place, &row, origin)?,
                    OnDouble::Ignore => {}
                    _ => pending.push(stream, place, &row, origin)?,
                }
            } else if !plan.other_keys.is_empty() {
                drop(row);
                self.check_other_keys(plan, &values, rules, on_double == OnDouble::Refuse)?;
            }
            self.count_row()?;
            self.lexer.stream.consume(length);
            match self.after_row(repeated)? {
                AfterRow::Row => continue,
                AfterRow::Statement if pending.is_empty() => continue,
                AfterRow::Statement | AfterRow::End => {
                    self.session.uncommitted = true;
                    return pending.refuse_all(role);
                }
                AfterRow::Clause => {}
            }
            self.session.uncommitted = true;
            let clause = self.clause(plan)?;
            return match (on_double, clause) {
                (OnDouble::Refuse, clause) => self.resolve(plan, pending, clause),
                (_, OnDouble::Refuse) => Ok(()),
                _ => Err(self.refused("a statement has two rules for rows whose id is taken")),
            };
        }
    }

    /// Reads the rows of a table that the query does not read, only to check them.
    fn unused_rows(&mut self, width: Option<usize>, repeated: Option<&[u8]>) -> Result<(), SourceError> {
        let mut values = Vec::new();
        loop {
            let found = match self.next_row(&mut values, MAX_UNUSED_ROW)? {
                Some(length) => {
                    let found = values.len();
                    if width.is_some_and(|width| width != found) {
                        return Err(self.wrong_unused_width(found, width));
                    }
                    check_expressions(&self.lexer.stream, self.scanner(), &values)?;
                    self.lexer.stream.consume(length);
                    found
                }
                None => self.skip_large_row()?,
            };
            if width.is_some_and(|width| width != found) {
                return Err(self.wrong_unused_width(found, width));
            }
            match self.after_row(repeated)? {
                AfterRow::Row | AfterRow::Statement => {}
                AfterRow::End => return Ok(()),
                AfterRow::Clause => {
                    if !self.lexer.peek()?.is_any(&["ON", "AS", "RETURNING"]) {
                        return Err(self.bad_clause());
                    }
                    let tokens = self.collect_statement()?;
                    return match statement_shapes::is_insert_clause(self.dialect(), &tokens) {
                        true => Ok(()),
                        false => self.odd("what follows a row"),
                    };
                }
            }
        }
    }

    fn wrong_unused_width(&self, found: usize, width: Option<usize>) -> SourceError {
        self.lexer.broken(format!("a row has {found} values for {} columns", width.unwrap_or_default()))
    }

    /// Skips a row that does not fit in memory, and returns the number of its values.
    fn skip_large_row(&mut self) -> Result<usize, SourceError> {
        let mut depth = 0;
        let mut values = 1;
        loop {
            match self.lexer.token()? {
                Token::End => return Err(self.lexer.stream.truncated("the dump ends within a row")),
                Token::Stop => return Err(self.lexer.broken("the row is not closed")),
                Token::Symbol(b'(') => depth += 1,
                Token::Symbol(b')') if depth == 1 => return Ok(values),
                Token::Symbol(b')') => depth -= 1,
                Token::Symbol(b',') if depth == 1 => values += 1,
                _ => {}
            }
        }
    }

    pub fn bad_clause(&mut self) -> SourceError {
        match self.shown_token() {
            Ok(found) => self.lexer.broken(format!("a row is followed by {found}, not by `,` or `;`")),
            Err(error) => error,
        }
    }

    /// Reads MySQL's `INSERT INTO faces SET id = 1, photo_id = 2` after SET.
    fn insert_set(&mut self, table: &TableName, on_double: OnDouble) -> Result<(), SourceError> {
        let rules = self.scanner();
        let mut columns = Vec::new();
        let mut texts: Vec<Vec<u8>> = Vec::new();
        let offset = self.lexer.stream.offset();
        loop {
            let Some(mut column) = self.name()? else {
                return Err(self.lexer.broken("SET assigns to something else than a column"));
            };
            while self.lexer.take_symbol(b'.')? {
                column = self.name()?.unwrap_or_default();
            }
            if !self.lexer.take_symbol(b'=')? {
                return Err(self.lexer.broken("SET has a column without `=`"));
            }
            if columns.len() == super::row::MAX_VALUES {
                return Err(self.lexer.broken("SET assigns to too many columns"));
            }
            columns.push(column);
            self.lexer.skip_blank()?;
            let length = loop {
                let stream = &mut self.lexer.stream;
                match rules.assigned(stream.window()) {
                    Ok(Some((value, length))) => {
                        texts.push(stream.window()[value.start..value.end].to_vec());
                        break length;
                    }
                    Ok(None) => {
                        if !stream.grow()? {
                            return Err(stream.truncated("the dump ends within a statement"));
                        }
                    }
                    Err(fault) => return Err(stream.broken(fault.at, fault.detail)),
                }
            };
            self.lexer.stream.consume(length);
            if !self.lexer.take_symbol(b',')? {
                break;
            }
        }
        if texts.last().is_some_and(|text| memchr::memmem::find(&text.to_ascii_uppercase(), b" ON DUPLICATE").is_some())
        {
            return Err(self.refused(format!("INSERT ... SET with ON DUPLICATE KEY UPDATE; {DUMP_ANEW}")));
        }
        self.end_statement("INSERT ... SET")?;
        let plan = match self.catalog.look_up(table, Some(columns)) {
            TableUse::Read(plan) => plan,
            TableUse::Skip(_) => return Ok(()),
            TableUse::NoColumns => return Err(self.no_columns(table)),
            TableUse::Wrong(detail) => return Err(self.lexer.broken(detail)),
        };
        let role = plan.columns.role;
        self.set_types(role);
        // Brings the values into the form of a row.
        let mut text = b"(".to_vec();
        text.extend(texts.join(&b','));
        text.push(b')');
        let mut values = Vec::new();
        let stream = &self.lexer.stream;
        match rules.row(&text, &mut values) {
            Ok(Some(length)) if length == text.len() && values.len() == plan.columns.width => {}
            _ => return Err(stream.broken(0, "SET assigns values that are not understood")),
        }
        let row = decode_values(rules, &plan, &text, &values, self.session.zero_is_zero)
            .map_err(|fault| stream.broken(0, fault.detail))?;
        let origin = RowOrigin { part: plan.part, keyed: plan.keyed, offset };
        if let Some(place) = self.builder.add(role, &row, origin)? {
            match on_double {
                OnDouble::Replace => self.builder.replace(role, place, &row, origin)?,
                OnDouble::Ignore => {}
                _ => {
                    let mut pending = PendingRows::default();
                    pending.push(stream, place, &row, origin)?;
                    return pending.refuse_all(role);
                }
            }
        }
        self.session.uncommitted = true;
        self.count_row()
    }
}

enum AfterRow {
    Row,
    /// The next statement starts like this one, and its start was consumed.
    Statement,
    End,
    Clause,
}

/// Refuses values that are no expressions, such as `1..5`, also where the query does not read them.
fn check_expressions(stream: &Stream<'_>, rules: RowScanner, values: &[Value]) -> Result<(), SourceError> {
    let fault = values.iter().find_map(|value| {
        let written = stream.window().get(value.start..value.end).filter(|_| value.is_expression())?;
        expression::is_damaged(rules, written).then_some(value.start)
    });
    match fault {
        Some(at) => Err(stream.broken(at, "a value is followed by something that belongs to no expression")),
        None => Ok(()),
    }
}

/// Refuses texts that are no values of their column's type, where the query does not read the column.
fn check_other_values(
    stream: &Stream<'_>,
    rules: RowScanner,
    plan: &RowPlan,
    values: &[Value],
) -> Result<(), SourceError> {
    for (at, kind) in &plan.others {
        let value = values[*at];
        if !value.is_text() {
            continue;
        }
        let decoded = rules.decode(stream.window(), value).map_err(|fault| stream.broken(fault.at, fault.detail))?;
        if let Scalar::Text(text) = decoded {
            kind.check_unread(&text).map_err(|detail| stream.refused(value.start, detail))?;
        }
    }
    Ok(())
}

fn decode_row<'r>(
    stream: &'r Stream<'_>,
    rules: RowScanner,
    plan: &'r RowPlan,
    values: &[Value],
    zero_is_zero: bool,
) -> Result<SourceRow<'r>, SourceError> {
    decode_values(rules, plan, stream.window(), values, zero_is_zero)
        .map_err(|fault| stream.broken(fault.at, fault.detail))
}

fn decode_values<'r>(
    rules: RowScanner,
    plan: &'r RowPlan,
    text: &'r [u8],
    values: &[Value],
    zero_is_zero: bool,
) -> Result<SourceRow<'r>, RowError> {
    let mut row = SourceRow::default();
    for (slot, index) in plan.columns.indices.iter().enumerate() {
        let role = plan.columns.role;
        let Some(index) = *index else {
            if slot < role.columns().len() {
                row[slot] = omitted(plan, slot).map_err(|detail| RowError { at: 0, detail: detail.into() })?;
            }
            continue;
        };
        let value = values[index];
        let raw = plan.slots[slot].kind.class.is_binary();
        let scalar = expression::decode(RowScanner { raw, ..rules }, text, value)?;
        row[slot] = stored(rules, plan, slot, scalar, zero_is_zero)
            .map_err(|detail| RowError { at: value.start, detail: detail.into() })?;
    }
    Ok(row)
}

/// The value of a column that the statement leaves out.
pub fn omitted(plan: &RowPlan, slot: usize) -> Result<Option<Cow<'_, str>>, String> {
    plan.omitted(slot).map(|value| value.map(Cow::Borrowed)).ok_or_else(|| {
        let role = plan.columns.role;
        format!("the row leaves out {role}.{}, whose value only the database knows; {DUMP_ANEW}", role.columns()[slot])
    })
}

/// Whether the column is an id. Binary ids are kept as hex digits.
fn is_id(role: Role, slot: usize) -> bool {
    let column = role.columns()[slot];
    column == "id" || column.ends_with("_id")
}

/// Returns the text that the database shows for a value of one of the role's columns.
fn stored<'t>(
    rules: RowScanner,
    plan: &RowPlan,
    slot: usize,
    value: Scalar<'t>,
    zero_is_zero: bool,
) -> Result<Option<Cow<'t, str>>, String> {
    let role = plan.columns.role;
    let Column { kind, not_null, .. } = &plan.slots[slot];
    let dialect = rules.syntax.dialect;
    let name = || format!("{role}.{}", role.columns()[slot]);
    let numbered = || format!("the database numbers the rows by {}; {DUMP_ANEW}", name());
    let hex = |bytes: &[u8]| {
        let mut digits = facemill_domain::hash::hex(bytes);
        if kind.class == TypeClass::FixedBinary && digits.len() < 2 * kind.length.min(255) {
            digits.push_str(&"0".repeat(2 * kind.length.min(255) - digits.len()));
        }
        digits
    };
    let is_text = matches!(value, Scalar::Text(_));
    let text = match value {
        Scalar::Null if slot == 0 && kind.numbered && dialect != Dialect::Postgres => return Err(numbered()),
        Scalar::Null if *not_null => return Err(format!("{} is NULL, but is NOT NULL by its definition", name())),
        Scalar::Null => return Ok(None),
        Scalar::Number(bytes) => utf8(bytes).map_err(|_| not_utf8(role, slot))?,
        Scalar::Text(bytes) if kind.class.is_binary() && is_id(role, slot) => return Ok(Some(hex(&bytes).into())),
        Scalar::Text(bytes) if rules.syntax.charset == CharacterSet::Binary => {
            utf8(kind.charset.unwrap_or_default().decode(bytes)?).map_err(|_| not_utf8(role, slot))?
        }
        Scalar::Text(bytes) => utf8(bytes).map_err(|_| match is_id(role, slot) && !kind.defined {
            true => unknown_bytes(role, slot),
            false => not_utf8(role, slot),
        })?,
        Scalar::Bytes(bytes) if kind.class.is_number() && dialect == Dialect::MySql => {
            let number = bytes
                .iter()
                .try_fold(0u64, |number, byte| number.checked_mul(256).map(|number| number + u64::from(*byte)));
            number.ok_or_else(|| format!("{} is a number that is too large", name()))?.to_string().into()
        }
        Scalar::Bytes(bytes) if is_id(role, slot) && !kind.class.is_text() => return Ok(Some(hex(&bytes).into())),
        Scalar::Bytes(bytes) => {
            utf8(kind.charset.unwrap_or_default().decode(bytes)?).map_err(|_| not_utf8(role, slot))?
        }
    };
    if slot == 0 && kind.numbered && dialect == Dialect::MySql && !zero_is_zero && text == "0" {
        return Err(numbered());
    }
    let storage = match dialect {
        Dialect::Postgres if is_text => Storage::Strict,
        _ => Storage::Rounding,
    };
    if kind.class == TypeClass::Unknown {
        return Ok(Some(text));
    }
    // Most values are stored as they are written.
    match kind.stored(Cow::Borrowed(&*text), storage) {
        Some(Cow::Borrowed(_)) => Ok(Some(text)),
        Some(Cow::Owned(stored)) => Ok(Some(stored.into())),
        None => Err(unlike_type(role, slot, &text.chars().take(40).collect::<String>())),
    }
}

/// The error of a value that its column's type does not have.
pub fn unlike_type(role: Role, slot: usize, value: &str) -> String {
    format!(
        "`{}` has not the form in which databases write {role}.{}, and only the database can tell how it reads it; \
         {DUMP_ANEW}",
        value.printable(),
        role.columns()[slot]
    )
}

pub fn utf8(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, std::str::Utf8Error> {
    Ok(match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes)?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).map_err(|error| error.utf8_error())?),
    })
}

pub fn wrong_width(column_map: &ColumnMap, found: usize) -> String {
    format!("a row of {} has {found} values for {} columns", column_map.role, column_map.width)
}
