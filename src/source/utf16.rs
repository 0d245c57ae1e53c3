//! Dumps in UTF-16, as `>` of PowerShell writes them.

use std::io::{self, Read};

use encoding_rs::{CoderResult, Decoder, Encoding, UTF_16BE, UTF_16LE};

/// Detects UTF-16 by its byte order mark, or by the zeros between ASCII characters.
pub fn sniff(head: &[u8]) -> Option<&'static Encoding> {
    match head {
        [0xff, 0xfe, ..] => return Some(UTF_16LE),
        [0xfe, 0xff, ..] => return Some(UTF_16BE),
        _ => {}
    }
    let start = head.get(..8)?;
    let ascii = |from: usize| {
        start.iter().skip(from).step_by(2).all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e))
    };
    let zero = |from: usize| start.iter().skip(from).step_by(2).all(|byte| *byte == 0);
    match () {
        () if ascii(0) && zero(1) => Some(UTF_16LE),
        () if zero(0) && ascii(1) => Some(UTF_16BE),
        () => None,
    }
}

/// Decodes UTF-16 to UTF-8.
pub struct Utf16Reader<R> {
    reader: R,
    decoder: Decoder,
    input: Vec<u8>,
    /// Decoded bytes that were not read yet.
    output: Vec<u8>,
    ended: bool,
}

impl<R: Read> Utf16Reader<R> {
    pub fn new(reader: R, encoding: &'static Encoding) -> Self {
        let decoder = encoding.new_decoder_with_bom_removal();
        Self { reader, decoder, input: vec![0; 64 << 10], output: Vec::new(), ended: false }
    }
}

impl<R: Read> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.output.is_empty() {
                let length = self.output.len().min(buffer.len());
                buffer[..length].copy_from_slice(&self.output[..length]);
                self.output.drain(..length);
                return Ok(length);
            }
            if self.ended {
                return Ok(0);
            }
            let read = self.reader.read(&mut self.input)?;
            self.ended = read == 0;
            let mut rest = &self.input[..read];
            loop {
                let mut piece = [0; 4096];
                let (result, read, written, replaced) = self.decoder.decode_to_utf8(rest, &mut piece, self.ended);
                rest = &rest[read..];
                self.output.extend_from_slice(&piece[..written]);
                if replaced {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the UTF-16 text has half a character"));
                }
                if result == CoderResult::InputEmpty {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_is_decoded_in_pieces() {
        let text = "-- x\nINSERT 宇佐美 \u{1f600};\n".repeat(5000);
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = [0xfe, 0xff].into_iter().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        for bytes in [little, big] {
            let encoding = sniff(&bytes).unwrap();
            let mut decoded = String::new();
            Utf16Reader::new(&bytes[..], encoding).read_to_string(&mut decoded).unwrap();
            assert_eq!(decoded, text);
            let mut decoded = Vec::new();
            let failed = Utf16Reader::new(&bytes[..bytes.len() - 1], encoding).read_to_end(&mut decoded);
            assert!(failed.is_err(), "half a unit at the end");
        }
        assert!(sniff(b"-- PostgreSQL").is_none() && sniff(b"ab").is_none());
    }
}
