//! The fields of all faces in memory, column by column.
//!
//! A million faces take about 120 MB. A condition is evaluated for 64 rows at a time into a bitmap; `and`, `or` and `not`
//! combine bitmaps.

use std::collections::HashMap;

use super::face::{Face, Number, Text};
use super::query::{Field, FieldType, Operator, Query, Value};
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

    /// How many of the rows have each text that one of them has; none stands for no text.
    pub fn count(&self, rows: &Rows) -> Vec<(Option<&str>, u64)> {
        let mut counts = vec![0; self.values.len() + 1];
        let no_text = self.values.len();
        for row in rows.iter() {
            counts[(self.rows[row] as usize).min(no_text)] += 1;
        }
        let counts = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        counts.map(|(number, count)| (self.values.get(number).map(String::as_str), count)).collect()
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

    /// Sets the prediction of the face with this key, if it is still there.
    pub fn set_prediction(&mut self, key: i64, p_ok: f64, model: &str) {
        if let Ok(row) = self.keys.binary_search(&key) {
            self.numbers[Number::POk as usize][row] = p_ok as f32;
            let column = &mut self.texts[Text::Model as usize];
            column.rows[row] = column.number(Some(model.to_owned()));
        }
    }

    /// Takes the predictions of all faces away.
    pub fn clear_predictions(&mut self) {
        self.numbers[Number::POk as usize].fill(f32::NAN);
        self.texts[Text::Model as usize].rows.fill(TextColumn::NULL);
    }

    /// The keys of the faces without a prediction.
    pub fn unscored(&self) -> impl Iterator<Item = i64> + '_ {
        let p_ok = &self.numbers[Number::POk as usize];
        (0..self.keys.len()).filter(|row| !self.removed[*row] && p_ok[*row].is_nan()).map(|row| self.keys[row])
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
                None => match self.number_column(field) {
                    Some(column) => Rows::fill(rows, |row| column[row].is_nan()),
                    None => Rows::none(rows),
                },
            },
        }
    }

    fn compare(&self, field: &'static Field, operator: Operator, value: &Value, threshold: f32) -> Rows {
        let rows = self.keys.len();
        match value {
            Value::Number(number) => {
                let Some(column) = self.number_column(field) else { return Rows::none(rows) };
                // Columns are in single precision, and so is the literal: p_ok=0.9 finds what was written as 0.9.
                let number = *number as f32;
                match operator {
                    // The only comparison that is true of NaN, which stands for no value.
                    Operator::NotEqual => Rows::fill(rows, |row| column[row] != number && !column[row].is_nan()),
                    _ => Rows::fill(rows, |row| operator.holds(column[row], number)),
                }
            }
            Value::Flag(flag) => {
                let p_ok = &self.numbers[Number::POk as usize];
                match operator.holds(true, *flag) {
                    true => Rows::fill(rows, |row| p_ok[row] >= threshold),
                    false => Rows::fill(rows, |row| p_ok[row] < threshold),
                }
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

    /// The numbers of a field, or those that the field is derived from; NaN stands for no value.
    fn number_column(&self, field: &Field) -> Option<&[f32]> {
        let has_name = |number: &Number| number.field().name == field.name;
        match field.kind {
            FieldType::Flag => Some(Number::POk),
            _ => Number::ALL.into_iter().find(has_name),
        }
        .map(|number| self.numbers[number as usize].as_slice())
    }

    fn text_column(&self, field: &Field) -> Option<&TextColumn> {
        Text::ALL.into_iter().find(|text| text.field().name == field.name).map(|text| self.text(text))
    }
}
