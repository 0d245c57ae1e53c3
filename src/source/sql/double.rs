//! Rows whose id is taken: what REPLACE, IGNORE, ON DUPLICATE KEY UPDATE and ON CONFLICT do with them.

use super::super::candidates::{RowChanges, RowOrigin};
use super::super::error::{Position, SourceError};
use super::super::key_index::RowPlace;
use super::super::mapping::{Role, SourceRow, WIDTH};
use super::super::stream::Stream;
use super::catalog::RowPlan;
use super::lexer::Token;
use super::row::{RowScanner, Value};
use super::script::{DUMP_ANEW, Script, show};

use super::statement_shapes;
use super::token_list::{closing, split, word_of};

/// The rule of a statement for rows whose id is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnDouble {
    /// The database refuses the statement.
    Refuse,
    /// The first row counts.
    Ignore,
    /// The later row counts.
    Replace,
    /// Columns of the first row change.
    Update([Assigned; WIDTH]),
    /// Only the database can tell.
    Unclear,
}

/// The new value of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Assigned {
    /// The old one.
    #[default]
    Kept,
    /// That of a column of the new row.
    FromRow(usize),
    Literal(Option<String>),
}

/// Rows of one statement whose id is taken, until the rule at its end is known.
#[derive(Default)]
pub struct PendingRows {
    rows: Vec<PendingRow>,
    /// Where the first of them is.
    first: Option<Position>,
    size: usize,
}

struct PendingRow {
    place: RowPlace,
    values: [Option<String>; WIDTH],
    origin: RowOrigin,
}

/// Bytes of pending rows.
const MAX_PENDING: usize = 128 << 20;

impl PendingRows {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn push(
        &mut self,
        stream: &Stream<'_>,
        place: RowPlace,
        row: &SourceRow<'_>,
        origin: RowOrigin,
    ) -> Result<(), SourceError> {
        self.first.get_or_insert_with(|| stream.position(0));
        let values: [Option<String>; WIDTH] =
            std::array::from_fn(|slot| row[slot].as_ref().map(|value| value.clone().into_owned()));
        self.size += size_of::<PendingRow>() + values.iter().flatten().map(String::len).sum::<usize>();
        if self.size > MAX_PENDING {
            return Err(stream.broken(0, "too many rows of one statement have an id that is taken"));
        }
        self.rows.push(PendingRow { place, values, origin });
        Ok(())
    }

    /// The error of a statement without a rule for such rows.
    pub fn refuse_all(self, role: Role) -> Result<(), SourceError> {
        let (Some(at), Some(row)) = (self.first, self.rows.first()) else { return Ok(()) };
        let id = row.values[0].as_deref().unwrap_or_default();
        Err(SourceError::Broken {
            at,
            detail: format!(
                "a second row of {role} has the id {id}, which is a key; the first is at byte {}",
                row.place.offset
            ),
        })
    }
}

impl Script<'_, '_> {
    /// Reads what follows the rows of an INSERT.
    pub fn clause(&mut self, plan: &RowPlan) -> Result<OnDouble, SourceError> {
        if !self.lexer.peek()?.is_any(&["ON", "AS", "RETURNING"]) {
            return Err(self.bad_clause());
        }
        let tokens = self.collect_statement()?;
        if !statement_shapes::is_insert_clause(self.dialect(), &tokens) {
            self.odd("what follows a row")?;
        }
        let mut rest = tokens.as_slice();
        // MySQL: VALUES (...) AS new(a, b) ON DUPLICATE KEY UPDATE.
        let mut alias = None;
        let mut alias_columns = Vec::new();
        if rest.first().is_some_and(|token| token.is("AS")) {
            alias = rest.get(1).and_then(word_of);
            rest = rest.get(2..).unwrap_or_default();
            if rest.first() == Some(&Token::Symbol(b'(')) {
                let end = closing(rest, 0);
                alias_columns = rest[1..end].iter().filter_map(word_of).collect();
                rest = rest.get(end + 1..).unwrap_or_default();
            }
        }
        let is = |at: usize, word: &str| rest.get(at).is_some_and(|token| token.is(word));
        if rest.is_empty() || is(0, "RETURNING") {
            return Ok(OnDouble::Refuse);
        }
        if is(0, "ON") && is(1, "DUPLICATE") && is(2, "KEY") && is(3, "UPDATE") {
            let alias = Alias { row: alias.as_deref(), columns: &alias_columns };
            return Ok(assignments(plan, &rest[4..], &alias, self.lexer.syntax.backslashes));
        }
        if is(0, "ON") && is(1, "CONFLICT") {
            let mut at = 2;
            let mut on_id = true;
            if rest.get(at) == Some(&Token::Symbol(b'(')) {
                let end = closing(rest, at);
                let target: Vec<String> = rest[at + 1..end].iter().filter_map(word_of).collect();
                on_id = self.catalog.is_id_key(plan.columns.role, &target);
                at = end + 1;
            } else if is(at, "ON") && is(at + 1, "CONSTRAINT") {
                at += 3;
            }
            if is(at, "WHERE") {
                return Ok(OnDouble::Unclear);
            }
            if !is(at, "DO") {
                return Err(self.lexer.broken("ON CONFLICT says not what to do"));
            }
            return Ok(match rest.get(at + 1) {
                _ if !on_id => OnDouble::Unclear,
                Some(token) if token.is("NOTHING") => OnDouble::Ignore,
                Some(token) if token.is("UPDATE") && is(at + 2, "SET") => {
                    let alias = Alias { row: Some("excluded"), columns: &[] };
                    assignments(plan, &rest[at + 3..], &alias, false)
                }
                _ => OnDouble::Unclear,
            });
        }
        Err(self.lexer.broken(format!("a row is followed by {}, not by `,` or `;`", show(&rest[0]))))
    }

    /// Applies the rule of a statement to its rows whose id is taken.
    pub fn resolve(&mut self, plan: &RowPlan, pending: PendingRows, rule: OnDouble) -> Result<(), SourceError> {
        let role = plan.columns.role;
        let changes = match rule {
            OnDouble::Refuse => return pending.refuse_all(role),
            OnDouble::Ignore => return Ok(()),
            OnDouble::Replace => {
                for PendingRow { place, values, origin } in pending.rows {
                    let row: SourceRow<'_> = values.map(|value| value.map(Into::into));
                    self.builder.replace(role, place, &row, origin)?;
                }
                return Ok(());
            }
            OnDouble::Unclear if pending.is_empty() => return Ok(()),
            OnDouble::Unclear => None,
            OnDouble::Update(changes) => Some(changes),
        };
        for PendingRow { place, values, .. } in pending.rows {
            let Some(assigned) = &changes else {
                return Err(self.unclear_double(role, &values));
            };
            let changes: RowChanges = std::array::from_fn(|slot| match &assigned[slot] {
                Assigned::Kept => None,
                Assigned::FromRow(from) => Some(values[*from].clone()),
                Assigned::Literal(value) => Some(value.clone()),
            });
            if changes[0].as_ref().is_some_and(|id| *id != values[0]) || !self.builder.update(role, place, changes) {
                return Err(self.unclear_double(role, &values));
            }
        }
        Ok(())
    }

    fn unclear_double(&self, role: Role, values: &[Option<String>; WIDTH]) -> SourceError {
        let id = values[0].as_deref().unwrap_or_default();
        self.refused(format!(
            "{role} has the id {id} twice, and only the database can tell what the statement makes of them; {DUMP_ANEW}"
        ))
    }

    /// Notes the values of the table's other keys. They must not come twice: the database refuses a plain statement, and
    /// only it can tell what another one makes of the rows. `plain`: equal values count only if they are written alike.
    pub fn check_other_keys(
        &mut self,
        plan: &RowPlan,
        values: &[Value],
        rules: RowScanner,
        plain: bool,
    ) -> Result<(), SourceError> {
        let text = self.lexer.stream.window();
        let role = plan.columns.role;
        for (number, key) in plan.other_keys.iter().enumerate() {
            let mut written: Vec<u8> = plan.part.to_le_bytes().to_vec();
            let mut null = false;
            for index in key {
                let value = &values[*index];
                null |= rules.is_null(*value);
                written.extend(&text[value.start..value.end]);
                written.push(0);
            }
            if null {
                continue;
            }
            let folded = written.to_ascii_lowercase().into_iter().filter(|byte| *byte != b' ').collect::<Vec<u8>>();
            let exact = self.builder.note_key(role, (number, true), &written);
            let loose = self.builder.note_key(role, (number, false), &folded);
            if !exact || (!loose && !plain) {
                return Err(self.refused(format!(
                    "two rows of {role} are equal in a key other than the id, and only the database can tell what it \
                     makes of them; {DUMP_ANEW}"
                )));
            }
        }
        Ok(())
    }
}

/// The name of the new row in assignments.
struct Alias<'a> {
    row: Option<&'a str>,
    /// New names of its columns, in their order.
    columns: &'a [String],
}

/// Reads `a = VALUES(a), b = excluded.b, c = 'x'`.
fn assignments(plan: &RowPlan, tokens: &[Token], alias: &Alias<'_>, backslashes: bool) -> OnDouble {
    let mut assigned: [Assigned; WIDTH] = Default::default();
    let slot_of = |name: &str| plan.slot_names.iter().position(|known| known.eq_ignore_ascii_case(name));
    for part in split(tokens) {
        let Some(equals) = part.iter().position(|token| *token == Token::Symbol(b'=')) else {
            return OnDouble::Unclear;
        };
        let Some(target) = equals.checked_sub(1).and_then(|at| word_of(&part[at])) else { return OnDouble::Unclear };
        // Columns that the query does not read do not matter.
        let Some(slot) = slot_of(&target) else {
            if part.iter().any(|token| token.is_any(&["WHERE", "RETURNING"])) {
                return OnDouble::Unclear;
            }
            continue;
        };
        let from = |name: &str| slot_of(name).map(Assigned::FromRow);
        let value = match &part[equals + 1..] {
            [function, Token::Symbol(b'('), column, Token::Symbol(b')')] if function.is_any(&["VALUES", "VALUE"]) => {
                word_of(column).and_then(|name| from(&name))
            }
            [Token::Word(row) | Token::Name(row), Token::Symbol(b'.'), column]
                if alias.row.is_some_and(|alias| row.eq_ignore_ascii_case(alias)) =>
            {
                word_of(column).and_then(|name| match alias.columns.iter().position(|own| *own == name) {
                    Some(at) => plan.columns.indices.iter().position(|index| *index == Some(at)).map(Assigned::FromRow),
                    None => from(&name),
                })
            }
            [Token::Text(text)] if !backslashes || !text.contains(&b'\\') => {
                String::from_utf8(text.clone()).ok().map(|text| Assigned::Literal(Some(text)))
            }
            [Token::Word(word)] if word.eq_ignore_ascii_case("NULL") => Some(Assigned::Literal(None)),
            [Token::Word(word)] if word.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Assigned::Literal(Some(word.clone())))
            }
            [Token::Word(word) | Token::Name(word)] if word.eq_ignore_ascii_case(&target) => Some(Assigned::Kept),
            _ => None,
        };
        match value {
            Some(value) => assigned[slot] = value,
            None => return OnDouble::Unclear,
        }
    }
    OnDouble::Update(assigned)
}
