//! The fields of all faces in memory, column by column.
//!
//! A million faces take about 120 MB. A condition is evaluated for 64 rows at a time into a bitmap; `and`, `or` and `not`
//! combine bitmaps.

use std::collections::HashMap;

use super::face::{FIELDS, Face, Number, Text};
use super::query::{Field, Operator, Query, Value};
use crate::domain::Id;

/// A set of rows: one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows(Vec<u64>);

impl Rows {
    fn none(rows: usize) -> Self {
        Self(vec![0; rows.div_ceil(64)])
    }

    fn fill(rows: usize, mut holds: impl FnMut(usize) -> bool) -> Self {
        let mut set = Self::none(rows);
        for (index, word) in set.0.iter_mut().enumerate() {
            let first = 64 * index;
            for bit in 0..64.min(rows - first) {
                *word |= u64::from(holds(first + bit)) << bit;
            }
        }
        set
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < 64).then(|| 64 * index + bit as usize)
            })
        })
    }

    fn combine(mut self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word = with(*word, *other));
        self
    }
}

/// A column of texts: each distinct text once, and its number in each row.
#[derive(Debug, Default)]
pub struct TextColumn {
    values: Vec<String>,
    numbers: HashMap<String, u32>,
    rows: Vec<u32>,
}

impl TextColumn {
    const NULL: u32 = u32::MAX;

    fn number(&mut self, text: Option<String>) -> u32 {
        let Some(text) = text else { return Self::NULL };
        if let Some(&number) = self.numbers.get(&text) {
            return number;
        }
        let number = self.values.len() as u32;
        self.values.push(text.clone());
        self.numbers.insert(text, number);
        number
    }

    pub fn get(&self, row: usize) -> Option<&str> {
        self.values.get(self.rows[row] as usize).map(String::as_str)
    }

    /// The rows whose text fulfils the condition, which is evaluated once for each distinct text.
    fn matching(&self, holds: impl Fn(Option<&str>) -> bool) -> Rows {
        let known: Vec<bool> = self.values.iter().map(|value| holds(Some(value))).collect();
        let null = holds(None);
        Rows::fill(self.rows.len(), |row| known.get(self.rows[row] as usize).copied().unwrap_or(null))
    }
}

/// All faces. A row that was removed stays until the columns are read again; it is in no result.
#[derive(Debug, Default)]
pub struct Columns {
    /// The row's key in the file, ascending.
    keys: Vec<i64>,
    ids: Vec<Id>,
    numbers: [Vec<f32>; Number::ALL.len()],
    texts: [TextColumn; Text::ALL.len()],
    /// Seconds since 1970 when the photo was published; `i64::MIN` if unknown.
    published: Vec<i64>,
    removed: Vec<bool>,
    by_id: HashMap<Id, usize>,
}

/// What the columns keep of a face.
pub struct ColumnValues {
    pub id: Id,
    pub numbers: [f32; Number::ALL.len()],
    pub texts: [Option<String>; Text::ALL.len()],
    pub published: Option<i64>,
}

impl ColumnValues {
    pub fn of(face: &Face, published: Option<i64>) -> Self {
        Self {
            id: face.photo_id.clone(),
            numbers: Number::ALL.map(|number| number.of(face)),
            texts: Text::ALL.map(|text| text.of(face)),
            published,
        }
    }
}

impl Columns {
    /// Adds a face in place of an earlier one of the same photo. Keys must ascend.
    pub fn upsert(&mut self, key: i64, values: ColumnValues) {
        self.remove(&values.id);
        let row = self.keys.len();
        self.by_id.insert(values.id.clone(), row);
        self.keys.push(key);
        self.ids.push(values.id);
        self.published.push(values.published.unwrap_or(i64::MIN));
        self.removed.push(false);
        self.numbers.iter_mut().zip(values.numbers).for_each(|(column, value)| column.push(value));
        for (column, text) in self.texts.iter_mut().zip(values.texts) {
            let number = column.number(text);
            column.rows.push(number);
        }
    }

    pub fn remove(&mut self, id: &Id) {
        if let Some(row) = self.by_id.remove(id) {
            self.removed[row] = true;
        }
    }

    pub fn key(&self, row: usize) -> i64 {
        self.keys[row]
    }

    pub fn id(&self, row: usize) -> &Id {
        &self.ids[row]
    }

    pub fn number(&self, number: Number, row: usize) -> f32 {
        self.numbers[number as usize][row]
    }

    pub fn text(&self, text: Text) -> &TextColumn {
        &self.texts[text as usize]
    }

    pub fn published(&self, row: usize) -> i64 {
        self.published[row]
    }

    /// The faces that fulfil a query over [`FIELDS`]. `threshold`: from which P(OK) on a face is `ok`.
    pub fn matching(&self, query: &Query, threshold: f64) -> Rows {
        let rows = self.evaluate(query, threshold as f32);
        rows.combine(&Rows::fill(self.keys.len(), |row| !self.removed[row]), |a, b| a & b)
    }

    fn evaluate(&self, query: &Query, threshold: f32) -> Rows {
        let rows = self.keys.len();
        match query {
            Query::And(all) => all.iter().fold(Rows::fill(rows, |_| true), |set, query| {
                set.combine(&self.evaluate(query, threshold), |a, b| a & b)
            }),
            Query::Or(any) => any
                .iter()
                .fold(Rows::none(rows), |set, query| set.combine(&self.evaluate(query, threshold), |a, b| a | b)),
            Query::Not(query) => {
                // Bits beyond the last row are set, too: `matching` clears them.
                let set = self.evaluate(query, threshold);
                set.combine(&Rows::none(rows), |a, _| !a)
            }
            Query::Compare(field, operator, value) => self.compare(field, *operator, value, threshold),
            Query::In(field, values) => values.iter().fold(Rows::none(rows), |set, value| {
                set.combine(&self.compare(field, Operator::Equal, value, threshold), |a, b| a | b)
            }),
            Query::Contains(field, text) => {
                let text = text.to_lowercase();
                match self.text_column(field) {
                    Some(column) => {
                        column.matching(|value| value.is_some_and(|value| value.to_lowercase().contains(&text)))
                    }
                    None => Rows::fill(rows, |row| self.ids[row].as_str().to_lowercase().contains(&text)),
                }
            }
            Query::IsNull(field) => match self.text_column(field) {
                Some(column) => column.matching(|value| value.is_none()),
                None => Rows::none(rows),
            },
        }
    }

    fn compare(&self, field: &'static Field, operator: Operator, value: &Value, threshold: f32) -> Rows {
        let rows = self.keys.len();
        match value {
            Value::Number(number) => {
                let position = FIELDS.iter().position(|other| other.name == field.name);
                let Some(column) = position.and_then(|at| self.numbers.get(at)) else { return Rows::none(rows) };
                // Columns are in single precision, and so is the literal: p_ok=0.9 finds what was written as 0.9.
                let number = *number as f32;
                Rows::fill(rows, |row| operator.holds(column[row], number))
            }
            Value::Flag(flag) => {
                let p_ok = &self.numbers[Number::POk as usize];
                Rows::fill(rows, |row| operator.holds(p_ok[row] >= threshold, *flag))
            }
            Value::Text(text) => match self.text_column(field) {
                Some(column) => {
                    column.matching(|value| value.is_some_and(|value| operator.holds(value, text.as_str())))
                }
                None => {
                    let id = Id::from(text.as_str());
                    Rows::fill(rows, |row| operator.holds(&self.ids[row], &id))
                }
            },
        }
    }

    fn text_column(&self, field: &Field) -> Option<&TextColumn> {
        Text::ALL.into_iter().find(|text| text.field().name == field.name).map(|text| self.text(text))
    }
}
