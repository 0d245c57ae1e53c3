//! Photos that are in a folder already, or in a bucket below a prefix: each is a candidate of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Options;
use super::error::SourceError;
use facemill_domain::{Candidate, ContentHash, Id, Printable, StoredUrl, hash};

/// The endings of the names of photos, in lower case. The content of a file decides what it is; the name decides only
/// whether it is looked at.
const ENDINGS: [&str; 18] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif", "heic", "heif", "jxl",
    "jp2", "j2k", "jpx",
];

/// A longer path is no id: the id is then a hash of the path. Bytes; leaves room for `--id-prefix`.
const MAX_ID: usize = 150;

/// The deepest folder that is read.
const MAX_DEPTH: usize = 64;

/// The file that shows that a folder is the output of a run.
const LEDGER: &str = "ledger.sqlite";

/// Why a file, folder or object is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Skip {
    Hidden,
    Link,
    NoPhoto,
    Output,
    TooDeep,
}

impl Skip {
    /// What is told of one or several.
    fn told(self, several: bool) -> &'static str {
        match (self, several) {
            (Self::Hidden, false) => "hidden file or folder was left out",
            (Self::Hidden, true) => "hidden files or folders were left out",
            (Self::Link, false) => "symbolic link was left out, because it does not lead to a photo within the folder",
            (Self::Link, true) => "symbolic links were left out, because they do not lead to photos within the folder",
            (Self::NoPhoto, false) => "file was left out, because it is no photo",
            (Self::NoPhoto, true) => "files were left out, because they are no photos",
            (Self::Output, false) => "folder was left out, because it is the output of a run",
            (Self::Output, true) => "folders were left out, because they are the outputs of runs",
            (Self::TooDeep, false) => "folder was left out, because it lies too deep",
            (Self::TooDeep, true) => "folders were left out, because they lie too deep",
        }
    }
}

/// The photos of one folder.
pub struct PhotoFolder<'o> {
    url: StoredUrl,
    options: &'o Options,
    candidates: Vec<Candidate>,
    /// How many were left out for each reason, and the first of them.
    skipped: BTreeMap<Skip, (u64, String)>,
}

impl<'o> PhotoFolder<'o> {
    /// An empty list of the photos below `url`.
    pub fn new(url: StoredUrl, options: &'o Options) -> Self {
        Self { url, options, candidates: Vec::new(), skipped: BTreeMap::new() }
    }

    /// Lists a folder and its sub-folders. Symbolic links are followed only within the folder.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list(root: &Path, options: &'o Options) -> Result<Vec<Candidate>, SourceError> {
        Ok(Self::read(root, options)?.finish())
    }

    fn read(root: &Path, options: &'o Options) -> Result<Self, SourceError> {
        let failed = |path: &Path, error| SourceError::Io { what: path.display().to_string(), error };
        let root = root.canonicalize().map_err(|error| failed(root, error))?;
        let mut listing = Self::new(StoredUrl::folder(&root), options);
        let mut folders = vec![(root.clone(), 0)];
        let mut photos = Vec::new();
        while let Some((folder, depth)) = folders.pop() {
            if depth > 0 && folder.join(LEDGER).exists() {
                listing.skip(Skip::Output, &folder.display());
                continue;
            }
            let entries = std::fs::read_dir(&folder).map_err(|error| failed(&folder, error))?;
            for entry in entries {
                let entry = entry.map_err(|error| failed(&folder, error))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(|error| failed(&path, error))?;
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    listing.skip(Skip::Hidden, &path.display());
                } else if kind.is_dir() && depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                } else if kind.is_dir() {
                    listing.skip(Skip::TooDeep, &path.display());
                } else if kind.is_symlink() && !leads_to_file_within(&root, &path) {
                    listing.skip(Skip::Link, &path.display());
                } else if (kind.is_file() || kind.is_symlink())
                    && is_photo(&path).map_err(|error| failed(&path, error))?
                {
                    photos.push(path);
                } else {
                    listing.skip(Skip::NoPhoto, &path.display());
                }
            }
        }
        photos.sort();
        for path in photos {
            let relative: PathBuf = path.strip_prefix(&root).map(Path::to_owned).unwrap_or_default();
            let photo = StoredUrl::file(&path);
            match relative.to_str() {
                Some(relative) => listing.add(&photo, relative),
                // The URL shows the bytes that are not UTF-8 as %XX.
                None => {
                    let (folder, photo_text) = (listing.url.to_string(), photo.to_string());
                    listing.add(&photo, photo_text.strip_prefix(&folder).unwrap_or(&photo_text));
                }
            }
        }
        Ok(listing)
    }

    /// Adds an object of the bucket if its name is that of a photo.
    pub fn add_object(&mut self, key: &str) {
        let StoredUrl::S3 { bucket, key: prefix } = &self.url else { return };
        let Some(relative) = key.strip_prefix(prefix.as_str()) else { return };
        // A key that ends with `/` stands for a folder.
        if relative.is_empty() || relative.ends_with('/') {
            return;
        }
        let is_hidden = |segment: &str| segment.is_empty() || segment.starts_with('.');
        if relative.split('/').any(is_hidden) {
            return self.skip(Skip::Hidden, &key);
        }
        if !has_photo_name(Path::new(relative)) {
            return self.skip(Skip::NoPhoto, &key);
        }
        let photo = StoredUrl::S3 { bucket: bucket.clone(), key: key.to_owned() };
        let relative = relative.to_owned();
        self.add(&photo, &relative);
    }

    /// Adds a photo by its path below the folder.
    fn add(&mut self, photo: &StoredUrl, relative: &str) {
        let is_plain = relative.len() <= MAX_ID && !relative.chars().any(char::is_control);
        let id = match is_plain {
            true => Id::new(relative),
            false => Id::new(hash::hex(&ContentHash::of(relative.as_bytes()).as_bytes()[..16])),
        };
        let mut candidate = Candidate::new(id, photo.to_string());
        if self.options.label_from_folder
            && let Some((label, _)) = relative.split_once('/')
        {
            candidate.label_id = Id::new(label);
            candidate.label_name = Some(label.to_owned());
        }
        self.candidates.push(candidate);
    }

    fn skip(&mut self, why: Skip, name: &impl ToString) {
        self.skipped.entry(why).or_insert_with(|| (0, name.to_string())).0 += 1;
    }

    /// The photos, with what all kinds of sources have in common.
    pub fn finish(mut self) -> Vec<Candidate> {
        for (why, (count, first)) in &self.skipped {
            let (told, first) = (why.told(*count > 1), first.printable());
            let more = if *count > 1 { ", ..." } else { "" };
            tracing::warn!("{count} {told}: {first}{more}");
        }
        self.options.complete(&mut self.candidates);
        let folder = self.url.to_string();
        self.candidates.iter_mut().for_each(|candidate| candidate.source = Some(folder.clone()));
        self.candidates
    }
}

fn has_photo_name(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    ENDINGS.contains(&ending.as_str())
}

/// Whether a symbolic link leads to a file within the root. A link may lead nowhere.
fn leads_to_file_within(root: &Path, link: &Path) -> bool {
    link.canonicalize().is_ok_and(|target| target.starts_with(root) && target.is_file())
}

/// Whether the file is a photo by its name, or by its content if its name has no ending.
fn is_photo(path: &Path) -> io::Result<bool> {
    if path.extension().is_some() {
        return Ok(has_photo_name(path));
    }
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(path)?, 64), &mut head)?;
    Ok(facemill_domain::ImageFormat::sniff(&head).is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn ids(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.photo_id.as_str()).collect()
    }

    #[test]
    fn photos_of_all_sub_folders_are_listed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("photos");
        let outside = scratch.path().join("secret.jpg");
        std::fs::write(&outside, "x").unwrap();
        for (name, content) in [
            ("b/2.JPG", "x"),
            ("b/deep/3.png", "x"),
            ("1.jpg", "x"),
            ("b/0123abcd", "\u{1}"),
            ("README", "text"),
            ("notes.txt", "x"),
            (".hidden/4.jpg", "x"),
            ("out/ledger.sqlite", "x"),
            ("out/faces/5.png", "x"),
        ] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::write(root.join("b/0123abcd"), b"\xff\xd8\xff\xe0").unwrap();
        symlink(&outside, root.join("out.jpg")).unwrap();
        symlink(root.join("1.jpg"), root.join("b/again.jpg")).unwrap();
        symlink(&root, root.join("loop")).unwrap();
        // A socket cannot be opened as a file.
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();

        let options = Options { label_from_folder: true, ..Options::default() };
        let listing = PhotoFolder::read(&root, &options).unwrap();
        let skipped: Vec<_> = listing.skipped.iter().map(|(why, (count, _))| (*why, *count)).collect();
        assert_eq!(skipped, [(Skip::Hidden, 1), (Skip::Link, 2), (Skip::NoPhoto, 3), (Skip::Output, 1)]);
        let photos = listing.finish();
        assert_eq!(ids(&photos), ["1.jpg", "b/0123abcd", "b/2.JPG", "b/again.jpg", "b/deep/3.png"]);
        let labels: Vec<_> = photos.iter().map(|photo| photo.label_name.as_deref()).collect();
        assert_eq!(labels, [None, Some("b"), Some("b"), Some("b"), Some("b")]);
        let folder = StoredUrl::folder(&root.canonicalize().unwrap()).to_string();
        assert_eq!(photos[0].photo_url, format!("{folder}1.jpg"));
        assert!(photos.iter().all(|photo| photo.source.as_deref() == Some(folder.as_str())));
        assert!(photos.iter().all(|photo| photo.label_id.as_str() == photo.label_name.as_deref().unwrap_or("")));
    }

    #[test]
    fn objects_below_a_prefix_are_photos() {
        let options = Options { id_prefix: "x-".into(), ..Options::default() };
        let mut folder = PhotoFolder::new("s3://b/p/".parse().unwrap(), &options);
        let long = format!("p/{}.jpg", "y".repeat(300));
        for key in ["p/", "p/a b.jpg", "p/q/", "p/q/c.webp", "p/q/.d.jpg", "p//e.jpg", "p/f.txt", "q/g.jpg", &long] {
            folder.add_object(key);
        }
        let skipped: Vec<_> =
            folder.skipped.iter().map(|(why, (count, first))| (*why, *count, first.as_str())).collect();
        assert_eq!(skipped, [(Skip::Hidden, 2, "p/q/.d.jpg"), (Skip::NoPhoto, 1, "p/f.txt")]);
        let photos = folder.finish();
        assert_eq!(ids(&photos)[..2], ["x-a b.jpg", "x-q/c.webp"]);
        assert_eq!(photos[0].photo_url, "s3://b/p/a%20b.jpg");
        assert_eq!(photos[2].photo_id.as_str().len(), 34, "the id of a long path is a hash");
        assert_eq!(photos[0].source.as_deref(), Some("s3://b/p/"));
    }
}
