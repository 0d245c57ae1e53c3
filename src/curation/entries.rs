//! The entries of a list: faces in its order, with random faces and repeats among them.

use std::collections::VecDeque;

use super::card::{Card, RelatedFaces};
use super::leases::{Holder, Leases};
use super::lists::{List, ListCursor};
use super::tickets::{Ticket, TicketKey};
use crate::dataset::page::scattered;
use crate::dataset::suggested::RANDOM_SHARE;
use crate::dataset::{Face, Index, IndexError, Rows};
use crate::domain::{SeenPrediction, Selection, View};
use crate::verdicts::CropVerdicts;

/// Of a thousand entries in orders that are not by filter, so many are repeats, where pictures are shown one at a time.
const REPEATS: u64 = 30;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    InOrder,
    Random,
    Repeat,
}

impl Slot {
    fn of(list: &List, number: u64) -> Self {
        if list.selection == Selection::Filter {
            return Self::InOrder;
        }
        let share = scattered(list.seed.wrapping_add(number)) % 1000;
        match share {
            ..RANDOM_SHARE => Self::Random,
            _ if share < RANDOM_SHARE + REPEATS && list.view == View::Single => Self::Repeat,
            _ => Self::InOrder,
        }
    }
}

/// Lists entries for one client.
pub struct EntryReader<'a> {
    pub index: &'a Index,
    pub list: &'a mut List,
    pub leases: &'a mut Leases,
    /// A person who may only look takes no leases.
    pub may_judge: bool,
    pub holder: &'a Holder,
    pub tickets: &'a TicketKey,
}

impl EntryReader<'_> {
    /// Up to `limit` entries after a cursor, and the cursor of the next ones; none at the end of the list. Leases those
    /// that nobody has judged.
    pub fn read(&mut self, after: ListCursor, limit: usize) -> Result<(Vec<Card>, Option<ListCursor>), IndexError> {
        let ListCursor { mut number, mut place, seed } = after;
        let mut left = self.left();
        let mut pool: Option<Rows> = None;
        let mut cards: Vec<Card> = Vec::new();
        let mut batch = VecDeque::new();
        while cards.len() < limit {
            if batch.is_empty() {
                let (order, threshold) = (self.list.order, self.list.threshold);
                batch.extend(self.index.first(&left, order, threshold, place.as_ref(), limit));
            }
            let next = batch.front().copied();
            // The last face of the order may have come as a random one, and does so again.
            if next.is_none() && !self.list.random.contains_key(&number) {
                return Ok((cards, None));
            }
            let card = match Slot::of(self.list, number) {
                Slot::Random => self.random_card(&mut pool, &mut left, number)?,
                Slot::Repeat => self.repeat_card(number)?,
                Slot::InOrder => None,
            };
            let (card, is_counted) = match card {
                Some(card) => (Some(card), true),
                None => {
                    let Some(next) = next else { return Ok((cards, None)) };
                    batch.pop_front();
                    place = Some(self.index.cursor(self.list.order, self.list.threshold, next));
                    let card = if left.contains(next) { self.card_in_order(next)? } else { None };
                    if let Some(pool) = &mut pool {
                        pool.remove_if_there(next);
                    }
                    let is_counted = card.is_some();
                    (card, is_counted)
                }
            };
            number += u64::from(is_counted);
            cards.extend(card);
        }
        Ok((cards, Some(ListCursor { number, seed, place })))
    }

    /// The rows that may come: those that are there, that nobody else has judged since the list was opened or judges now,
    /// and that were not shown as random faces.
    fn left(&mut self) -> Rows {
        let judged = self.index.judged_by_others(&self.list.unjudged, &self.holder.0);
        let present = self.index.present(&self.list.rows);
        present.minus(&judged).minus(&self.leased_by_others()).minus(&self.list.shown)
    }

    /// A judged face may be seen by everybody.
    fn leased_by_others(&mut self) -> Rows {
        let leased = self.leases.of_others(self.holder);
        self.index.unjudged(&self.rows_of(leased))
    }

    fn rows_of(&self, keys: impl IntoIterator<Item = i64>) -> Rows {
        let mut rows = Rows::default();
        keys.into_iter().filter_map(|key| self.index.row(key)).for_each(|row| rows.insert(row));
        rows
    }

    /// None: the face is gone, or it is a copy of another one in the list.
    fn card_in_order(&mut self, row: usize) -> Result<Option<Card>, IndexError> {
        let Some(face) = self.index.face_of(row)? else { return Ok(None) };
        let keys = self.index.keys_of_crop(face.crop)?;
        let first = keys.iter().find(|key| self.index.row(**key).is_some_and(|row| self.list.rows.contains(row)));
        if first.is_some_and(|first| *first < self.index.key(row)) {
            return Ok(None);
        }
        self.card(row, &face, &keys, self.list.recorded).map(Some)
    }

    /// A random face of all that nobody has judged, and that no client has. It does not come again in the order of the
    /// list.
    fn random_card(
        &mut self,
        pool: &mut Option<Rows>,
        left: &mut Rows,
        number: u64,
    ) -> Result<Option<Card>, IndexError> {
        if let Some(&row) = self.list.random.get(&number)
            && self.may_come_again(row)
            && let Some(face) = self.index.face_of(row)?
        {
            let keys = self.index.keys_of_crop(face.crop)?;
            return self.card(row, &face, &keys, Selection::Random).map(Some);
        }
        let pool = match pool {
            Some(pool) => pool,
            None => {
                let leased = self.rows_of(self.leases.all());
                let free = self.index.all_unjudged().minus(&leased).minus(&self.list.shown);
                pool.insert(free)
            }
        };
        let count = pool.count();
        if count == 0 {
            return Ok(None);
        }
        let chosen = scattered(self.list.seed ^ scattered(number)) % count;
        let Some(row) = pool.nth(chosen) else { return Ok(None) };
        let Some(face) = self.index.face_of(row)? else { return Ok(None) };
        let keys = self.index.keys_of_crop(face.crop)?;
        for row in keys.iter().filter_map(|key| self.index.row(*key)) {
            pool.remove_if_there(row);
            left.remove_if_there(row);
            self.list.shown.insert(row);
        }
        self.list.random.insert(number, row);
        self.card(row, &face, &keys, Selection::Random).map(Some)
    }

    /// Whether nobody else has judged a face or judges it now.
    fn may_come_again(&mut self, row: usize) -> bool {
        let mut rows = Rows::default();
        rows.insert(row);
        let judged = self.index.judged_by_others(&rows, &self.holder.0);
        !judged.contains(row) && !self.leased_by_others().contains(row)
    }

    /// A face that the person judged singly before, as if nobody had judged it.
    fn repeat_card(&mut self, number: u64) -> Result<Option<Card>, IndexError> {
        let share = scattered(self.list.seed ^ scattered(number)) as f64 / u64::MAX as f64;
        let Some(verdict) = self.index.verdict_to_repeat(&self.holder.0, share)? else { return Ok(None) };
        let keys = self.index.keys_of_crop(verdict.crop)?;
        let Some(row) = keys.first().and_then(|key| self.index.row(*key)) else { return Ok(None) };
        if !self.list.repeated.insert(keys[0]) {
            return Ok(None);
        }
        let Some(face) = self.index.face_of(row)? else { return Ok(None) };
        let ticket =
            self.tickets.seal(&Ticket { repeat: true, ..ticket(self.index, &face, verdict.selection, &self.holder.0) });
        let related = RelatedFaces::of(self.index, row, &keys)?;
        Ok(Some(Card::of(&face, &CropVerdicts::default(), related, self.index.threshold(), ticket)))
    }

    /// The card of a face; leases it if nobody has judged it and the person may.
    fn card(&mut self, row: usize, face: &Face, keys: &[i64], selection: Selection) -> Result<Card, IndexError> {
        let verdicts = self.index.verdicts_on(face.crop)?;
        if self.may_judge && verdicts.judgement().is_none() {
            keys.iter().for_each(|key| self.leases.take(self.holder, *key));
        }
        let ticket = self.tickets.seal(&ticket(self.index, face, selection, &self.holder.0));
        let related = RelatedFaces::of(self.index, row, keys)?;
        Ok(Card::of(face, &verdicts, related, self.index.threshold(), ticket))
    }
}

/// The ticket of a face that is shown to a person.
pub fn ticket(index: &Index, face: &Face, selection: Selection, person: &str) -> Ticket {
    let seen = index.model().zip(face.p_ok);
    Ticket {
        photo_id: face.photo_id.clone(),
        crop: face.crop,
        selection,
        repeat: false,
        seen: seen.map(|(model_sha256, p_ok)| SeenPrediction { p_ok, model_sha256 }),
        person: person.to_owned(),
    }
}
