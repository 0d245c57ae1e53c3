//! Reads a list of URLs: one a line. Blank lines and lines that begin with `#` do not count.

use memchr::{memchr2, memchr2_iter};

use super::error::{Position, SourceError};
use super::stream::{BOM, Stream};
use super::table_columns::PhotoRows;
use facemill_domain::{Candidate, Printable};

/// Longer lines are errors, in bytes: no host takes such a URL.
const MAX_LINE: usize = 64 << 10;

/// Whether the first line that counts is a URL.
pub fn sniff(head: &[u8]) -> bool {
    let head = head.strip_prefix(BOM).unwrap_or(head);
    let mut lines = head.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    lines.find(|line| counts(line)).is_some_and(is_url)
}

fn counts(line: &[u8]) -> bool {
    !line.is_empty() && line[0] != b'#'
}

/// Whether a text begins with a scheme and `//`, or with `//` as in a page. The fetch stage decides which schemes it
/// takes.
fn is_url(text: &[u8]) -> bool {
    let Some(colon) = memchr::memmem::find(text, b"//") else { return false };
    let scheme = match text[..colon].split_last() {
        None => return text.len() > 2,
        Some((b':', scheme)) => scheme,
        Some(_) => return false,
    };
    let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_legal) && text.len() > colon + 2
}

/// Reads the URLs in order. Their ids are made from the URLs; a URL that comes again is the same photo.
pub fn read(mut stream: Stream<'_>) -> Result<Vec<Candidate>, SourceError> {
    if stream.fill(BOM.len())?.starts_with(BOM) {
        stream.consume(BOM.len());
    }
    let mut rows = PhotoRows::default();
    let mut line = 1;
    loop {
        let window = stream.window();
        let Some(end) = memchr2(b'\n', b'\r', window) else {
            if window.len() > MAX_LINE {
                return Err(broken(&stream, line, format!("the line is longer than {MAX_LINE} bytes")));
            }
            if stream.grow()? {
                continue;
            }
            add(&mut rows, &stream, line, stream.window().len())?;
            return Ok(rows.finish());
        };
        // The second byte of a line end of two bytes must be in the window.
        if window.get(end) == Some(&b'\r') && window.len() == end + 1 && stream.grow()? {
            continue;
        }
        let window = stream.window();
        let width = if window[end..].starts_with(b"\r\n") { 2 } else { 1 };
        add(&mut rows, &stream, line, end)?;
        stream.rows += 1;
        stream.consume(end + width);
        line += 1;
    }
}

/// Adds the line of this length at the start of the window.
fn add(rows: &mut PhotoRows, stream: &Stream<'_>, line: u64, length: usize) -> Result<(), SourceError> {
    let text = stream.window()[..length].trim_ascii();
    if !counts(text) {
        return Ok(());
    }
    if length > MAX_LINE {
        return Err(broken(stream, line, format!("the line is longer than {MAX_LINE} bytes")));
    }
    let url = str::from_utf8(text).map_err(|_| broken(stream, line, "invalid UTF-8".into()))?;
    let shown = || url.chars().take(60).collect::<String>().printable().to_string();
    if !is_url(text) {
        let detail = format!("`{}` is not a URL: a list has one URL a line, and comments begin with #", shown());
        return Err(broken(stream, line, detail));
    }
    if memchr2_iter(b' ', b'\t', text).next().is_some() {
        let detail = format!(
            "`{}` contains a blank: write %20 in a URL; several columns need a header line, as CSV or TSV",
            shown()
        );
        return Err(broken(stream, line, detail));
    }
    rows.add_url(url);
    Ok(())
}

fn broken(stream: &Stream<'_>, line: u64, detail: String) -> SourceError {
    let offset = stream.position(0).offset;
    SourceError::Broken { at: Position { line, offset }, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Progress, ReadMeter};

    fn read_text(text: &str) -> Result<Vec<Candidate>, SourceError> {
        let mut quiet = |_: Progress| {};
        read(Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet))
    }

    #[test]
    fn every_line_is_a_photo() {
        let text = "\u{feff}# my photos\r\nhttp://a.test/1.jpg\r\n\r\n  https://b.test/宇.jpg?x=1#y\t\rhttp://c.test/3\n\
            http://a.test/1.jpg\n#http://d.test/\nHTTP://e.test/5";
        assert!(sniff(text.as_bytes()));
        let photos = read_text(text).unwrap();
        let urls: Vec<&str> = photos.iter().map(|photo| photo.photo_url.as_str()).collect();
        let expected = ["http://a.test/1.jpg", "https://b.test/宇.jpg?x=1#y", "http://c.test/3", "HTTP://e.test/5"];
        assert_eq!(urls, expected, "a URL that comes again is the same photo");
        let first = &photos[0];
        assert_eq!(first.photo_id.as_str(), "bf8c25f9a229ea3bd7c536726e4d8d33", "ids must never change");
        assert_eq!((&first.face_id, first.label_id.as_str()), (&first.photo_id, ""));
        assert!(photos[1..].iter().all(|photo| photo.photo_id != first.photo_id));
    }

    #[test]
    fn faults_have_their_lines() {
        for (text, line, what) in [
            ("http://a.test/1\nphoto.jpg\n", "line 2, byte 16", "`photo.jpg` is not a URL"),
            ("http://a.test/1\r\rhttp://a.test/2 a caption", "line 3, byte 17", "contains a blank"),
            ("http://a.test/1\r\n\r\nhttp://a.test/2\tx\n", "line 3, byte 19", "CSV or TSV"),
            ("http://a.test/1\nhttp:/a.test/2", "line 2, byte 16", "is not a URL"),
        ] {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(what), "{text:?}: {error}");
        }
        let long = format!("http://a.test/1\nhttp://a.test/{}", "x".repeat(MAX_LINE));
        assert!(read_text(&long).unwrap_err().to_string().contains("line 2, byte 16"));
    }

    #[test]
    fn other_files_are_no_lists() {
        for text in ["", "# only a comment\n", "-- dump\nhttp://a.test/", "photo_id,photo_url\n1,http://a.test/", "//"]
        {
            assert!(!sniff(text.as_bytes()), "{text:?}");
        }
        for text in ["ftp://a.test/1.jpg", "//a.test/1.jpg", "\n \n# x\nhttps://a.test\n", "file:///etc/passwd"] {
            assert!(sniff(text.as_bytes()), "{text:?}");
        }
    }
}
