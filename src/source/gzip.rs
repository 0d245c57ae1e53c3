//! Gzip files of one or several members, and what may follow them.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::warnings::Warnings;

/// Decompresses all members. As gzip does, it ignores zeros after the last one, and anything else that is no member,
/// with a warning.
pub struct GzipReader<R: Read> {
    /// None: all members have been read.
    member: Option<GzDecoder<BufReader<R>>>,
    warnings: Warnings,
}

impl<R: Read> GzipReader<R> {
    pub fn new(compressed: R, warnings: Warnings) -> Self {
        Self { member: Some(GzDecoder::new(BufReader::new(compressed))), warnings }
    }

    /// Skips what follows a member. True: another member starts here.
    fn skip_to_member(&self, rest: &mut impl BufRead) -> io::Result<bool> {
        let mut zeros = 0u64;
        loop {
            let window = rest.fill_buf()?;
            let Some(at) = window.iter().position(|byte| *byte != 0) else {
                if window.is_empty() {
                    if zeros > 0 {
                        self.warnings.add(format!("{zeros} zero bytes after the compressed data are ignored"));
                    }
                    return Ok(false);
                }
                let length = window.len();
                zeros += length as u64;
                rest.consume(length);
                continue;
            };
            if zeros == 0 && at == 0 && window[0] == 0x1f {
                return Ok(true);
            }
            self.warnings.add("bytes after the compressed data that are no gzip are ignored");
            return Ok(false);
        }
    }
}

impl<R: Read> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(member) = self.member.take() else { break };
            let mut rest = member.into_inner();
            if self.skip_to_member(&mut rest)? {
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(file: &[u8]) -> (io::Result<String>, Vec<String>) {
        let warnings = Warnings::default();
        let mut text = String::new();
        let read = GzipReader::new(file, warnings.clone()).read_to_string(&mut text);
        (read.map(|_| text), warnings.lines())
    }

    #[test]
    fn members_are_joined_and_the_rest_is_ignored_with_a_warning() {
        let two = [member("a"), member(""), member("b")].concat();
        let (text, warnings) = read(&two);
        assert_eq!((text.unwrap().as_str(), warnings.len()), ("ab", 0));
        let (text, warnings) = read(&[&two[..], &[0; 512]].concat());
        assert_eq!(text.unwrap(), "ab");
        assert!(warnings[0].starts_with("512 zero bytes"), "{warnings:?}");
        let (text, warnings) = read(&[&two[..], b"garbage"].concat());
        assert_eq!(text.unwrap(), "ab");
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn truncated_members_are_errors() {
        let two = [member("first"), member("second")].concat();
        for length in member("first").len() + 1..two.len() {
            let error = read(&two[..length]).0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {length}");
        }
    }
}
