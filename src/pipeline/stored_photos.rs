//! Fetches photos that are in a folder or a bucket already.
//!
//! They are read only from folders that a person has named for the run: see [`crate::archive::run_folders`].

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::refused::RefusalCheck;
use super::stage::{Outcome, Retry, store_failed};
use crate::archive::run_folders::{RunFolder, RunFolders, StoredRunFolders};
use crate::domain::{Candidate, Cause, CauseCode, ContentHash, Original, Photo, RunName, StoredUrl};
use crate::memory::Reservation;
use crate::net::{self, Fetcher};
use crate::objects::s3::S3;
use crate::objects::{ObjectKey, Objects};

/// Where a process may look for the photos of folders.
#[derive(Clone, Default)]
pub struct StoredAccess {
    /// Whether it reads local files. Workers of an installation do not.
    pub local_files: bool,
    /// The service whose buckets it reads.
    pub s3: Option<S3>,
}

impl std::fmt::Debug for StoredAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s3 = self.s3.as_ref().map(S3::name);
        f.debug_struct("StoredAccess").field("local_files", &self.local_files).field("s3", &s3).finish()
    }
}

/// Fetches photos of folders.
pub struct StoredPhotos {
    access: StoredAccess,
    folders: StoredRunFolders,
    objects: Arc<dyn Objects>,
    refusals: RefusalCheck,
    /// The folders of runs as they were last read.
    known: Mutex<HashMap<RunName, RunFolders>>,
}

impl StoredPhotos {
    pub fn new(access: StoredAccess, objects: Arc<dyn Objects>) -> Self {
        let (folders, refusals) = (StoredRunFolders::new(objects.clone()), RefusalCheck::new(objects.clone()));
        Self { access, folders, objects, refusals, known: Mutex::default() }
    }

    /// Fetches the photo if its URL is that of a file or an object; none if it is any other URL.
    pub async fn fetch(&self, photo: &Photo, fetcher: &Fetcher) -> Option<Result<Original, Outcome>> {
        let url: StoredUrl = photo.candidate.photo_url.parse().ok()?;
        Some(self.fetch_stored(photo, &url, fetcher).await)
    }

    async fn fetch_stored(&self, photo: &Photo, url: &StoredUrl, fetcher: &Fetcher) -> Result<Original, Outcome> {
        let folder = self.folder(&photo.run, &photo.candidate, url).await?;
        let (bytes, reservation) = match url {
            StoredUrl::File(_) => self.read_file(&folder, url, fetcher).await?,
            StoredUrl::S3 { bucket, key } => self.read_object(bucket, key, fetcher).await?,
        };
        if bytes.is_empty() {
            return Err(Outcome::Reject(Cause::new(CauseCode::EmptyBody, "the file is empty")));
        }
        let format = net::sniff_photo(&bytes, "").map_err(Outcome::from)?;
        let (sha256, bytes) = hash(bytes).await;
        let original = Original { sha256, bytes: bytes.len() as u64, format };
        self.refusals.of_original(&[&photo.candidate.photo_url], sha256).await?;
        let key = ObjectKey::original(sha256, format);
        let stored = match folder.copy || !self.objects.links_to(url) {
            true => self.objects.put(&key, bytes, format.media_type()).await,
            false => self.objects.link(&key, url).await,
        };
        drop(reservation);
        stored.map(|_| original).map_err(|error| store_failed(&error))
    }

    /// The folder of the photo. Reads the list of folders again where the known one lacks it.
    async fn folder(&self, run: &RunName, candidate: &Candidate, url: &StoredUrl) -> Result<RunFolder, Outcome> {
        let known = |known: &HashMap<RunName, RunFolders>| known.get(run)?.folder_of(candidate, url).cloned();
        if let Some(folder) = self.known.lock().ok().and_then(|folders| known(&folders)) {
            return Ok(folder);
        }
        let read = self.folders.read(run).await.map_err(|error| store_failed(&error))?;
        let folder = read.folder_of(candidate, url).cloned();
        if let Ok(mut known) = self.known.lock() {
            known.insert(run.clone(), read);
        }
        folder.ok_or_else(|| {
            let detail = format!("`{url}`: photos are read only from folders that are named as the source of the run");
            Outcome::Reject(Cause::new(CauseCode::BadUrl, detail))
        })
    }

    async fn read_file(
        &self,
        folder: &RunFolder,
        url: &StoredUrl,
        fetcher: &Fetcher,
    ) -> Result<(Bytes, Reservation), Outcome> {
        let root = folder.url.parse::<StoredUrl>().ok().and_then(|url| url.path());
        let (Some(path), Some(root), true) = (url.path(), root, self.access.local_files) else {
            let detail = format!("`{url}`: workers of an installation read no local files");
            return Err(Outcome::Reject(Cause::new(CauseCode::BadUrl, detail)));
        };
        let most = fetcher.max_bytes();
        let (file, size) = blocking(move || open_within(path, root)).await.map_err(|error| not_read(url, &error))?;
        check_size(size, most)?;
        let reservation = fetcher.reserve(size).await.map_err(Outcome::from)?;
        let read = blocking(move || {
            let mut bytes = Vec::with_capacity(size as usize);
            file.take(most + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = read.await.map_err(|error| not_read(url, &error))?;
        check_size(bytes.len() as u64, most)?;
        Ok((bytes.into(), reservation))
    }

    async fn read_object(&self, bucket: &str, key: &str, fetcher: &Fetcher) -> Result<(Bytes, Reservation), Outcome> {
        let Some(s3) = &self.access.s3 else {
            let detail = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE: the keys of the bucket";
            return Err(Retry::failed(Cause::new(CauseCode::StoreRefused, detail)));
        };
        let gone =
            || Outcome::Gone(Cause::new(CauseCode::ObjectMissing, format!("s3://{bucket}/{key} does not exist")));
        let store = s3.in_bucket(bucket);
        let size = store.size_of(key).await.map_err(|error| store_failed(&error))?.ok_or_else(gone)?;
        check_size(size, fetcher.max_bytes())?;
        let reservation = fetcher.reserve(size).await.map_err(Outcome::from)?;
        let bytes = store.read_foreign(key).await.map_err(|error| store_failed(&error))?.ok_or_else(gone)?;
        check_size(bytes.len() as u64, fetcher.max_bytes())?;
        Ok((bytes, reservation))
    }
}

fn check_size(size: u64, most: u64) -> Result<(), Outcome> {
    match size <= most {
        true => Ok(()),
        false => Err(Outcome::Reject(Cause::new(CauseCode::TooLarge, format!("more than {most} bytes")))),
    }
}

/// Opens a file below the root. Links that lead out of the root are not followed. Returns the size in bytes, too.
fn open_within(path: PathBuf, root: PathBuf) -> io::Result<(std::fs::File, u64)> {
    let (path, root) = (path.canonicalize()?, root.canonicalize()?);
    if !path.starts_with(&root) {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it leads out of its folder"));
    }
    let file = std::fs::File::open(path)?;
    let data = file.metadata()?;
    match data.is_file() {
        true => Ok((file, data.size())),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

fn not_read(url: &StoredUrl, error: &io::Error) -> Outcome {
    let detail = format!("`{url}`: {error}");
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Outcome::Gone(Cause::new(CauseCode::ObjectMissing, detail)),
        ErrorKind::InvalidInput => Outcome::Reject(Cause::new(CauseCode::NotAnImage, detail)),
        ErrorKind::PermissionDenied => Retry::failed(Cause::new(CauseCode::StoreRefused, detail)),
        _ => Retry::failed(Cause::new(CauseCode::StoreUnavailable, detail)),
    }
}

/// Hashes away from the async threads: a photo may have many megabytes.
async fn hash(bytes: Bytes) -> (ContentHash, Bytes) {
    let shared = bytes.clone();
    match tokio::task::spawn_blocking(move || ContentHash::of(&shared)).await {
        Ok(sha256) => (sha256, bytes),
        Err(_) => (ContentHash::of(&bytes), bytes),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}
