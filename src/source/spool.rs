//! Keeps many short rows of text, compressed, until it is known which of them are needed.
//!
//! In a dump the photos may precede the faces that determine the candidates, and standard input cannot be read twice.
//! So every photo's row is kept, at about 50 bytes each.

use std::borrow::Cow;
use std::io;

/// Bytes per compressed block.
const BLOCK: usize = 1 << 20;

/// The fastest regular level of zstd.
const LEVEL: i32 = 1;

/// One row. All rows of a spool have `N` values.
pub type SpooledRow<'a, const N: usize> = [Option<Cow<'a, str>>; N];

#[derive(Default)]
pub struct RowSpool<const N: usize> {
    open: Vec<u8>,
    blocks: Vec<Box<[u8]>>,
    /// Bytes of the blocks.
    packed: usize,
}

impl<const N: usize> RowSpool<N> {
    pub fn push(&mut self, row: &SpooledRow<'_, N>) -> io::Result<()> {
        for value in row {
            match value {
                None => self.open.push(0),
                Some(text) => {
                    push_length(&mut self.open, text.len() + 1);
                    self.open.extend_from_slice(text.as_bytes());
                }
            }
        }
        if self.open.len() >= BLOCK {
            let block: Box<[u8]> = zstd::bulk::compress(&self.open, LEVEL)?.into();
            self.packed += block.len();
            self.blocks.push(block);
            self.open.clear();
            self.open.shrink_to(2 * BLOCK);
        }
        Ok(())
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        self.open.capacity() + self.packed
    }

    /// Passes every row to `show`, in the order of the pushes, and frees the blocks.
    pub fn unpack<E: From<io::Error>>(self, mut show: impl FnMut(SpooledRow<'_, N>) -> Result<(), E>) -> Result<(), E> {
        for block in self.blocks {
            show_all(&zstd::decode_all(&*block)?, &mut show)?;
        }
        show_all(&self.open, &mut show)
    }
}

fn show_all<const N: usize, E: From<io::Error>>(
    mut rows: &[u8],
    show: &mut impl FnMut(SpooledRow<'_, N>) -> Result<(), E>,
) -> Result<(), E> {
    while !rows.is_empty() {
        let mut row: SpooledRow<'_, N> = [const { None }; N];
        for value in &mut row {
            *value = take(&mut rows)?.map(Cow::Borrowed);
        }
        show(row)?;
    }
    Ok(())
}

fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn take<'a>(rows: &mut &'a [u8]) -> io::Result<Option<&'a str>> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "compressed rows are damaged in memory");
    let mut length = 0usize;
    for shift in (0..).step_by(7) {
        let (byte, rest) = rows.split_first().ok_or_else(damaged)?;
        *rows = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let Some(length) = length.checked_sub(1) else { return Ok(None) };
    let (text, rest) = rows.split_at_checked(length).ok_or_else(damaged)?;
    *rows = rest;
    Ok(Some(std::str::from_utf8(text).map_err(|_| damaged())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_round_trip() {
        let row = |i: usize| -> SpooledRow<'static, 3> {
            [
                (!i.is_multiple_of(3)).then(|| Cow::Owned(format!("宇 {i}"))),
                Some(Cow::Owned("x".repeat(i % 300))),
                (i == 70).then(|| Cow::Owned("y".repeat(3 * BLOCK))),
            ]
        };
        let mut spool = RowSpool::default();
        for i in 0..20_000 {
            spool.push(&row(i)).unwrap();
        }
        assert!(spool.blocks.len() > 3);
        let mut count = 0;
        spool
            .unpack(|values| {
                assert_eq!(values, row(count));
                count += 1;
                Ok::<_, io::Error>(())
            })
            .unwrap();
        assert_eq!(count, 20_000);
    }
}
