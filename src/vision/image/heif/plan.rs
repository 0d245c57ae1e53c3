//! What decoding an AVIF or HEIC takes, known before anything is decoded.
//!
//! The decoder allocates and computes what a file says, so a few bytes could take all memory, or hours. This reads which
//! items the decoder would decode, how large each is, and how often it is decoded.

use std::collections::HashMap;

use super::boxes::number;
use super::coded::Coded;
use super::items::{ItemData, Items};
use crate::image::colour_space::ColourSpace;
use crate::image::decoded::Colours;
use crate::image::error::{DecodeError, Limits};
use facemill_domain::ImageFormat;

/// An image in a photo has at most an alpha channel, and is made of tiles.
const MAX_DEPTH: u32 = 3;
const MAX_VISITS: u32 = 100_000;
/// Turns, mirrors and crops of an item.
const MAX_TRANSFORMS: usize = 4;
/// The most pixels that are decoded, as a multiple of the limit: tiles, their image, and auxiliary images.
const MAX_WORK: u64 = 4;

/// What decoding takes.
pub struct Plan {
    /// Width and height of the image, before it is turned.
    pub size: [u64; 2],
    /// The longest side of an image in the file.
    pub longest: u64,
    /// Pixels of the largest image.
    pub largest: u64,
    /// Bytes of the coded data that the file has, and those that it lacks.
    pub present: u64,
    pub missing: u64,
    /// Length of a file that has them.
    pub whole: u64,
    pub colours: Colours,
    pub needs_av1: bool,
    pub needs_hevc: bool,
    is_deep: bool,
    has_full_chroma: bool,
    has_auxiliaries: bool,
}

impl Plan {
    /// # Errors
    /// The file is not understood, or takes too much.
    pub fn of(bytes: &[u8], format: ImageFormat, limits: Limits) -> Result<Self, DecodeError> {
        let items = Items::read(bytes).map_err(|detail| undecodable(format, detail))?;
        let plan = Self {
            size: [0; 2],
            longest: 0,
            largest: 0,
            present: 0,
            missing: 0,
            whole: bytes.len() as u64,
            colours: Colours::Unspecified,
            needs_av1: false,
            needs_hevc: false,
            is_deep: false,
            has_full_chroma: false,
            has_auxiliaries: false,
        };
        let primary = items.primary;
        let mut walk = Walk { items, format, limits, plan, coded: HashMap::new(), work: 0, visits: 0 };
        let size = walk.visit(primary, 0)?;
        let Walk { items, mut plan, .. } = walk;
        plan.size = size;
        plan.colours = colours(&items, primary);
        let sizes = items.types.keys().flat_map(|item| items.properties(*item)).filter_map(stated_size);
        plan.longest = sizes.flatten().chain([plan.longest]).max().unwrap_or_default();
        Ok(plan)
    }
}

impl Plan {
    /// Bytes that decoding takes, beside the file: the planes of the decoder, their conversions, and RGB. As measured with
    /// libheif 1.15, and a little more.
    pub fn memory(&self) -> u64 {
        /// What a process takes once for the libraries, their threads and their tables.
        const LIBRARIES: u64 = 16 << 20;
        let per_pixel = match (self.is_deep, self.has_full_chroma) {
            (false, false) => 9,
            (false, true) => 14,
            (true, false) => 15,
            (true, true) => 24,
        };
        let for_auxiliaries = match (self.has_auxiliaries, self.is_deep) {
            (false, _) => 0,
            (true, false) => 6,
            (true, true) => 10,
        };
        LIBRARIES + (per_pixel + for_auxiliaries) * self.largest
    }
}

struct Walk<'a> {
    items: Items<'a>,
    format: ImageFormat,
    limits: Limits,
    plan: Plan,
    coded: HashMap<u64, Coded>,
    /// Pixels that are decoded or copied.
    work: u64,
    visits: u32,
}

impl Walk<'_> {
    /// Returns the size of an item.
    fn visit(&mut self, item: u64, depth: u32) -> Result<[u64; 2], DecodeError> {
        self.visits += 1;
        if depth > MAX_DEPTH || self.visits > MAX_VISITS {
            return Err(self.undecodable("its items refer to each other without end"));
        }
        let kind = self.items.types.get(&item).copied();
        let size = match kind.as_ref() {
            Some(b"av01" | b"hvc1") => self.visit_coded(item)?,
            Some(b"grid") => self.visit_grid(item, depth)?,
            Some(b"iden") => {
                let parts: Vec<u64> = self.items.parts(item).take(2).collect();
                match parts[..] {
                    [part] if self.items.types.get(&part).is_some_and(|kind| kind != b"iden") => {
                        self.visit(part, depth + 1)?
                    }
                    _ => return Err(self.undecodable("an item is not made of one other")),
                }
            }
            Some(kind) => {
                let detail = format!("its image has the type {}", String::from_utf8_lossy(kind).escape_default());
                return Err(unsupported(self.format, detail));
            }
            None => return Err(self.undecodable("an item is missing")),
        };
        let is_transform = |name: &[u8; 4]| matches!(name, b"irot" | b"imir" | b"clap");
        if self.items.properties(item).filter(|(name, _)| is_transform(name)).count() > MAX_TRANSFORMS {
            return Err(self.undecodable("an item is turned too often"));
        }
        let auxiliaries: Vec<u64> = self.items.auxiliaries(item).collect();
        self.plan.has_auxiliaries |= !auxiliaries.is_empty();
        auxiliaries.into_iter().try_for_each(|auxiliary| self.visit(auxiliary, depth + 1).map(|_| ()))?;
        Ok(size)
    }

    fn visit_coded(&mut self, item: u64) -> Result<[u64; 2], DecodeError> {
        if !self.coded.contains_key(&item) {
            let coded = self.read_coded(item)?;
            self.coded.insert(item, coded);
        }
        let coded = &self.coded[&item];
        let largest = coded.sizes.iter().copied().max_by_key(|[width, height]| width.saturating_mul(*height));
        let Some(size) = largest else { return Err(self.undecodable("its coded data states no size")) };
        let pictures = coded.pictures.max(1);
        for [width, height] in coded.sizes.clone() {
            self.note(width, height)?;
        }
        self.add_work(size, pictures)?;
        Ok(size)
    }

    fn read_coded(&mut self, item: u64) -> Result<Coded, DecodeError> {
        let (format, is_av1) = (self.format, self.items.types.get(&item) == Some(b"av01"));
        let failed = |detail| undecodable(format, detail);
        let data = self.item_data(item)?;
        let mut coded = if is_av1 { Coded::av1(&data.bytes) } else { Coded::hevc(&data.bytes) }.map_err(failed)?;
        for property in self.items.properties(item) {
            coded.add(match (&property.0, property.1) {
                (b"av1C", body) if is_av1 => Coded::av1(body.get(4..).unwrap_or_default()).map_err(failed)?,
                (b"hvcC", body) if !is_av1 => Coded::hevc_configuration(body).map_err(failed)?,
                _ => Coded::default(),
            });
        }
        if coded.sizes.is_empty() {
            return Err(undecodable(format, "its coded data states no size".into()));
        }
        coded.sizes.extend(self.items.properties(item).filter_map(stated_size));
        let missing = data.missing;
        self.plan.present += data.bytes.len() as u64;
        self.plan.missing = self.plan.missing.saturating_add(missing);
        self.plan.whole = self.plan.whole.max(data.end);
        if self.plan.present > 2 * self.items.length() {
            return Err(undecodable(format, "its items overlap".into()));
        }
        self.plan.is_deep |= coded.is_deep;
        self.plan.has_full_chroma |= coded.has_full_chroma;
        match is_av1 {
            true => self.plan.needs_av1 = true,
            false => self.plan.needs_hevc = true,
        }
        Ok(coded)
    }

    /// An image in tiles (ISO/IEC 23008-12, 6.6.2.3).
    fn visit_grid(&mut self, item: u64, depth: u32) -> Result<[u64; 2], DecodeError> {
        let data = self.item_data(item)?.bytes;
        let length = if data.get(1).is_some_and(|flags| flags & 1 == 1) { 4 } else { 2 };
        let read = |at, length| number(&data, at, length);
        let grid = (|| Some((read(2, 1)? + 1, read(3, 1)? + 1, read(4, length)?, read(4 + length, length)?)))();
        let Some((rows, columns, width, height)) = grid else { return Err(self.undecodable("its grid is cut")) };
        self.note(width, height)?;
        self.add_work([width, height], 1)?;
        let tiles: Vec<u64> = self.items.parts(item).collect();
        if tiles.len() as u64 != rows * columns {
            let detail = format!("its grid has {rows} x {columns} tiles, and {} are there", tiles.len());
            return Err(undecodable(self.format, detail));
        }
        for tile in tiles {
            if !matches!(self.items.types.get(&tile), Some(b"av01" | b"hvc1")) {
                return Err(self.undecodable("a tile is not an image"));
            }
            self.visit(tile, depth + 1)?;
        }
        Ok([width, height])
    }

    fn item_data(&self, item: u64) -> Result<ItemData, DecodeError> {
        self.items.data(item).map_err(|detail| undecodable(self.format, detail))
    }

    fn note(&mut self, width: u64, height: u64) -> Result<(), DecodeError> {
        self.limits.check(width, height)?;
        self.plan.longest = self.plan.longest.max(width).max(height);
        self.plan.largest = self.plan.largest.max(width * height);
        Ok(())
    }

    fn add_work(&mut self, [width, height]: [u64; 2], times: u64) -> Result<(), DecodeError> {
        self.work = self.work.saturating_add(width.saturating_mul(height).saturating_mul(times));
        if self.work > self.limits.pixels.saturating_mul(MAX_WORK) {
            return Err(self.undecodable("its items have far more pixels together than the limit"));
        }
        Ok(())
    }

    fn undecodable(&self, detail: &str) -> DecodeError {
        undecodable(self.format, detail.into())
    }
}

/// The size in an ispe.
fn stated_size((name, body): ([u8; 4], &[u8])) -> Option<[u64; 2]> {
    (name == *b"ispe").then(|| Some([number(body, 4, 4)?, number(body, 8, 4)?])).flatten()
}

/// The colours of an item, or of what it is made of. A profile counts more than numbers do.
fn colours(items: &Items, item: u64) -> Colours {
    let described = |item| {
        let mut numbers = None;
        for (_, body) in items.properties(item).filter(|(name, _)| name == b"colr") {
            match body.split_at_checked(4) {
                Some((b"prof" | b"rICC", profile)) => return Some(Colours::profile(profile)),
                Some((b"nclx", codes)) if numbers.is_none() => numbers = number(codes, 0, 2).zip(number(codes, 2, 2)),
                _ => {}
            }
        }
        numbers.map(|(primaries, transfer)| ColourSpace::of_codes(primaries as u16, transfer as u16).into())
    };
    described(item).or_else(|| items.parts(item).next().and_then(described)).unwrap_or(Colours::Unspecified)
}

pub fn unsupported(format: ImageFormat, detail: String) -> DecodeError {
    let format = if format == ImageFormat::Avif { "AVIF" } else { "HEIC" };
    DecodeError::Unsupported { format, detail: Some(detail) }
}

pub fn undecodable(format: ImageFormat, detail: String) -> DecodeError {
    DecodeError::Undecodable { format: format.extension(), detail }
}
