//! One zip that the tools of StyleGAN2-ADA, StyleGAN3 and EDM2 read.
//!
//! Their loader (`training/dataset.py`, `ImageFolderDataset`) takes all files of the zip with a known extension, sorted by
//! name, and the labels from `dataset.json`: `{"labels": [[name, class], ...]}` or `{"labels": null}`. All pictures must
//! have one size, square and a power of two; either every picture has a class or none.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use serde::Serialize;
use zip::write::{PreparedZipFile, SimpleFileOptions};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::entry::Entry;

const LABELS: &str = "dataset.json";

/// Writes the archive in order. The same entries give the same bytes.
pub struct StyleGanZip<W: Write + Seek> {
    zip: ZipWriter<W>,
    labels: Vec<(String, Option<usize>)>,
}

impl<W: Write + Seek> StyleGanZip<W> {
    pub fn new(to: W) -> Self {
        Self { zip: ZipWriter::new(to), labels: Vec::new() }
    }

    fn put(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        // Without a date: the same faces give the same bytes.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644);
        let prepared = PreparedZipFile::from_data(name, options, content)?;
        Ok(self.zip.add_prepared_file(prepared)?)
    }

    pub fn add(&mut self, entry: &Entry, picture: &[u8]) -> io::Result<()> {
        self.labels.push((entry.name.clone(), entry.class));
        self.put(&entry.name, picture)
    }

    /// Writes the labels and the directory of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        #[derive(Serialize)]
        struct Labels {
            labels: Option<Vec<(String, usize)>>,
        }
        let labels = std::mem::take(&mut self.labels);
        let labels = labels.into_iter().map(|(name, class)| class.map(|class| (name, class))).collect();
        let labels = serde_json::to_vec(&Labels { labels })?;
        self.put(LABELS, &labels)?;
        Ok(self.zip.finish()?)
    }
}

/// The pictures that an interrupted export wrote, in order, up to the first that is not complete.
pub struct EarlierPictures {
    file: io::BufReader<File>,
}

impl EarlierPictures {
    pub fn new(file: File) -> Self {
        Self { file: io::BufReader::with_capacity(1 << 20, file) }
    }

    /// The next picture, if it has this name and is complete.
    pub fn next(&mut self, name: &str) -> Option<Vec<u8>> {
        let mut entry = zip::read::read_zipfile_from_stream(&mut self.file).ok()??;
        if entry.name().ok()? != name {
            return None;
        }
        // Reading to the end compares the checksum.
        let mut picture = Vec::new();
        entry.read_to_end(&mut picture).ok()?;
        (picture.len() as u64 == entry.size()).then_some(picture)
    }
}

/// Checks a finished archive by the rules of the loaders.
///
/// # Errors
/// What they would refuse, in words.
pub fn check(archive: impl Read + Seek, size: u32, faces: usize) -> Result<(), String> {
    let mut archive = ZipArchive::new(archive).map_err(|error| error.to_string())?;
    let names = archive.file_names().map(|name| name.map(std::borrow::Cow::into_owned)).collect::<Result<Vec<_>, _>>();
    let names: Vec<String> = names.map_err(|error| error.to_string())?;
    let pictures: Vec<&String> = names.iter().filter(|name| name.as_str() != LABELS).collect();
    if pictures.len() != faces {
        return Err(format!("it has {} pictures instead of {faces}", pictures.len()));
    }
    if !size.is_power_of_two() {
        return Err(format!("{size} pixels are no power of two"));
    }
    if !pictures.is_sorted() {
        return Err("its pictures are not in the order of their names".into());
    }
    for name in &pictures {
        let mut picture = archive.by_name(name).map_err(|error| format!("{name}: {error}"))?;
        let mut head = [0; 26];
        picture.read_exact(&mut head).map_err(|error| format!("{name}: {error}"))?;
        // Signature, length and name of the header, width, height, depth, colour type (PNG, 11.2.2).
        let side = size.to_be_bytes();
        let expected = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &side, &side, &[8, 2]].concat();
        if head[..] != expected {
            return Err(format!("{name} is no RGB picture of {size} pixels"));
        }
    }
    #[derive(serde::Deserialize)]
    struct Labels {
        labels: Option<Vec<(String, u64)>>,
    }
    let file = archive.by_name(LABELS).map_err(|error| format!("{LABELS}: {error}"))?;
    let labels: Labels = serde_json::from_reader(file).map_err(|error| format!("{LABELS}: {error}"))?;
    let Some(labels) = labels.labels else { return Ok(()) };
    if !labels.iter().map(|(name, _)| name).eq(pictures.iter().copied()) {
        return Err(format!("{LABELS} does not name every picture once"));
    }
    let classes: std::collections::BTreeSet<u64> = labels.iter().map(|(_, class)| *class).collect();
    match classes.iter().copied().eq(0..classes.len() as u64) {
        true => Ok(()),
        false => Err(format!("the classes in {LABELS} are not numbered from 0 without gaps")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::SeekFrom;
    use std::process::Command;

    use super::*;
    use crate::dataset::Face;
    use crate::report::fixtures::predicted;

    /// Skips zeros instead of writing them: the file has holes there.
    struct Sparse {
        file: File,
        zeros: Vec<u8>,
    }

    impl Write for Sparse {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.zeros.starts_with(bytes) {
                true => self.file.seek(SeekFrom::Current(bytes.len() as i64)).map(|_| bytes.len()),
                false => self.file.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.file.flush()
        }
    }

    impl Seek for Sparse {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    /// Python's zipfile reads the directory at the end, and the last picture, which begins beyond 4 GiB.
    const ZIPFILE: &str = r#"
import json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
entries = archive.infolist()
*pictures, labels = entries
last = pictures[-1]
content = archive.read(last)
print(json.dumps({"pictures": len(pictures), "sorted": pictures == sorted(pictures, key=lambda entry: entry.filename),
                  "last": [last.filename, last.header_offset > 1 << 32, len(content), content[:4].decode()],
                  "labels": len(json.loads(archive.read(labels))["labels"])}))
"#;

    #[test]
    fn archives_beyond_4_gib_and_65535_pictures_are_read_by_others() {
        const PICTURES: usize = 65_600;
        const BYTES: usize = 65_600;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.zip");
        let sparse = Sparse { file: File::create(&path).unwrap(), zeros: vec![0; BYTES] };
        let mut zip = StyleGanZip::new(sparse);
        let face = Face::of(&predicted(1, 0.9)).unwrap();
        let mut entry = Entry { name: String::new(), face, label: String::new(), class: Some(0) };
        let mut picture = vec![0; BYTES];
        for at in 0..PICTURES {
            let number = format!("{at:08}");
            entry.name = format!("{}/img{number}.png", &number[..5]);
            if at == PICTURES - 1 {
                picture[..4].copy_from_slice(b"last");
            }
            zip.add(&entry, &picture).unwrap();
        }
        zip.finish().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 1 << 32);
        let read = Command::new("python3").args(["-B", "-c", ZIPFILE]).arg(&path).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let read: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
        let expected = serde_json::json!({
            "pictures": PICTURES, "sorted": true, "labels": PICTURES,
            "last": ["00065/img00065599.png", true, BYTES, "last"],
        });
        assert_eq!(read, expected);
        // What the export itself checks after writing reads the directory, too.
        let refused = check(File::open(&path).unwrap(), 64, PICTURES).unwrap_err();
        assert!(refused.contains("is no RGB picture of 64 pixels"), "{refused}");
    }
}
