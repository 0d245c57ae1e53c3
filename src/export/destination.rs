//! Where an export goes: a local path, or an address in S3.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::ExportError;
use crate::atomic_file::{AtomicFile, PARTIAL, sync_folder_of};
use crate::objects::s3::{S3, Upload};

/// Where an export goes. In S3, names are used as they are, without the prefix of the installation.
#[derive(Clone)]
pub enum Destination {
    Local(PathBuf),
    /// `store` is the bucket.
    S3 {
        store: S3,
        key: String,
    },
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::S3 { store, key } => write!(f, "s3://{}/{key}", store.bucket()),
        }
    }
}

impl Destination {
    /// A file below this folder. `name` has `/` between folders; an empty one is this place itself.
    pub fn join(&self, name: &str) -> Self {
        match self {
            _ if name.is_empty() => self.clone(),
            Self::Local(path) => Self::Local(path.join(name)),
            Self::S3 { store, key } => {
                Self::S3 { store: store.clone(), key: format!("{}/{name}", key.trim_end_matches('/')) }
            }
        }
    }

    /// The file beside this one with another end of its name: `faces.zip` and `.manifest.jsonl` give
    /// `faces.manifest.jsonl`.
    pub fn beside(&self, ending: &str) -> Self {
        let stem = |name: &str| name.strip_suffix(".zip").unwrap_or(name).to_owned();
        match self {
            Self::Local(path) => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Self::Local(path.with_file_name(stem(&name) + ending))
            }
            Self::S3 { store, key } => Self::S3 { store: store.clone(), key: stem(key) + ending },
        }
    }

    /// Whether the file exists.
    pub async fn exists(&self) -> Result<bool, ExportError> {
        match self {
            Self::Local(path) => path.try_exists().map_err(|error| ExportError::write(self, error)),
            Self::S3 { store, key } => Ok(store.size_of(key).await?.is_some()),
        }
    }

    /// Whether this folder has something in it. Hidden files do not count.
    pub async fn has_files(&self) -> Result<bool, ExportError> {
        match self {
            Self::Local(path) => {
                let entries = match std::fs::read_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    entries => entries.map_err(|error| ExportError::write(self, error))?,
                };
                Ok(entries.flatten().any(|entry| !entry.file_name().to_string_lossy().starts_with('.')))
            }
            Self::S3 { store, key } => {
                let prefix = format!("{}/", key.trim_end_matches('/'));
                Ok(!store.names(&prefix, None).await?.names.is_empty())
            }
        }
    }

    /// The first line of a file; none if it does not exist.
    pub async fn first_line(&self) -> Result<Option<String>, ExportError> {
        use std::io::BufRead;
        match self {
            Self::Local(path) => {
                let file = match File::open(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    file => file.map_err(|error| ExportError::write(self, error))?,
                };
                let mut line = String::new();
                let read = io::BufReader::new(io::Read::take(file, 1 << 20)).read_line(&mut line);
                read.map_err(|error| ExportError::write(self, error))?;
                Ok(Some(line))
            }
            Self::S3 { store, key } => match store.size_of(key).await? {
                None => Ok(None),
                Some(_) => {
                    let start = store.download(key).await?.next().await?.unwrap_or_default();
                    let end = start.iter().position(|byte| *byte == b'\n').unwrap_or(start.len());
                    Ok(Some(String::from_utf8_lossy(&start[..end]).into_owned()))
                }
            },
        }
    }

    /// Writes a small file as a whole.
    pub async fn write(&self, content: Vec<u8>, media_type: &str) -> Result<(), ExportError> {
        match self {
            Self::Local(path) => AtomicFile::write(path, &content).map_err(|error| ExportError::write(self, error)),
            Self::S3 { store, key } => {
                let mut upload = store.upload(key, media_type);
                upload.write(Bytes::from(content)).await?;
                Ok(upload.finish().await?)
            }
        }
    }

    /// Begins a file. What it returns is for a blocking thread.
    ///
    /// `mark`: what belongs to the same export has the same mark. A local file that a process with this mark left behind
    /// half written is renamed to [`Destination::earlier`].
    pub fn create(&self, mark: &str, media_type: &str) -> Result<Output, ExportError> {
        match self {
            Self::Local(path) => {
                let created = || -> io::Result<Output> {
                    std::fs::create_dir_all(folder_of(path))?;
                    let part = hidden(path, mark, PARTIAL);
                    let earlier = hidden(path, mark, EARLIER);
                    // After two interruptions the longer of both is worth more.
                    if size(&part) > size(&earlier) {
                        std::fs::rename(&part, &earlier)?;
                    }
                    let file = BufWriter::with_capacity(1 << 20, File::create(&part)?);
                    Ok(Output { target: Target::Local { file, part, path: path.clone(), earlier }, written: 0 })
                };
                created().map_err(|error| ExportError::write(self, error))
            }
            Self::S3 { store, key } => {
                let upload = Some(store.upload(key, media_type));
                let runtime = tokio::runtime::Handle::current();
                Ok(Output { target: Target::S3(S3Output { upload, runtime }), written: 0 })
            }
        }
    }

    /// What an interrupted process with the same mark wrote of this file. Call it after [`Destination::create`].
    pub fn earlier(&self, mark: &str) -> Option<File> {
        match self {
            Self::Local(path) => File::open(hidden(path, mark, EARLIER)).ok(),
            Self::S3 { .. } => None,
        }
    }

    /// Keeps other processes from writing to the same local place until the lock is dropped. In S3 there are no locks.
    pub fn lock(&self) -> Result<Option<Lock>, ExportError> {
        let Self::Local(path) = self else { return Ok(None) };
        let failed = |error| ExportError::write(self, error);
        std::fs::create_dir_all(folder_of(path)).map_err(failed)?;
        let lock = hidden(path, "", ".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file, path: lock })),
            Err(TryLockError::WouldBlock) => Err(ExportError::Locked { place: self.to_string() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// What an interrupted process left behind.
const EARLIER: &str = ".earlier";

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.NAME.MARK.part` beside the file.
fn hidden(path: &Path, mark: &str, ending: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let dot = if mark.is_empty() { "" } else { "." };
    path.with_file_name(format!(".{name}{dot}{mark}{ending}"))
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// See [`Destination::lock`].
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A leftover file locks nobody out.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file of an export while it is written, from start to end. It has no name before [`Output::publish`].
pub struct Output {
    target: Target,
    written: u64,
}

enum Target {
    Local { file: BufWriter<File>, part: PathBuf, path: PathBuf, earlier: PathBuf },
    S3(S3Output),
}

/// An upload on a blocking thread. The service deletes what was sent if it is dropped before it is finished.
struct S3Output {
    upload: Option<Upload>,
    runtime: tokio::runtime::Handle,
}

impl S3Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(upload) = &mut self.upload else { return Err(io::Error::other("the upload has ended")) };
        self.runtime.block_on(upload.write(Bytes::copy_from_slice(bytes))).map_err(io::Error::other)
    }

    fn finish(mut self) -> io::Result<()> {
        let Some(upload) = self.upload.take() else { return Err(io::Error::other("the upload has ended")) };
        self.runtime.block_on(upload.finish()).map_err(io::Error::other)
    }
}

impl Drop for S3Output {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.runtime.block_on(upload.abort());
        }
    }
}

impl Output {
    /// Gives the file its name. It is durable when this returns.
    pub fn publish(self) -> io::Result<()> {
        match self.target {
            Target::Local { file, part, path, earlier } => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_data()?;
                std::fs::rename(&part, &path)?;
                match std::fs::remove_file(&earlier) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                sync_folder_of(&path)
            }
            Target::S3(output) => output.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.target {
            Target::Local { file, .. } => file.write(bytes)?,
            Target::S3(output) => {
                output.write(bytes)?;
                bytes.len()
            }
        };
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Local { file, .. } => file.flush(),
            Target::S3(_) => Ok(()),
        }
    }
}

/// Only tells the position: an archive that is written in order needs no more.
impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(0) | SeekFrom::End(0) => Ok(self.written),
            SeekFrom::Start(position) if position == self.written => Ok(position),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "an export is written from start to end")),
        }
    }
}
