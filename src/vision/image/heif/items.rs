//! The items of an AVIF or HEIC: types, places, properties and references (ISO/IEC 14496-12, 8.11; 23008-12).

use std::collections::HashMap;

use super::boxes::{Boxes, Numbers, number, only_child};

/// The most items. A photo in tiles has a few hundred.
const MAX_ITEMS: usize = 2000;

/// The most parts of an item, as in the decoder.
const MAX_EXTENTS: u64 = 32;

/// The list of items of a file.
pub struct Items<'a> {
    pub primary: u64,
    pub types: HashMap<u64, [u8; 4]>,
    places: HashMap<u64, Place>,
    properties: Vec<([u8; 4], &'a [u8])>,
    /// Positions of the properties of each item.
    associations: HashMap<u64, Vec<usize>>,
    references: Vec<Reference>,
    file: &'a [u8],
    /// Data that is inside of the list.
    inside: &'a [u8],
}

/// What an item has to do with others.
struct Reference {
    kind: [u8; 4],
    from: u64,
    to: Vec<u64>,
}

struct Place {
    is_inside: bool,
    extents: Vec<[u64; 2]>,
}

/// The bytes of an item, as far as the file has them.
pub struct ItemData {
    pub bytes: Vec<u8>,
    /// Bytes that the file should have besides.
    pub missing: u64,
    /// Where the item ends in the file.
    pub end: u64,
}

impl<'a> Items<'a> {
    /// # Errors
    /// The list is cut, is too long, or is ambiguous.
    pub fn read(file: &'a [u8]) -> Result<Self, String> {
        let meta = only_child(file, b"meta")?.and_then(|body| body.get(4..)).ok_or("it has no list of items")?;
        let part = |name: &[u8; 4]| only_child(meta, name);
        let needed = |name| part(name)?.ok_or_else(|| format!("it has no box {}", String::from_utf8_lossy(name)));
        let primary = needed(b"pitm")?;
        let primary = number(primary, 4, if primary.first() == Some(&0) { 2 } else { 4 });
        let described = needed(b"iprp")?;
        let properties: Vec<_> = only_child(described, b"ipco")?.map(|body| Boxes(body).collect()).unwrap_or_default();
        Ok(Self {
            primary: primary.ok_or("it names no primary item")?,
            types: types(needed(b"iinf")?)?,
            places: places(needed(b"iloc")?)?,
            associations: associations(described, properties.len())?,
            properties,
            references: part(b"iref")?.map(references).transpose()?.unwrap_or_default(),
            file,
            inside: part(b"idat")?.unwrap_or_default(),
        })
    }

    pub fn properties(&self, item: u64) -> impl Iterator<Item = ([u8; 4], &'a [u8])> {
        let positions = self.associations.get(&item).map_or(&[][..], Vec::as_slice);
        positions.iter().filter_map(|at| self.properties.get(*at).copied())
    }

    /// The items that an item is made of.
    pub fn parts(&self, item: u64) -> impl Iterator<Item = u64> {
        let made_of = self.references.iter().filter(move |made| &made.kind == b"dimg" && made.from == item);
        made_of.flat_map(|made| made.to.iter().copied())
    }

    /// The items that have something to add to an item, such as transparency.
    pub fn auxiliaries(&self, item: u64) -> impl Iterator<Item = u64> {
        let of = self.references.iter().filter(move |of| &of.kind == b"auxl" && of.to.contains(&item));
        of.map(|of| of.from)
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.file.len() as u64
    }

    /// # Errors
    /// The item has more bytes than the file: its parts overlap.
    pub fn data(&self, item: u64) -> Result<ItemData, String> {
        let mut data = ItemData { bytes: Vec::new(), missing: 0, end: 0 };
        let Some(place) = self.places.get(&item) else { return Ok(data) };
        let source = if place.is_inside { self.inside } else { self.file };
        for &[offset, length] in &place.extents {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(source.len());
            // A length of 0 means the rest.
            let wanted = if length == 0 { source.len() - start } else { usize::try_from(length).unwrap_or(usize::MAX) };
            let end = start.saturating_add(wanted).min(source.len());
            data.bytes.extend_from_slice(&source[start..end]);
            data.missing = data.missing.saturating_add((wanted - (end - start)) as u64);
            if !place.is_inside {
                data.end = data.end.max(offset.saturating_add(wanted as u64));
            }
            if data.bytes.len() > self.file.len() {
                return Err("its items overlap".into());
            }
        }
        Ok(data)
    }
}

fn types(body: &[u8]) -> Result<HashMap<u64, [u8; 4]>, String> {
    let entries = if body.first() == Some(&0) { 6 } else { 8 };
    let mut types = HashMap::new();
    for (name, entry) in Boxes(body.get(entries..).unwrap_or_default()) {
        let Some(version @ 2..) = entry.first().copied().filter(|_| name == *b"infe") else { continue };
        let mut numbers = Numbers::new(entry.get(4..).unwrap_or_default());
        let item = numbers.next(if version == 2 { 2 } else { 4 })?;
        numbers.next(2)?; // protection
        let kind = (numbers.next(4)? as u32).to_be_bytes();
        if types.insert(item, kind).is_some() {
            return Err("an item is listed twice".into());
        }
        if types.len() > MAX_ITEMS {
            return Err("it has too many items".into());
        }
    }
    Ok(types)
}

fn places(body: &[u8]) -> Result<HashMap<u64, Place>, String> {
    let version = body.first().copied().unwrap_or_default();
    let mut numbers = Numbers::new(body.get(4..).unwrap_or_default());
    let lengths = numbers.next(2)?;
    let [offset, length, base, index] = [12, 8, 4, 0].map(|shift| (lengths >> shift & 15) as usize);
    let index = if version == 0 { 0 } else { index };
    if [offset, length, base, index].iter().any(|length| ![0, 4, 8].contains(length)) {
        return Err("the places of its items have an unknown form".into());
    }
    let id = if version < 2 { 2 } else { 4 };
    let count = numbers.next(id)?;
    if count > MAX_ITEMS as u64 {
        return Err("it has too many items".into());
    }
    let mut places = HashMap::new();
    for _ in 0..count {
        let item = numbers.next(id)?;
        let method = if version == 0 { 0 } else { numbers.next(2)? & 15 };
        numbers.next(2)?; // of this file
        let base = numbers.next(base)?;
        let count = numbers.next(2)?;
        if count > MAX_EXTENTS {
            return Err("an item has too many parts".into());
        }
        let mut extents = Vec::new();
        for _ in 0..count {
            numbers.next(index)?;
            let offset = base.saturating_add(numbers.next(offset)?);
            extents.push([offset, numbers.next(length)?]);
        }
        // Items that are parts of others have no place here, and are then not decoded.
        let place = Place { is_inside: method == 1, extents: if method > 1 { Vec::new() } else { extents } };
        if places.insert(item, place).is_some() {
            return Err("an item is in two places".into());
        }
    }
    Ok(places)
}

/// Positions of properties, counted from 0, by item.
fn associations(body: &[u8], properties: usize) -> Result<HashMap<u64, Vec<usize>>, String> {
    let mut all: HashMap<u64, Vec<usize>> = HashMap::new();
    for (_, body) in Boxes(body).filter(|(name, _)| name == b"ipma") {
        let mut numbers = Numbers::new(body);
        let head = numbers.next(4)?;
        let (id, wide) = (if head >> 24 == 0 { 2 } else { 4 }, head & 1 == 1);
        for _ in 0..numbers.next(4)? {
            let item = numbers.next(id)?;
            let own = all.entry(item).or_default();
            for _ in 0..numbers.next(1)? {
                let value = if wide { numbers.next(2)? & 0x7fff } else { numbers.next(1)? & 0x7f };
                if (1..=properties as u64).contains(&value) {
                    own.push(value as usize - 1);
                }
            }
        }
        if all.len() > MAX_ITEMS {
            return Err("it has too many items".into());
        }
    }
    Ok(all)
}

fn references(body: &[u8]) -> Result<Vec<Reference>, String> {
    let id = if body.first() == Some(&0) { 2 } else { 4 };
    let mut references = Vec::new();
    for (kind, body) in Boxes(body.get(4..).unwrap_or_default()) {
        let mut numbers = Numbers::new(body);
        let from = numbers.next(id)?;
        let count = numbers.next(2)?;
        let to = (0..count).map(|_| numbers.next(id)).collect::<Result<_, _>>()?;
        references.push(Reference { kind, from, to });
        if references.len() > MAX_ITEMS {
            return Err("it has too many references".into());
        }
    }
    Ok(references)
}
