//! A tar shard in the convention of WebDataset: the files of a face have one key, and follow each other.

use std::io::{self, Write};

use super::entry::Entry;
use super::manifest::FaceFacts;

/// Writes a shard in order. The same entries give the same bytes.
pub struct TarShard<W: Write> {
    tar: tar::Builder<W>,
    /// Pixels of the pictures.
    size: u32,
}

impl<W: Write> TarShard<W> {
    pub fn new(to: W, size: u32) -> Self {
        Self { tar: tar::Builder::new(to), size }
    }

    fn put(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        self.tar.append_data(&mut header, name, content)
    }

    /// Adds the picture, what is known of the face, and its class if it has one.
    pub fn add(&mut self, entry: &Entry, picture: &[u8]) -> io::Result<()> {
        let key = entry.name.split('.').next().unwrap_or_default();
        self.put(&entry.name, picture)?;
        self.put(&format!("{key}.json"), &serde_json::to_vec(&FaceFacts::of(entry, self.size))?)?;
        match entry.class {
            Some(class) => self.put(&format!("{key}.cls"), class.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }
}
