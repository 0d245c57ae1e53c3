//! Checks what a Parquet file declares before the decoder believes it: the decoder reserves memory for the sizes in
//! page headers, unpacks gzip without a limit, and returns as many rows as the footer says.
//!
//! A page header is a structure in Thrift's compact protocol:
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::error::SourceError;

/// The largest footer, in bytes.
const MAX_FOOTER: u64 = 64 << 20;
/// The largest page before and after decompression, in bytes. Writers make pages of about a megabyte.
const MAX_PAGE: u64 = 64 << 20;
/// The longest page header, in bytes; it may hold the least and the greatest value of the page.
const MAX_HEADER: usize = 1 << 20;
/// No table of photos has more rows for each byte of the file: every row has another URL.
const ROWS_A_BYTE: u64 = 8;

/// What is wrong with a file.
pub struct Damage(String);

impl Damage {
    pub fn new(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}

impl From<Damage> for SourceError {
    fn from(damage: Damage) -> Self {
        Self::Unknown(format!("cannot read the Parquet file: {}", damage.0))
    }
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Checks the end of the file. Returns the size of the file in bytes.
pub fn check_footer(file: &File) -> Result<u64, Damage> {
    let size = file.metadata()?.len();
    let mut end = [0; 8];
    let at = size.checked_sub(12).ok_or_else(|| Damage::new("it is truncated"))? + 4;
    file.read_exact_at(&mut end, at)?;
    let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    match &end[4..] {
        b"PAR1" if length <= at.saturating_sub(4).min(MAX_FOOTER) => Ok(size),
        b"PAR1" => Err(Damage::new(format!("its footer would have {length} bytes"))),
        b"PARE" => Err(Damage::new("it is encrypted")),
        _ => Err(Damage::new("it does not end as a Parquet file does: it is truncated")),
    }
}

/// Checks the number of rows of all groups.
pub fn check_rows(metadata: &ParquetMetaData, size: u64) -> Result<(), Damage> {
    let rows = metadata.row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(u64::MAX));
    let rows = rows.fold(0, u64::saturating_add);
    match rows <= size.saturating_mul(ROWS_A_BYTE) {
        true => Ok(()),
        false => Err(Damage::new(format!("it declares {rows} rows in {size} bytes"))),
    }
}

/// Checks the pages of a column that holds one value a row.
pub fn check_pages(file: &File, column: &ColumnChunkMetaData, rows: i64) -> Result<(), Damage> {
    let codec = column.compression();
    let (start, length) = column.byte_range();
    let end = start.saturating_add(length);
    let (mut at, mut values) = (start, 0u64);
    let mut window = vec![0; 4096];
    while at < end {
        let header = loop {
            let there = (end - at).min(window.len() as u64) as usize;
            read_exactly(file, &mut window[..there], at)?;
            match PageHeader::read(&window[..there]) {
                Ok(header) => break header,
                Err(_) if there == window.len() && there < MAX_HEADER => window.resize(2 * there, 0),
                Err(error) => return Err(error),
            }
        };
        let body = at + header.length as u64;
        if header.compressed > MAX_PAGE || header.unpacked > MAX_PAGE {
            let most = header.compressed.max(header.unpacked);
            return Err(Damage::new(format!("a page has {most} bytes, which is more than {MAX_PAGE}")));
        }
        if body + header.compressed > end {
            return Err(Damage::new("a page reaches beyond its column"));
        }
        if matches!(codec, Compression::GZIP(_)) && header.is_compressed {
            let levels = header.levels.min(header.compressed);
            let mut packed = vec![0; (header.compressed - levels) as usize];
            read_exactly(file, &mut packed, body + levels)?;
            let most = header.unpacked.saturating_sub(levels);
            let unpacked = flate2::read::MultiGzDecoder::new(&packed[..]).take(most + 1);
            if io::copy(&mut { unpacked }, &mut io::sink())? > most {
                return Err(Damage::new(format!("a page has more than the {most} bytes that it declares")));
            }
        }
        values = values.saturating_add(header.values);
        at = body + header.compressed;
    }
    match u64::try_from(rows) == Ok(values) {
        true => Ok(()),
        false => Err(Damage::new(format!("a column has {values} values for {rows} rows"))),
    }
}

fn read_exactly(file: &File, buffer: &mut [u8], at: u64) -> Result<(), Damage> {
    file.read_exact_at(buffer, at).map_err(|_| Damage::new("a column reaches beyond the file"))
}

/// What a page declares.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    /// Bytes of the header itself.
    length: usize,
    /// Bytes of the page as it is stored, and after decompression.
    compressed: u64,
    unpacked: u64,
    /// Bytes before the compressed part.
    levels: u64,
    is_compressed: bool,
    /// Values of a data page, NULL included; 0 for a dictionary.
    values: u64,
}

impl PageHeader {
    /// Reads the header at the start of the bytes.
    fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let mut thrift = Thrift { bytes, at: 0 };
        let mut header = Self { is_compressed: true, ..Self::default() };
        let (mut field, mut has_sizes) = (0, [false; 2]);
        while let Some((kind, id)) = thrift.field(field)? {
            field = id;
            match (id, kind) {
                (2, Thrift::I32) => (header.unpacked, has_sizes[0]) = (thrift.size()?, true),
                (3, Thrift::I32) => (header.compressed, has_sizes[1]) = (thrift.size()?, true),
                // Data pages of both versions.
                (5 | 8, Thrift::STRUCT) => header.read_data_page(&mut thrift, id == 8)?,
                _ => thrift.skip(kind, 0)?,
            }
        }
        header.length = thrift.at;
        if has_sizes == [true; 2] { Ok(header) } else { Err(Damage::new("a page header lacks its sizes")) }
    }

    fn read_data_page(&mut self, thrift: &mut Thrift<'_>, is_second_version: bool) -> Result<(), Damage> {
        let mut field = 0;
        while let Some((kind, id)) = thrift.field(field)? {
            field = id;
            match (id, kind) {
                (1, Thrift::I32) => self.values = thrift.size()?,
                (5 | 6, Thrift::I32) if is_second_version => self.levels += thrift.size()?,
                (7, Thrift::TRUE | Thrift::FALSE) if is_second_version => self.is_compressed = kind == Thrift::TRUE,
                _ => thrift.skip(kind, 0)?,
            }
        }
        Ok(())
    }
}

/// A reader of the compact protocol. It never reads beyond the bytes, and never recurses deeply.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    const TRUE: u8 = 1;
    const FALSE: u8 = 2;
    const I32: u8 = 5;
    const STRUCT: u8 = 12;
    const MAX_DEPTH: u32 = 16;

    fn byte(&mut self) -> Result<u8, Damage> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| Damage::new("a page header is truncated"))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damage::new("a number in a page header has no end"))
    }

    fn signed(&mut self) -> Result<i64, Damage> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn size(&mut self) -> Result<u64, Damage> {
        u64::try_from(self.signed()?).map_err(|_| Damage::new("a size in a page header is negative"))
    }

    /// The type and number of the next field. None: the structure ends.
    fn field(&mut self, last: i64) -> Result<Option<(u8, i64)>, Damage> {
        let byte = self.byte()?;
        Ok(match (byte >> 4, byte & 0x0f) {
            (_, 0) => None,
            (0, kind) => Some((kind, self.signed()?)),
            (step, kind) => Some((kind, last.saturating_add(i64::from(step)))),
        })
    }

    fn skip_bytes(&mut self, count: u64) -> Result<(), Damage> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        self.at =
            end.filter(|end| *end <= self.bytes.len()).ok_or_else(|| Damage::new("a page header is truncated"))?;
        Ok(())
    }

    /// Skips the value of a field.
    fn skip(&mut self, kind: u8, depth: u32) -> Result<(), Damage> {
        if depth > Self::MAX_DEPTH {
            return Err(Damage::new("a page header is nested too deeply"));
        }
        match kind {
            Self::TRUE | Self::FALSE => Ok(()),
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                (0..count).try_for_each(|_| self.skip_element(head & 0x0f, depth))
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0x0f, depth)
                })
            }
            Self::STRUCT => {
                let mut field = 0;
                while let Some((kind, id)) = self.field(field)? {
                    field = id;
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(Damage::new("a page header has a field of an unknown type")),
        }
    }

    /// Skips an element of a list or a map. Unlike a field, a truth value takes a byte there.
    fn skip_element(&mut self, kind: u8, depth: u32) -> Result<(), Damage> {
        match kind {
            Self::TRUE | Self::FALSE => self.skip_bytes(1),
            _ => self.skip(kind, depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_headers_are_read() {
        // type 0, unpacked 300, compressed 100, data page: 7 values, encoding 0, a structure of statistics.
        let bytes = [
            0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0xc8, 0x01, 0x2c, 0x15, 0x0e, 0x15, 0x00, 0x3c, 0x18, 1, 9, 0, 0, 0, 77,
        ];
        let header = PageHeader::read(&bytes).ok().unwrap();
        let expected =
            PageHeader { length: 20, compressed: 100, unpacked: 300, levels: 0, is_compressed: true, values: 7 };
        assert_eq!(header, expected);
        for length in 0..20 {
            assert!(PageHeader::read(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn hostile_headers_end() {
        // A list of two billion elements, and structures within structures.
        let long = [0x19, 0xf3, 0xff, 0xff, 0xff, 0xff, 0x07];
        let deep = [0x1c; 4096];
        // A size of less than nothing.
        let negative = [0x25, 0x01, 0x15, 0x02, 0x00];
        for bytes in [&long[..], &deep, &negative, &[0xff; 64]] {
            assert!(PageHeader::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
