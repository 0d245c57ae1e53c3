//! What coded data says about its pictures: sizes and number. Sequence headers and parameter sets are those of AV1 (5.5,
//! 5.9) and H.265 (7.3.2.2).

use super::boxes::number;

/// The pictures in some coded data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coded {
    /// Width and height that the headers allow, of each header.
    pub sizes: Vec<[u64; 2]>,
    /// Pictures that are coded. A decoder may decode all of them to show one.
    pub pictures: u64,
    /// A sample has more than 8 bits.
    pub is_deep: bool,
    /// Colours have as many samples as brightness, or half as many.
    pub has_full_chroma: bool,
}

impl Coded {
    pub fn add(&mut self, other: Self) {
        self.sizes.extend(other.sizes);
        self.pictures += other.pictures;
        self.is_deep |= other.is_deep;
        self.has_full_chroma |= other.has_full_chroma;
    }

    /// # Errors
    /// The data is not understood.
    pub fn av1(mut data: &[u8]) -> Result<Self, String> {
        const SEQUENCE_HEADER: u8 = 1;
        const FRAME_HEADER: u8 = 3;
        const FRAME: u8 = 6;
        let mut coded = Self::default();
        let mut sequence = None;
        while let Some((&header, rest)) = data.split_first() {
            let rest = if header & 4 == 0 { rest } else { rest.get(1..).unwrap_or_default() };
            let (length, body) =
                if header & 2 == 0 { (rest.len(), rest) } else { leb128(rest).ok_or("a unit is cut")? };
            let unit = &body[..length.min(body.len())];
            match header >> 3 & 15 {
                SEQUENCE_HEADER => {
                    let read = Sequence::read(unit)?;
                    coded.sizes.push(read.size);
                    coded.is_deep |= read.is_deep;
                    // Profile 0 has a quarter of the colours.
                    coded.has_full_chroma |= read.profile > 0;
                    sequence = Some(read);
                }
                FRAME_HEADER | FRAME => {
                    coded.pictures += 1;
                    // The header may be in the properties of the item. Then its frames are as large as it says.
                    let overridden = sequence.as_ref().map(|sequence| sequence.has_other_size(unit)).transpose()?;
                    if let (Some(true), Some(sequence)) = (overridden, &sequence) {
                        coded.sizes.push(sequence.most);
                    }
                }
                _ => {}
            }
            data = body.get(length..).unwrap_or_default();
        }
        Ok(coded)
    }

    /// Units after their lengths of four bytes.
    ///
    /// # Errors
    /// The data is not understood.
    pub fn hevc(mut data: &[u8]) -> Result<Self, String> {
        let mut coded = Self::default();
        while let Some(length) = number(data, 0, 4) {
            let rest = &data[4..];
            coded.add_hevc_unit(&rest[..(length as usize).min(rest.len())])?;
            data = rest.get(length as usize..).unwrap_or_default();
        }
        Ok(coded)
    }

    /// The units in the body of an hvcC (ISO/IEC 14496-15, 8.3.3.1).
    ///
    /// # Errors
    /// The data is not understood.
    pub fn hevc_configuration(body: &[u8]) -> Result<Self, String> {
        // The decoder expects that the length of each unit in the data has four bytes.
        if body.get(21).is_none_or(|lengths| lengths & 3 != 3) {
            return Err("its units are not separated as usual".into());
        }
        let mut coded = Self::default();
        let mut rest = body.get(23..).unwrap_or_default();
        while let Some(count) = number(rest, 1, 2) {
            rest = &rest[3..];
            for _ in 0..count {
                let Some(length) = number(rest, 0, 2) else { return Ok(coded) };
                let end = rest.len().min(2 + length as usize);
                coded.add_hevc_unit(&rest[2..end])?;
                rest = &rest[end..];
            }
        }
        Ok(coded)
    }

    fn add_hevc_unit(&mut self, unit: &[u8]) -> Result<(), String> {
        const SEQUENCE_PARAMETERS: u8 = 33;
        match unit.first().map(|header| header >> 1 & 0x3f) {
            Some(SEQUENCE_PARAMETERS) => self.add(hevc_parameters(unit)?),
            // A slice. The first bit after the header marks the first one of a picture.
            Some(0..=31) if unit.get(2).is_some_and(|byte| byte & 0x80 != 0) => self.pictures += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Reads bits, the highest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: u32) -> Result<u64, String> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or("a header of its coded data is cut")?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    fn flag(&mut self) -> Result<bool, String> {
        Ok(self.take(1)? == 1)
    }

    /// ue(v) of H.265, and uvlc() of AV1.
    fn exponential(&mut self) -> Result<u64, String> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 32 {
                return Err("a number in its coded data is too long".into());
            }
        }
        Ok((1 << zeros) - 1 + self.take(zeros)?)
    }
}

fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

/// A sequence header of AV1 (5.5.1): what is needed to find out whether a frame has a size of its own (5.9.2).
#[derive(Debug)]
struct Sequence {
    profile: u64,
    size: [u64; 2],
    is_deep: bool,
    /// The largest size that a frame can state.
    most: [u64; 2],
    is_reduced: bool,
    /// Bits of the time of presentation that each shown frame has.
    time: Option<u32>,
    /// Bits of the id that each frame has.
    frame_id: Option<u32>,
    /// None: each frame says whether it uses tools for screen content.
    screen_content: Option<bool>,
    /// Each frame with such tools says whether its motion is in whole pixels.
    states_motion: bool,
}

impl Sequence {
    fn read(unit: &[u8]) -> Result<Self, String> {
        let mut bits = Bits::new(unit);
        let profile = bits.take(3)?;
        bits.take(1)?; // still picture
        let is_reduced = bits.flag()?;
        let mut time = None;
        if is_reduced {
            bits.take(5)?; // level
        } else {
            let mut delay = None;
            if bits.flag()? {
                bits.take(32)?;
                bits.take(32)?;
                let is_regular = bits.flag()?;
                if is_regular {
                    bits.exponential()?;
                }
                if bits.flag()? {
                    delay = Some(bits.take(5)? as u32 + 1);
                    bits.take(32)?;
                    bits.take(5)?;
                    let length = bits.take(5)? as u32 + 1;
                    time = (!is_regular).then_some(length);
                }
            }
            let has_display_delay = bits.flag()?;
            for _ in 0..=bits.take(5)? {
                bits.take(12)?;
                if bits.take(5)? > 7 {
                    bits.take(1)?; // tier
                }
                if let Some(length) = delay
                    && bits.flag()?
                {
                    bits.take(length)?;
                    bits.take(length)?;
                    bits.take(1)?;
                }
                if has_display_delay && bits.flag()? {
                    bits.take(4)?;
                }
            }
        }
        let lengths = [bits.take(4)? as u32 + 1, bits.take(4)? as u32 + 1];
        let size = [bits.take(lengths[0])? + 1, bits.take(lengths[1])? + 1];
        let most = lengths.map(|length| 1 << length);
        let mut sequence = Self {
            profile,
            size,
            is_deep: false,
            most,
            is_reduced,
            time,
            frame_id: None,
            screen_content: None,
            states_motion: true,
        };
        sequence.read_tools(&mut bits)?;
        bits.take(3)?; // super-resolution, filters
        sequence.is_deep = bits.flag()?;
        Ok(sequence)
    }

    fn read_tools(&mut self, bits: &mut Bits) -> Result<(), String> {
        if !self.is_reduced && bits.flag()? {
            let difference = bits.take(4)? as u32 + 2;
            self.frame_id = Some(bits.take(3)? as u32 + difference + 1);
        }
        bits.take(3)?; // large blocks, filter intra, intra edges
        if self.is_reduced {
            return Ok(());
        }
        bits.take(4)?; // compound, masks, warps, dual filters
        if bits.flag()? {
            bits.take(2)?; // order hints
        }
        self.screen_content = if bits.flag()? { None } else { Some(bits.flag()?) };
        if self.screen_content != Some(false) {
            self.states_motion = bits.flag()?;
            if !self.states_motion {
                bits.take(1)?;
            }
        }
        Ok(())
    }

    /// Whether a frame states a size instead of taking that of the sequence.
    fn has_other_size(&self, unit: &[u8]) -> Result<bool, String> {
        const KEY: u64 = 0;
        const SWITCH: u64 = 3;
        let mut bits = Bits::new(unit);
        if self.is_reduced || bits.flag()? {
            return Ok(false); // no frame of its own
        }
        let kind = bits.take(2)?;
        let is_shown = bits.flag()?;
        match (is_shown, self.time) {
            (true, Some(length)) => _ = bits.take(length)?,
            (true, None) => {}
            (false, _) => _ = bits.take(1)?,
        }
        if kind != SWITCH && !(kind == KEY && is_shown) {
            bits.take(1)?; // resilience
        }
        bits.take(1)?; // updates of probabilities
        let screen_content = match self.screen_content {
            Some(known) => known,
            None => bits.flag()?,
        };
        if screen_content && self.states_motion {
            bits.take(1)?;
        }
        if let Some(length) = self.frame_id {
            bits.take(length)?;
        }
        Ok(kind == SWITCH || bits.flag()?)
    }
}

/// What a sequence parameter set says.
fn hevc_parameters(unit: &[u8]) -> Result<Coded, String> {
    // A third byte after two zeros is no data.
    let mut data = Vec::new();
    let mut zeros = 0;
    for &byte in unit.iter().skip(2).take(1024) {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        data.push(byte);
    }
    let mut bits = Bits::new(&data);
    bits.take(4)?;
    let layers = bits.take(3)?;
    bits.take(1)?;
    bits.at += 96; // profile, tier and level
    let mut present = Vec::new();
    for _ in 0..layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if layers > 0 {
        bits.take(2 * (8 - layers as u32))?;
    }
    for (profile, level) in present {
        bits.at += if profile { 88 } else { 0 } + if level { 8 } else { 0 };
    }
    bits.exponential()?; // id
    let chroma = bits.exponential()?;
    if chroma == 3 {
        bits.take(1)?; // separate planes
    }
    let size = [bits.exponential()?, bits.exponential()?];
    if bits.flag()? {
        // What is not shown at each edge.
        (0..4).try_for_each(|_| bits.exponential().map(|_| ()))?;
    }
    let is_deep = bits.exponential()? > 0 || bits.exponential()? > 0;
    Ok(Coded { sizes: vec![size], pictures: 0, is_deep, has_full_chroma: chroma > 1 })
}
