//! The fields of all faces in memory, column by column.
//!
//! A million faces take about 220 MB. A condition is evaluated for 64 rows at a time into a bitmap, only where the
//! conditions before it leave rows.

use std::cell::OnceCell;
use std::collections::HashMap;

use memchr::memmem::Finder;

use super::face::{DUPLICATE, Face, FaceStatus, FaceVerdict, Number, PIXELS, PLACEHOLDER, STATUS, Text, WRONG_PERSON};
use super::group_place::GroupPlace;
use super::placeholder::Placeholder;
use super::query::{Field, FieldType, Operator, Query, Value};
use super::suggested::SuggestedOrders;
use super::wrong_person::{LabelledFace, WrongPerson, wrong_persons};
use crate::domain::{ContentHash, Id, Judgement};

/// A set of rows: one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(Vec<u64>);

impl Rows {
    /// Words with fewer rows than this are evaluated row by row.
    const FEW: u32 = 12;

    /// The set without rows, of the same capacity.
    fn none(&self) -> Self {
        Self(vec![0; self.0.len()])
    }

    pub fn insert(&mut self, row: usize) {
        if row / 64 >= self.0.len() {
            self.0.resize(row / 64 + 1, 0);
        }
        self.0[row / 64] |= 1 << (row % 64);
    }

    fn remove(&mut self, row: usize) {
        self.0[row / 64] &= !(1 << (row % 64));
    }

    /// Removes a row that may lie beyond the end of the set.
    pub fn remove_if_there(&mut self, row: usize) {
        if self.contains(row) {
            self.remove(row);
        }
    }

    pub fn contains(&self, row: usize) -> bool {
        self.0.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// The rows of this set that are also in the other one.
    pub fn and(mut self, other: &Self) -> Self {
        self.0.truncate(other.0.len());
        self.combine(other, |a, b| a & b)
    }

    /// The rows of this set that are not in the other one.
    pub fn minus(self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// The row that `before` other rows of the set precede.
    pub fn nth(&self, before: u64) -> Option<usize> {
        let mut left = before;
        for (index, &word) in self.0.iter().enumerate() {
            match u64::from(word.count_ones()) {
                count if count <= left => left -= count,
                _ => return bits(word).nth(left as usize).map(|bit| 64 * index + bit),
            }
        }
        None
    }

    /// The rows of the set whose value fulfils the condition.
    fn select<T>(&self, values: &[T], holds: impl Fn(&T) -> bool) -> Self {
        let words = self.0.iter().zip(values.chunks(64)).map(|(&rows, values)| {
            if rows == 0 {
                return 0;
            }
            let mut found = 0;
            if rows.count_ones() < Self::FEW {
                bits(rows).for_each(|bit| found |= u64::from(holds(&values[bit])) << bit);
                return found;
            }
            for (bit, value) in values.iter().enumerate() {
                found |= u64::from(holds(value)) << bit;
            }
            found & rows
        });
        Self(words.collect())
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| bits(word).map(move |bit| 64 * index + bit))
    }

    /// Visits the rows in order; faster than [`Rows::iter`].
    pub fn each(&self, mut visit: impl FnMut(usize)) {
        for (index, &word) in self.0.iter().enumerate() {
            match word {
                u64::MAX => (64 * index..64 * (index + 1)).for_each(&mut visit),
                _ => bits(word).for_each(|bit| visit(64 * index + bit)),
            }
        }
    }

    fn combine(mut self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word = with(*word, *other));
        self
    }
}

/// The positions of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
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

    /// The text of a row.
    pub fn value(&self, row: usize) -> Option<&str> {
        self.values.get(self.rows[row] as usize).map(String::as_str)
    }

    /// How many of the rows have each text that one of them has; none stands for no text.
    pub fn count(&self, rows: &Rows) -> Vec<(Option<&str>, u64)> {
        let mut counts = vec![0; self.values.len() + 1];
        let no_text = self.values.len();
        rows.each(|row| counts[(self.rows[row] as usize).min(no_text)] += 1);
        let counts = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        counts.map(|(number, count)| (self.values.get(number).map(String::as_str), count)).collect()
    }

    /// The rows of `within` whose text fulfils the condition, which is evaluated once for each distinct text.
    fn matching(&self, within: &Rows, holds: impl Fn(Option<&str>) -> bool) -> Rows {
        let mut known: Vec<bool> = self.values.iter().map(|value| holds(Some(value))).collect();
        known.push(holds(None));
        let null = self.values.len();
        within.select(&self.rows, |number| known[(*number as usize).min(null)])
    }
}

/// The ids of all rows in lower case, one after the other.
#[derive(Debug, Default)]
struct LowerIds {
    text: Vec<u8>,
    /// Where the id of each row ends.
    ends: Vec<usize>,
}

impl LowerIds {
    fn push(&mut self, id: &Id) {
        match id.as_str().is_ascii() {
            true => self.text.extend(id.as_str().bytes().map(|byte| byte.to_ascii_lowercase())),
            false => self.text.extend(id.as_str().to_lowercase().bytes()),
        }
        self.ends.push(self.text.len());
    }

    /// The rows of `within` whose id contains the text.
    fn containing(&self, within: &Rows, text: &str) -> Rows {
        if text.is_empty() {
            return within.clone();
        }
        let text = text.to_lowercase();
        let finder = Finder::new(&text);
        let mut found = within.none();
        let (mut row, mut from) = (0, 0);
        while let Some(at) = finder.find(&self.text[from..]) {
            let at = from + at;
            while self.ends.get(row).is_some_and(|end| *end <= at) {
                row += 1;
            }
            let Some(&end) = self.ends.get(row) else { break };
            // A match may also lie across two ids.
            if at + text.len() <= end {
                if within.contains(row) {
                    found.insert(row);
                }
                from = end;
            } else {
                from = at + 1;
            }
        }
        found
    }
}

/// All faces. A row that was removed stays until the columns are read again; it is in no result.
#[derive(Debug, Default)]
pub struct Columns {
    /// The row's key in the file, ascending.
    keys: Vec<i64>,
    ids: Vec<Id>,
    /// The results of [`id_rank`].
    id_ranks: Vec<u64>,
    numbers: [Vec<f32>; Number::ALL.len()],
    texts: [TextColumn; Text::ALL.len()],
    /// Seconds since 1970 when the photo was published; `i64::MIN` if unknown.
    published: Vec<i64>,
    pixels: Vec<Option<ContentHash>>,
    /// The groups of duplicates.
    groups: Vec<Option<GroupPlace>>,
    /// The rows that were not removed.
    present: Rows,
    lower_ids: LowerIds,
    by_id: HashMap<Id, usize>,
    /// Counted when it is asked for, and forgotten when faces or identities change.
    wrong_persons: OnceCell<Vec<WrongPerson>>,
    pub suggested: SuggestedOrders,
}

/// What the columns keep of a face.
pub struct ColumnValues {
    pub id: Id,
    pub numbers: [f32; Number::ALL.len()],
    pub texts: [Option<String>; Text::ALL.len()],
    pub published: Option<i64>,
    /// Of the crop's pixels.
    pub pixels: Option<ContentHash>,
    /// The group of duplicates of the crop.
    pub group: Option<GroupPlace>,
}

impl ColumnValues {
    pub fn of(face: &Face, published: Option<i64>) -> Self {
        Self {
            id: face.photo_id.clone(),
            numbers: Number::ALL.map(|number| number.of(face)),
            texts: Text::ALL.map(|text| text.of(face)),
            published,
            pixels: face.quality.as_ref().map(|quality| quality.pixels),
            group: None,
        }
    }
}

impl Columns {
    /// Adds a face in place of an earlier one of the same photo. Keys must ascend.
    pub fn upsert(&mut self, key: i64, values: ColumnValues) {
        self.remove(&values.id);
        self.wrong_persons.take();
        let row = self.keys.len();
        self.by_id.insert(values.id.clone(), row);
        self.keys.push(key);
        self.lower_ids.push(&values.id);
        self.id_ranks.push(id_rank(&values.id));
        self.ids.push(values.id);
        self.published.push(values.published.unwrap_or(i64::MIN));
        self.pixels.push(values.pixels);
        self.groups.push(values.group);
        self.present.insert(row);
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

    /// Sets the numbers of photos and labels that share the original of the faces with these keys.
    pub fn set_shared(&mut self, keys: &[i64], photos: u32, labels: u32) {
        for row in keys.iter().filter_map(|key| self.keys.binary_search(key).ok()) {
            self.numbers[Number::SharedPhotos as usize][row] = photos as f32;
            self.numbers[Number::SharedLabels as usize][row] = labels as f32;
        }
    }

    /// Sets the groups of duplicates: faces by their keys. All others are in none.
    pub fn set_groups(&mut self, groups: &[(i64, Option<GroupPlace>)]) {
        self.groups.fill(None);
        for (key, group) in groups {
            if let Ok(row) = self.keys.binary_search(key) {
                self.groups[row] = *group;
            }
        }
    }

    /// The group of duplicates that a row is in.
    pub fn group(&self, row: usize) -> Option<GroupPlace> {
        self.groups[row]
    }

    /// The rows of `within` that are not the best of their group in `within`. Of faces with one crop, the first is best.
    pub fn duplicates_among(&self, within: &Rows) -> Rows {
        let mut found = within.select(&self.groups, Option::is_some);
        let place = |row: usize| self.groups[row].map_or((0, 0), |place| (place.group as usize, place.place));
        // The best place and row of each group; groups are numbered from 0.
        let mut best: Vec<(u32, usize)> = Vec::new();
        found.each(|row| {
            let (group, place) = place(row);
            if group >= best.len() {
                best.resize(group + 1, (u32::MAX, usize::MAX));
            }
            best[group] = best[group].min((place, row));
        });
        for (_, row) in best {
            found.remove_if_there(row);
        }
        found
    }

    /// Sets the identities: faces by their keys. All others have none.
    pub fn set_identities(&mut self, identities: &[(i64, u32)]) {
        self.wrong_persons.take();
        let column = &mut self.numbers[Number::Identity as usize];
        column.fill(f32::NAN);
        for (key, identity) in identities {
            if let Ok(row) = self.keys.binary_search(key) {
                column[row] = *identity as f32;
            }
        }
    }

    /// The number of a row's label: that of its name, or that of its id without one. Numbers of ids are odd.
    pub fn label(&self, row: usize) -> u64 {
        let names = self.text(Text::Label);
        let name = names.values.get(names.rows[row] as usize).filter(|name| !name.is_empty());
        match name {
            Some(_) => 2 * u64::from(names.rows[row]),
            None => 2 * u64::from(self.text(Text::LabelId).rows[row]) + 1,
        }
    }

    /// The name of the label with this number, or its id.
    pub fn label_name(&self, label: u64) -> &str {
        let column = self.text(if label.is_multiple_of(2) { Text::Label } else { Text::LabelId });
        column.values.get((label / 2) as usize).map_or("", String::as_str)
    }

    /// The faces that are in an identity and have a label.
    pub fn labelled_faces(&self) -> Vec<LabelledFace> {
        let identities = &self.numbers[Number::Identity as usize];
        let mut faces = Vec::new();
        self.present.each(|row| {
            let label = self.label(row);
            if !identities[row].is_nan() && !self.label_name(label).is_empty() {
                faces.push(LabelledFace { row, identity: identities[row] as u32, label });
            }
        });
        faces
    }

    /// The faces whose label disagrees with their look.
    pub fn wrong_persons(&self) -> &[WrongPerson] {
        self.wrong_persons.get_or_init(|| wrong_persons(&self.labelled_faces()))
    }

    /// Sets what people said about the face with this key, if it is still there.
    pub fn set_verdict(&mut self, key: i64, verdict: Option<&FaceVerdict>) {
        let Ok(row) = self.keys.binary_search(&key) else { return };
        let texts = [
            (Text::Verdict, verdict.map(|verdict| verdict.judgement.to_string())),
            (Text::Reason, verdict.and_then(|verdict| verdict.reason).map(|reason| reason.to_string())),
            (Text::JudgedBy, verdict.map(|verdict| verdict.by.clone())),
            (Text::JudgedAt, verdict.map(|verdict| verdict.day.clone())),
        ];
        for (text, value) in texts {
            let column = &mut self.texts[text as usize];
            column.rows[row] = column.number(value);
        }
    }

    /// All faces.
    pub fn present(&self) -> &Rows {
        &self.present
    }

    /// The row of the face with this key, if it is still there.
    pub fn row(&self, key: i64) -> Option<usize> {
        self.keys.binary_search(&key).ok().filter(|row| self.present.contains(*row))
    }

    /// The rows of `within` that people have judged.
    pub fn judged(&self, within: &Rows) -> Rows {
        within
            .clone()
            .and(&self.present)
            .select(&self.texts[Text::Verdict as usize].rows, |number| *number != TextColumn::NULL)
    }

    /// The rows of `within` whose last verdict is another person's.
    pub fn judged_by_others(&self, within: &Rows, person: &str) -> Rows {
        let column = &self.texts[Text::JudgedBy as usize];
        let own = column.numbers.get(person).copied().unwrap_or(TextColumn::NULL);
        within.select(&column.rows, |number| *number != TextColumn::NULL && *number != own)
    }

    /// The status of each row of `within`.
    pub fn each_status(&self, within: &Rows, threshold: f32, mut visit: impl FnMut(usize, FaceStatus)) {
        let verdicts = &self.texts[Text::Verdict as usize];
        let judgements: Vec<Option<Judgement>> = verdicts.values.iter().map(|value| value.parse().ok()).collect();
        let p_ok = &self.numbers[Number::POk as usize];
        within.each(|row| {
            let judgement = judgements.get(verdicts.rows[row] as usize).copied().flatten();
            let p_ok = Some(f64::from(p_ok[row])).filter(|p_ok| !p_ok.is_nan());
            visit(row, FaceStatus::of(judgement, p_ok, f64::from(threshold)));
        });
    }

    /// The rows of `within` whose status fulfils the condition.
    fn with_status(&self, within: &Rows, threshold: f32, holds: impl Fn(&str) -> bool) -> Rows {
        let wanted = FaceStatus::ALL.map(|status| holds(status.as_str()));
        let mut found = within.none();
        self.each_status(within, threshold, |row, status| {
            if wanted[status as usize] {
                found.insert(row);
            }
        });
        found
    }

    /// Takes the predictions of all faces away.
    pub fn clear_predictions(&mut self) {
        self.numbers[Number::POk as usize].fill(f32::NAN);
        self.texts[Text::Model as usize].rows.fill(TextColumn::NULL);
    }

    /// The keys of the faces without a prediction.
    pub fn unscored(&self) -> impl Iterator<Item = i64> + '_ {
        let p_ok = &self.numbers[Number::POk as usize];
        self.present.iter().filter(|row| p_ok[*row].is_nan()).map(|row| self.keys[row])
    }

    pub fn remove(&mut self, id: &Id) {
        if let Some(row) = self.by_id.remove(id) {
            self.present.remove(row);
            self.wrong_persons.take();
        }
    }

    /// The row of a photo's face.
    pub fn row_of(&self, id: &Id) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub fn key(&self, row: usize) -> i64 {
        self.keys[row]
    }

    pub fn id(&self, row: usize) -> &Id {
        &self.ids[row]
    }

    /// A number in the order of the ids; different ids may share it.
    pub fn id_rank(&self, row: usize) -> u64 {
        self.id_ranks[row]
    }

    pub fn number(&self, number: Number, row: usize) -> f32 {
        self.numbers[number as usize][row]
    }

    pub fn text(&self, text: Text) -> &TextColumn {
        &self.texts[text as usize]
    }

    /// Whether the crop has quality numbers.
    pub fn is_measured(&self, row: usize) -> bool {
        self.pixels[row].is_some()
    }

    pub fn published(&self, row: usize) -> i64 {
        self.published[row]
    }

    /// The faces that fulfil a query over [`super::face::FIELDS`]. `threshold`: from which P(OK) on a face is `ok`.
    pub fn matching(&self, query: &Query, threshold: f64) -> Rows {
        self.evaluate(query, &self.present, threshold as f32)
    }

    /// The rows of `within` that fulfil the query.
    fn evaluate(&self, query: &Query, within: &Rows, threshold: f32) -> Rows {
        match query {
            Query::And(all) => all.iter().fold(within.clone(), |left, query| self.evaluate(query, &left, threshold)),
            Query::Or(any) => {
                let (mut found, mut left) = (within.none(), within.clone());
                for query in any {
                    let more = self.evaluate(query, &left, threshold);
                    found = found.combine(&more, |a, b| a | b);
                    left = left.combine(&more, |a, b| a & !b);
                }
                found
            }
            Query::Not(query) => within.clone().combine(&self.evaluate(query, within, threshold), |a, b| a & !b),
            Query::Compare(field, operator, Value::Text(text)) if field.name == STATUS.name => {
                self.with_status(within, threshold, |status| operator.holds(status, text.as_str()))
            }
            Query::In(field, values) if field.name == STATUS.name => {
                let words: Vec<&str> = values.iter().filter_map(Value::text).collect();
                self.with_status(within, threshold, |status| words.contains(&status))
            }
            Query::Contains(field, text) if field.name == STATUS.name => {
                self.with_status(within, threshold, |status| status.contains(&text.to_lowercase()))
            }
            Query::Compare(field, operator, Value::Text(text)) if field.name == PIXELS => {
                self.with_pixels(within, |pixels| operator.holds(pixels, text.as_str()))
            }
            Query::In(field, values) if field.name == PIXELS => {
                let texts: Vec<&str> = values.iter().filter_map(Value::text).collect();
                self.with_pixels(within, |pixels| texts.contains(&pixels))
            }
            Query::Contains(field, text) if field.name == PIXELS => {
                self.with_pixels(within, |pixels| pixels.contains(&text.to_lowercase()))
            }
            Query::IsNull(field) if field.name == PIXELS => within.select(&self.pixels, Option::is_none),
            Query::Compare(field, operator, value) => self.compare(field, *operator, value, within, threshold),
            Query::In(field, values) => match self.text_column(field) {
                Some(column) => {
                    let texts: Vec<&str> = values.iter().filter_map(Value::text).collect();
                    column.matching(within, |value| value.is_some_and(|value| texts.contains(&value)))
                }
                None => {
                    let equal = |value| Query::Compare(field, Operator::Equal, value);
                    self.evaluate(&Query::Or(values.iter().cloned().map(equal).collect()), within, threshold)
                }
            },
            Query::Contains(field, text) => match self.text_column(field) {
                Some(column) => {
                    let text = text.to_lowercase();
                    column.matching(within, |value| value.is_some_and(|value| value.to_lowercase().contains(&text)))
                }
                None => self.lower_ids.containing(within, text),
            },
            Query::IsNull(field) => match self.text_column(field) {
                Some(column) => column.matching(within, |value| value.is_none()),
                None => match self.number_column(field) {
                    Some(column) => within.select(column, |value| value.is_nan()),
                    None => within.none(),
                },
            },
        }
    }

    fn compare(&self, field: &'static Field, operator: Operator, value: &Value, within: &Rows, threshold: f32) -> Rows {
        match value {
            // Columns are in single precision, and so is the literal: p_ok=0.9 finds what was written as 0.9.
            Value::Number(number) => match self.number_column(field) {
                Some(column) => compare_numbers(within, column, operator, *number as f32),
                None => within.none(),
            },
            Value::Flag(flag) if field.name == PLACEHOLDER => {
                let placeholders = self.placeholders(within);
                match operator.holds(true, *flag) {
                    true => placeholders,
                    false => within.clone().combine(&placeholders, |a, b| a & !b),
                }
            }
            Value::Flag(flag) if field.name == DUPLICATE || field.name == WRONG_PERSON => {
                let found = match field.name {
                    DUPLICATE => self.duplicates_among(&self.present),
                    _ => self.wrong_person_rows(),
                };
                match operator.holds(true, *flag) {
                    true => within.clone().and(&found),
                    false => within.clone().minus(&found),
                }
            }
            Value::Flag(flag) => {
                let operator = if operator.holds(true, *flag) { Operator::GreaterOrEqual } else { Operator::Less };
                let Some(column) = self.number_column(field) else { return within.none() };
                // `ok` is derived from P(OK); other flags are 0 or 1.
                let least =
                    if Number::ALL.iter().any(|number| number.field().name == field.name) { 1.0 } else { threshold };
                compare_numbers(within, column, operator, least)
            }
            Value::Text(text) => match self.text_column(field) {
                Some(column) => {
                    column.matching(within, |value| value.is_some_and(|value| operator.holds(value, text.as_str())))
                }
                None => self.compare_ids(within, operator, &Id::from(text.as_str())),
            },
        }
    }

    /// The rows of `within` whose hash of the pixels fulfils the condition.
    fn with_pixels(&self, within: &Rows, holds: impl Fn(&str) -> bool) -> Rows {
        within.select(&self.pixels, |pixels| pixels.is_some_and(|pixels| holds(&pixels.to_string())))
    }

    fn wrong_person_rows(&self) -> Rows {
        let mut rows = Rows::default();
        self.wrong_persons().iter().for_each(|wrong| rows.insert(wrong.row));
        rows
    }

    /// The rows of `within` whose original is a placeholder.
    fn placeholders(&self, within: &Rows) -> Rows {
        let at_least = |number: Number, least: u32| {
            compare_numbers(within, &self.numbers[number as usize], Operator::GreaterOrEqual, least as f32)
        };
        let of_labels = at_least(Number::SharedLabels, Placeholder::MIN_LABELS);
        of_labels.combine(&at_least(Number::SharedPhotos, Placeholder::MIN_PHOTOS), |a, b| a | b)
    }

    fn compare_ids(&self, within: &Rows, operator: Operator, id: &Id) -> Rows {
        let mut equal = within.none();
        if let Some(&row) = self.by_id.get(id)
            && within.contains(row)
        {
            equal.insert(row);
        }
        match operator {
            Operator::Equal => equal,
            Operator::NotEqual => within.clone().combine(&equal, |a, b| a & !b),
            _ => within.select(&self.ids, |other| operator.holds(other, id)),
        }
    }

    /// The numbers of a field, or those that the field is derived from; NaN stands for no value.
    fn number_column(&self, field: &Field) -> Option<&[f32]> {
        if [PLACEHOLDER, DUPLICATE, WRONG_PERSON].contains(&field.name) {
            // These flags always have a value, and so has the number of photos.
            return Some(&self.numbers[Number::SharedPhotos as usize]);
        }
        let named = Number::ALL.into_iter().find(|number| number.field().name == field.name);
        let derived = (field.kind == FieldType::Flag).then_some(Number::POk);
        named.or(derived).map(|number| self.numbers[number as usize].as_slice())
    }

    fn text_column(&self, field: &Field) -> Option<&TextColumn> {
        Text::ALL.into_iter().find(|text| text.field().name == field.name).map(|text| self.text(text))
    }
}

/// The length of an id, in one byte, then its first seven bytes. Ids of 255 bytes and more share one number.
fn id_rank(id: &Id) -> u64 {
    let bytes = id.as_str().as_bytes();
    let mut rank = [0; 8];
    rank[0] = bytes.len().min(255) as u8;
    if bytes.len() < 255 {
        let first = bytes.len().min(7);
        rank[1..=first].copy_from_slice(&bytes[..first]);
    }
    u64::from_be_bytes(rank)
}

/// The rows of `within` that have a number and whose number fulfils the comparison. Each operator has a loop of its
/// own.
fn compare_numbers(within: &Rows, column: &[f32], operator: Operator, number: f32) -> Rows {
    match operator {
        Operator::Equal => within.select(column, |value| *value == number),
        Operator::NotEqual => within.select(column, |value| *value != number && !value.is_nan()),
        Operator::Less => within.select(column, |value| *value < number),
        Operator::LessOrEqual => within.select(column, |value| *value <= number),
        Operator::Greater => within.select(column, |value| *value > number),
        Operator::GreaterOrEqual => within.select(column, |value| *value >= number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_the_order_of_ids() {
        let long = |start: &str, length| format!("{start}{}", "x".repeat(length));
        let texts = ["9", "10", "a\0", "007", "a-1", &long("a", 30), &long("b", 30), &long("b", 300), &long("a", 301)];
        let mut ids: Vec<Id> = texts.map(Id::from).into();
        ids.sort();
        assert!(ids.is_sorted_by_key(id_rank), "{ids:?}");
        assert_ne!(id_rank(&ids[0]), id_rank(&ids[1]));
    }

    #[test]
    fn sets_of_different_lengths_combine() {
        let set = |rows: &[usize]| {
            let mut set = Rows::default();
            rows.iter().for_each(|row| set.insert(*row));
            set
        };
        let (short, long) = (set(&[1, 3, 63]), set(&[3, 64, 200]));
        let rows = |set: Rows| set.iter().collect::<Vec<_>>();
        assert_eq!((rows(short.clone().and(&long)), rows(long.clone().and(&short))), (vec![3], vec![3]));
        assert_eq!(rows(short.clone().minus(&long)), [1, 63]);
        assert_eq!(rows(long.clone().minus(&short)), [64, 200]);
        assert!(long.contains(200) && !long.contains(201) && !long.contains(100_000));
        assert_eq!([0, 1, 2, 3].map(|before| long.nth(before)), [Some(3), Some(64), Some(200), None]);
    }

    #[test]
    fn texts_are_found_within_single_ids() {
        let mut ids = LowerIds::default();
        let mut within = Rows::default();
        for (row, id) in ["12", "AB-7", "21", "Éa", "", "aaa", "1"].iter().enumerate() {
            ids.push(&Id::from(*id));
            within.insert(row);
        }
        within.remove(6);
        let found = |text| ids.containing(&within, text).iter().collect::<Vec<_>>();
        assert_eq!(found("12"), [0]);
        assert_eq!(found("2"), [0, 2]);
        assert_eq!(found("1"), [0, 2], "row 6 is not among those that are asked for");
        assert_eq!(found("b-7"), [1]);
        assert_eq!((found("É"), found("é")), (vec![3], vec![3]));
        assert_eq!(found("aa"), [5]);
        assert!(found("x").is_empty());
        assert_eq!(found("").len(), 6);
    }
}
