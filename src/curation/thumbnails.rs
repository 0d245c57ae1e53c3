//! Smaller copies of pictures, made once and kept in a folder up to a bound.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::spawn_blocking;

use super::error::ApiError;
use super::part::lock;
use crate::domain::ContentHash;
use crate::vision::image::Limits;
use crate::vision::preview::preview;

/// What a thumbnail is made from, and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thumbnail {
    /// A crop, with the width in pixels.
    Crop(ContentHash, u32),
    /// An original of a format that browsers do not show, in its own size.
    Original(ContentHash),
}

impl Thumbnail {
    fn file_name(self) -> String {
        match self {
            Self::Crop(hash, size) => format!("{hash}-{size}.jpg"),
            Self::Original(hash) => format!("{hash}-original.jpg"),
        }
    }

    fn hash(self) -> ContentHash {
        match self {
            Self::Crop(hash, _) | Self::Original(hash) => hash,
        }
    }
}

/// The thumbnails of a process. Those that were not used for longest go first.
pub struct Thumbnails {
    folder: PathBuf,
    files: Mutex<Files>,
    /// A thumbnail is made by one request; others that want it wait.
    making: [AsyncMutex<()>; Self::LOCKS],
    /// Pictures that are decoded at the same time.
    decoders: Semaphore,
}

#[derive(Default)]
struct Files {
    /// Bytes and last use of each file.
    known: HashMap<String, (u64, u64)>,
    bytes: u64,
    most: u64,
    uses: u64,
}

impl Thumbnails {
    const LOCKS: usize = 64;
    const DECODERS: usize = 2;
    /// Originals were decoded within the limit of their run; this one only bounds memory.
    const LIMITS: Limits = Limits { pixels: 100_000_000 };

    /// Uses a folder, with what an earlier process has left in it. `most`: bytes of all files.
    pub fn open(folder: &Path, most: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            let (name, data) = (file.file_name().to_string_lossy().into_owned(), file.metadata()?);
            match name.ends_with(".jpg") {
                true => found.push((data.modified()?, name, data.len())),
                // A killed process has left it.
                false if name.ends_with(crate::atomic_file::PARTIAL) => drop(std::fs::remove_file(file.path())),
                false => {}
            }
        }
        found.sort();
        let mut files = Files { most, ..Files::default() };
        let too_many: Vec<String> = found.into_iter().flat_map(|(_, name, bytes)| files.add(name, bytes)).collect();
        too_many.iter().for_each(|name| drop(std::fs::remove_file(folder.join(name))));
        Ok(Self {
            folder: folder.to_owned(),
            files: Mutex::new(files),
            making: [const { AsyncMutex::const_new(()) }; Self::LOCKS],
            decoders: Semaphore::new(Self::DECODERS),
        })
    }

    /// The JPEG, made from `picture` if it is not there.
    pub async fn get<F>(&self, wanted: Thumbnail, picture: impl FnOnce() -> F) -> Result<Bytes, ApiError>
    where
        F: Future<Output = Result<Bytes, ApiError>>,
    {
        let shard = usize::from(wanted.hash().as_bytes()[0]) % Self::LOCKS;
        let _alone = self.making[shard].lock().await;
        let (name, path) = (wanted.file_name(), self.folder.join(wanted.file_name()));
        if lock(&self.files).touch(&name)
            && let Ok(body) = tokio::fs::read(&path).await
        {
            return Ok(body.into());
        }
        let picture = picture().await?;
        let _turn = self.decoders.acquire().await.map_err(ApiError::internal)?;
        let made = spawn_blocking(move || make(&picture, wanted)).await.map_err(ApiError::internal)??;
        self.keep(name, path, made.clone()).await;
        Ok(made)
    }

    /// A full disk only means that the thumbnail is made again.
    async fn keep(&self, name: String, path: PathBuf, body: Bytes) {
        let (bytes, folder) = (body.len() as u64, self.folder.clone());
        let too_many = lock(&self.files).add(name, bytes);
        let written = spawn_blocking(move || {
            too_many.iter().for_each(|name| drop(std::fs::remove_file(folder.join(name))));
            let mut file = tempfile::Builder::new().suffix(crate::atomic_file::PARTIAL).tempfile_in(&folder)?;
            file.write_all(&body)?;
            file.persist(path).map(drop).map_err(|error| error.error)
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "a thumbnail cannot be kept");
        }
    }
}

impl Files {
    /// Whether the file should be there. It is used now.
    fn touch(&mut self, name: &str) -> bool {
        self.uses += 1;
        let known = self.known.get_mut(name);
        if let Some((_, used)) = known {
            *used = self.uses;
            return true;
        }
        false
    }

    /// Adds a file. Returns the files to delete.
    fn add(&mut self, name: String, bytes: u64) -> Vec<String> {
        self.uses += 1;
        self.bytes += bytes;
        if let Some((earlier, _)) = self.known.insert(name, (bytes, self.uses)) {
            self.bytes -= earlier;
        }
        if self.bytes <= self.most {
            return Vec::new();
        }
        // A tenth more, so that this is rare.
        let least = self.most / 10 * 9;
        let mut by_use: Vec<(u64, String)> = self.known.iter().map(|(name, (_, used))| (*used, name.clone())).collect();
        by_use.sort_unstable();
        let mut gone = Vec::new();
        for (_, name) in by_use {
            if self.bytes <= least {
                break;
            }
            if let Some((bytes, _)) = self.known.remove(&name) {
                self.bytes -= bytes;
                gone.push(name);
            }
        }
        gone
    }
}

fn make(picture: &[u8], wanted: Thumbnail) -> Result<Bytes, ApiError> {
    let longest = match wanted {
        Thumbnail::Crop(_, size) => size,
        Thumbnail::Original(_) => u32::MAX,
    };
    let made = preview(picture, longest, Thumbnails::LIMITS);
    made.map(Bytes::from).map_err(|error| ApiError::internal(format!("cannot scale a picture: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use image::RgbImage;

    use super::*;
    use crate::domain::ImageFormat;
    use crate::vision::image::{decode, encode};

    fn picture() -> Bytes {
        encode(&RgbImage::from_pixel(512, 512, image::Rgb([200, 100, 50])), ImageFormat::Png).unwrap().into()
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thumbnail_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let thumbnails = Thumbnails::open(folder.path(), 1 << 20).unwrap();
        let made = AtomicUsize::new(0);
        let crop = Thumbnail::Crop(ContentHash::of(b"crop"), 256);
        let get = || {
            thumbnails.get(crop, || async {
                made.fetch_add(1, Ordering::SeqCst);
                Ok(picture())
            })
        };
        let all = futures::future::join_all((0..8).map(|_| get())).await;
        let pixels = decode(all[0].as_ref().unwrap(), Thumbnails::LIMITS).unwrap();
        assert_eq!((pixels.dimensions(), made.load(Ordering::SeqCst)), ((256, 256), 1));
        // Another process finds it, and makes it again after it was deleted.
        let again = Thumbnails::open(folder.path(), 1 << 20).unwrap();
        let refused = || async { Err(ApiError::not_found("x")) };
        assert_eq!(again.get(crop, refused).await.unwrap(), all[0].clone().unwrap());
        std::fs::remove_file(folder.path().join(crop.file_name())).unwrap();
        assert_eq!(again.get(crop, refused).await, Err(ApiError::not_found("x")));
        assert!(again.get(crop, || async { Ok(picture()) }).await.is_ok());
    }

    #[tokio::test]
    async fn those_that_were_not_used_for_longest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let name = |number: u8| Thumbnail::Crop(ContentHash::of(&[number]), 256);
        let bytes = {
            let thumbnails = Thumbnails::open(folder.path(), 1 << 20).unwrap();
            thumbnails.get(name(0), || async { Ok(picture()) }).await.unwrap().len() as u64
        };
        let thumbnails = Thumbnails::open(folder.path(), 10 * bytes).unwrap();
        for number in 1..10 {
            thumbnails.get(name(number), || async { Ok(picture()) }).await.unwrap();
        }
        assert_eq!(files(folder.path()), 10);
        thumbnails.get(name(0), || async { Err(ApiError::not_found("it is there")) }).await.unwrap();
        thumbnails.get(name(10), || async { Ok(picture()) }).await.unwrap();
        assert_eq!(files(folder.path()), 9);
        assert!(folder.path().join(name(0).file_name()).exists(), "it was used");
        assert!(!folder.path().join(name(1).file_name()).exists());
        // A smaller bound holds from the start.
        drop(thumbnails);
        Thumbnails::open(folder.path(), 3 * bytes).unwrap();
        assert!(files(folder.path()) <= 3);
    }

    #[test]
    fn a_file_that_is_no_picture_is_an_error() {
        assert_eq!(make(b"no picture", Thumbnail::Original(ContentHash::of(b"x"))).unwrap_err().status, 500);
    }
}
