//! A self-contained demonstration: a dump, and a host that serves its photos, some of them with faults.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

pub mod dump;
pub mod host;
pub mod scene;

use std::path::{Path, PathBuf};
use std::{fs, io};

use host::WebHost;
use scene::{Scene, SceneError};

/// A prepared demonstration: the host is running and the dump is written.
pub struct Demo {
    pub host: WebHost,
    pub dump: PathBuf,
    /// Candidates in the dump.
    pub candidates: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Scene(#[from] SceneError),
    #[error("{0}: {1}")]
    Write(PathBuf, io::Error),
    #[error("the demonstration's host cannot listen on {0}: {1}")]
    Listen(String, io::Error),
}

/// Makes the collection from the photographs in `photos`, writes `demo.sql` and `truth.tsv` to `out` and starts the
/// host. The same photographs give the same files, whatever the host's port: its names end in `.test`.
pub async fn prepare(photos: &Path, out: &Path) -> Result<Demo, DemoError> {
    prepare_at(photos, out, "127.0.0.1:0").await
}

/// Like [`prepare`], with the host on `listen`.
pub async fn prepare_at(photos: &Path, out: &Path, listen: &str) -> Result<Demo, DemoError> {
    let folder = photos.to_owned();
    let scene = tokio::task::spawn_blocking(move || Scene::make(&folder)).await.map_err(io::Error::other);
    let scene = scene.map_err(|error| DemoError::Write(photos.to_owned(), error))??;

    // The host comes first: where it cannot listen, no file is made.
    let candidates = scene.collection.candidates();
    let (text, truth) = (dump::postgres(&scene.collection), scene.truth());
    let host = WebHost::start(listen, scene.routes).await.map_err(|error| DemoError::Listen(listen.into(), error))?;
    let write = |name: &str, text: String| {
        let path = out.join(name);
        fs::create_dir_all(out).and_then(|()| fs::write(&path, text)).map_err(|e| DemoError::Write(path.clone(), e))?;
        Ok::<_, DemoError>(path)
    };
    let dump = write("demo.sql", text)?;
    write("truth.tsv", truth)?;
    Ok(Demo { host, dump, candidates })
}
