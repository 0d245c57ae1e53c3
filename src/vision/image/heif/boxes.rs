//! The boxes of an ISO media file (ISO/IEC 14496-12, 4.2).

/// Names and bodies of boxes, one after the other. A box that is cut ends with its parent.
#[derive(Clone)]
pub struct Boxes<'a>(pub &'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = *self.0.get(4..)?.first_chunk()?;
        let (header, length) = match number(self.0, 0, 4)? {
            0 => (8, self.0.len()),
            1 => (16, usize::try_from(number(self.0, 8, 8)?).ok()?),
            length => (8, length as usize),
        };
        let body = self.0.get(header..length.min(self.0.len()))?;
        self.0 = self.0.get(length..).unwrap_or_default();
        Some((name, body))
    }
}

/// The body of the only box of this name. The decoder may take another one where there are several.
///
/// # Errors
/// There are several.
pub fn only_child<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Result<Option<&'a [u8]>, String> {
    let mut found = Boxes(bytes).filter(|(other, _)| other == name).map(|(_, body)| body);
    let first = found.next();
    match found.next() {
        Some(_) => Err(format!("it has two boxes {}", String::from_utf8_lossy(name))),
        None => Ok(first),
    }
}

/// A big-endian number of `length` bytes.
pub fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// Reads numbers one after the other.
pub struct Numbers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Numbers<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// # Errors
    /// The data is cut.
    pub fn next(&mut self, length: usize) -> Result<u64, String> {
        let value = number(self.bytes, self.at, length).ok_or("its list of items is cut")?;
        self.at += length;
        Ok(value)
    }
}
