//! The index of faces of a run: where its file is, and opening it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::cli::progress::Bars;
use crate::dataset::placeholder::Placeholders;
use crate::dataset::stored::StoredVerdicts;
use crate::dataset::{Index, IndexSource};
use crate::domain::{ContentHash, Id, Printable, RunName};
use crate::services::run_target::RunTarget;
use crate::services::story::Story;

#[derive(Debug, clap::Args)]
pub struct IndexArgs {
    /// The index of faces, a SQLite file that is made again if it is deleted [default: index.sqlite in the run's
    /// folder; for a run on servers, a file in $XDG_CACHE_HOME/facemill]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
}

impl IndexArgs {
    /// Opens the index of the run, as it was left.
    pub fn open(&self, target: &RunTarget) -> Result<(Index, IndexSource), Failure> {
        let index = Index::open(&self.path(target)?, &target.run).map_err(Failure::broken)?;
        Ok((index, target.index_source()))
    }

    /// The file of the index of the run.
    pub fn path(&self, target: &RunTarget) -> Result<PathBuf, Failure> {
        match self.index.clone().or_else(|| target.index_file()) {
            Some(path) => Ok(path),
            None => cached(target),
        }
    }

    /// The verdicts on a photo as of the last time that the index was filled; none without an index.
    pub fn stored_verdicts(&self, target: &RunTarget, story: &Story) -> StoredVerdicts {
        let path = self.path(target).ok();
        let stored = path.and_then(|path| {
            // The index is only a cache: what is wrong with it is said by those who need it.
            Index::stored_verdicts(&path, &target.run, story.photo_id(), story.crop()).ok().flatten()
        });
        stored.unwrap_or_default()
    }
}

/// The index that this machine keeps of another run on the same servers; none if there is no folder for it.
pub fn index_of_other(servers_name: &str, run: &RunName) -> Option<PathBuf> {
    Some(cached_file(&cache()?, servers_name, run))
}

/// The placeholders of a run as of its last `faces` or `report`; none if the run has no index.
pub fn stored_placeholders(target: &RunTarget) -> Option<Placeholders> {
    let path = target.index_file().or_else(|| index_of_other(&target.servers_name(), &target.run))?;
    // The index is only a cache: what is wrong with it is said by those who need it.
    Index::stored_placeholders(&path, &target.run, 0).ok().flatten()
}

/// A progress bar for the photos that an index takes in.
pub fn progress(bars: &Bars) -> impl Fn(u64) + Sync + use<> {
    let bar = bars.count("indexing", 0);
    move |photos| {
        bar.inc_length(photos);
        bar.inc(photos);
    }
}

/// The file for a run on servers.
fn cached(target: &RunTarget) -> Result<PathBuf, Failure> {
    let folder = cache_of_user("the index of faces")
        .map_err(|fault| Failure::broken(format!("{fault}, or give --index FILE")))?;
    Ok(cached_file(&folder, &target.servers_name(), &target.run))
}

/// The folder for thumbnails of pictures.
pub fn thumbnails() -> Result<PathBuf, Failure> {
    Ok(cache_of_user("thumbnails").map_err(Failure::broken)?.join("thumbnails"))
}

/// The cache folder, created where it is missing. Only this user may read it: it has the URLs and labels of photos.
pub(super) fn cache_of_user(what: &str) -> Result<PathBuf, String> {
    let folder = cache().ok_or_else(|| format!("there is no folder for {what}: set XDG_CACHE_HOME or HOME"))?;
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    created.map_err(|error| format!("cannot create {}: {error}; set XDG_CACHE_HOME", folder.display()))?;
    Ok(folder)
}

fn cached_file(folder: &Path, servers_name: &str, run: &RunName) -> PathBuf {
    let servers = ContentHash::of(servers_name.as_bytes()).to_string();
    folder.join(format!("index-{run}-{}.sqlite", &servers[..16]))
}

fn cache() -> Option<PathBuf> {
    cache_folder(|name| std::env::var_os(name).map(PathBuf::from))
}

/// `$XDG_CACHE_HOME/facemill`, or `~/.cache/facemill`. A relative path counts as unset, as the XDG specification says.
fn cache_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(caches?.join("facemill"))
}

/// What to say of photos that ended without a record, given their number and the first of their ids.
pub fn unrecorded_note((count, ids): &(u64, Vec<Id>)) -> Option<String> {
    let named: Vec<String> = ids.iter().map(|id| id.as_str().printable().to_string()).collect();
    let more = if *count > ids.len() as u64 { ", ..." } else { "" };
    let photos = if *count == 1 { "photo" } else { "photos" };
    let note = || format!("{count} {photos} ended without a record: {}{more}; run `facemill audit`", named.join(", "));
    (*count > 0).then(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_xdg_says() {
        let folder = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            cache_folder(value)
        };
        let caches = [("XDG_CACHE_HOME", "/caches"), ("HOME", "/home/ada")];
        assert_eq!(folder(&caches), Some("/caches/facemill".into()));
        assert_eq!(folder(&caches[1..]), Some("/home/ada/.cache/facemill".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "caches"), ("HOME", "/home/ada")]), folder(&caches[1..]));
        assert_eq!((folder(&[("HOME", "")]), folder(&[])), (None, None));
    }

    #[test]
    fn photos_without_a_record_are_named() {
        assert_eq!(unrecorded_note(&(0, vec![])), None);
        let one = "1 photo ended without a record: 7; run `facemill audit`";
        assert_eq!(unrecorded_note(&(1, vec![7.into()])).as_deref(), Some(one));
        let more = "9 photos ended without a record: 7, a\\n, ...; run `facemill audit`";
        assert_eq!(unrecorded_note(&(9, vec![7.into(), "a\n".into()])).as_deref(), Some(more));
    }
}
