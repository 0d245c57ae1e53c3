//! The ids of one table's rows, to find a row that comes twice.
//!
//! Dumps write rows in the order of their key, or nearly so. While ids ascend, none can be double, and about five bytes
//! a row are kept. A map is made only when a row has to be found.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::compare::IdKey;

/// A row: its number in the table, from 0, and its byte in the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPlace {
    pub row: u64,
    pub offset: u64,
}

#[derive(Debug, Default)]
pub struct KeyIndex {
    hasher: RandomState,
    /// Key and offset of every row, as differences from the row before.
    log: Vec<u8>,
    last: (u64, u64),
    rows: u64,
    greatest: Option<IdKey>,
    /// Whether the ids have ascended so far.
    unordered: bool,
    map: Option<HashMap<u64, RowPlace>>,
}

impl KeyIndex {
    /// Rows added so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes in memory, about.
    pub fn size(&self) -> usize {
        self.log.len() + self.map.as_ref().map_or(0, |map| map.capacity() * 32)
    }

    /// The row with this id that counts, if there is one. `part` numbers the tables whose rows are kept together.
    pub fn find(&mut self, part: u32, id: &IdKey) -> Option<RowPlace> {
        if part == 0 && self.greatest.as_ref().is_none_or(|greatest| id > greatest) {
            return None;
        }
        let key = self.key(part, id);
        self.map().get(&key).copied()
    }

    /// Adds a row. It replaces an earlier one with the same id in what [`KeyIndex::find`] returns.
    pub fn push(&mut self, part: u32, id: &IdKey, offset: u64) {
        let key = self.key(part, id);
        let ascends = part == 0 && self.greatest.as_ref().is_none_or(|greatest| id > greatest);
        if ascends {
            self.greatest = Some(id.clone());
        } else {
            self.unordered = true;
        }
        push_number(&mut self.log, zigzag(key.wrapping_sub(self.last.0)));
        push_number(&mut self.log, zigzag(offset.wrapping_sub(self.last.1)));
        self.last = (key, offset);
        if let Some(map) = &mut self.map {
            map.insert(key, RowPlace { row: self.rows, offset });
        }
        self.rows += 1;
    }

    /// Offsets of the first two rows with the same id. `dead`: rows that do not count.
    pub fn first_double(&self, dead: impl Fn(u64) -> bool) -> Option<(u64, u64)> {
        if !self.unordered {
            return None;
        }
        let mut rows: Vec<(u64, u64)> = Vec::new();
        self.each(|key, place| {
            if !dead(place.row) {
                rows.push((key, place.offset));
            }
        });
        rows.sort_unstable();
        rows.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[0].1, pair[1].1))
    }

    /// Numbers stand for themselves, texts for a hash with a secret seed.
    fn key(&self, part: u32, id: &IdKey) -> u64 {
        match (part, id) {
            (0, IdKey::Number(number)) => *number as u64,
            (0, IdKey::Text(text)) => self.hasher.hash_one(text),
            _ => self.hasher.hash_one((part, id)),
        }
    }

    fn map(&mut self) -> &HashMap<u64, RowPlace> {
        if self.map.is_none() {
            let mut map = HashMap::new();
            self.each(|key, place| {
                map.insert(key, place);
            });
            self.map = Some(map);
        }
        self.map.get_or_insert_default()
    }

    fn each(&self, mut show: impl FnMut(u64, RowPlace)) {
        let (mut key, mut offset) = (0u64, 0u64);
        let mut log = self.log.as_slice();
        for row in 0..self.rows {
            key = key.wrapping_add(unzigzag(take_number(&mut log)));
            offset = offset.wrapping_add(unzigzag(take_number(&mut log)));
            show(key, RowPlace { row, offset });
        }
    }
}

/// Small differences of either sign become small numbers.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (((difference as i64) >> 63) as u64)
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_in_any_order() {
        let mut index = KeyIndex::default();
        for (i, id) in ["3", "7", "-2", "abc", "9223372036854775807", "7x"].iter().enumerate() {
            assert_eq!(index.find(0, &IdKey::new(id)), None);
            index.push(0, &IdKey::new(id), 1000 - 10 * i as u64);
        }
        let place = |row, offset| Some(RowPlace { row, offset });
        assert_eq!(index.find(0, &IdKey::new("7")), place(1, 990));
        assert_eq!(index.find(0, &IdKey::new("abc")), place(3, 970));
        assert_eq!(index.find(1, &IdKey::new("abc")), None, "another table");
        assert_eq!(index.first_double(|_| false), None);
        index.push(1, &IdKey::new("abc"), 5);
        assert_eq!(index.first_double(|_| false), None);
        index.push(0, &IdKey::new("7"), 2000);
        assert_eq!(index.find(0, &IdKey::new("7")), place(7, 2000));
        assert_eq!(index.first_double(|_| false), Some((990, 2000)));
        assert_eq!(index.first_double(|row| row == 1), None);
    }

    #[test]
    fn ascending_ids_need_no_map() {
        let mut index = KeyIndex::default();
        for id in 0..10_000 {
            assert_eq!(index.find(0, &IdKey::Number(id)), None);
            index.push(0, &IdKey::Number(id), 80 * id as u64);
        }
        assert!(index.map.is_none() && index.size() < 40_000, "{}", index.size());
        assert_eq!(index.find(0, &IdKey::Number(77)), Some(RowPlace { row: 77, offset: 6160 }));
    }
}
