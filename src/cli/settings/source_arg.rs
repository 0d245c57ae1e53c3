//! The source of a run on the command line: a dump, a list or a table, or a folder with photos.

use std::ffi::OsString;
use std::fmt;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::archive::run_folders::RunFolder;
use crate::cli::failure::Failure;
use crate::cli::output::print_warnings;
use crate::cli::progress::Bars;
use crate::domain::{Candidate, StoredUrl};
use crate::objects::s3::{Reader, S3};
use crate::source::{self, Input, Options, PhotoFolder};

/// Where the photos of a run come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceArg {
    /// A file, a local folder, or standard input.
    Here(Input),
    S3Object {
        bucket: String,
        key: String,
    },
    /// All objects below a prefix. It is empty, or ends with `/`.
    S3Folder {
        bucket: String,
        prefix: String,
    },
}

impl fmt::Display for SourceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(input) => input.fmt(f),
            Self::S3Object { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::S3Folder { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl SourceArg {
    /// The parser for the command line.
    pub fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    fn parse(text: OsString) -> Result<Self, &'static str> {
        let Some(address) = text.to_str().and_then(|text| text.strip_prefix("s3://")) else {
            return Ok(Self::Here(text.into()));
        };
        match address.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && (key.is_empty() || key.ends_with('/')) => {
                Ok(Self::S3Folder { bucket: bucket.into(), prefix: key.into() })
            }
            Some((bucket, key)) if !bucket.is_empty() => Ok(Self::S3Object { bucket: bucket.into(), key: key.into() }),
            _ => Err("expected s3://BUCKET/KEY, or s3://BUCKET/PREFIX/ for a folder with photos"),
        }
    }

    /// The folder with photos; none for a dump, a list or a table.
    pub fn folder(&self) -> Result<Option<StoredUrl>, Failure> {
        match self {
            Self::Here(Input::File(path)) if path.is_dir() => {
                let root = path.canonicalize();
                let root = root.map_err(|error| Failure::broken(format!("{}: {error}", path.display())))?;
                Ok(Some(StoredUrl::folder(&root)))
            }
            Self::S3Folder { bucket, prefix } => {
                Ok(Some(StoredUrl::S3 { bucket: bucket.clone(), key: prefix.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// The folder as the run keeps it; none for a dump, a list or a table.
    pub fn run_folder(&self, copy: bool) -> Result<Option<RunFolder>, Failure> {
        match self.folder()? {
            Some(url) => Ok(Some(RunFolder { url: url.to_string(), copy })),
            None if copy => Err(Failure::usage(format!("--copy: {self} is no folder with photos"))),
            None => Ok(None),
        }
    }

    /// Checks that workers on other machines can read the source's photos, and that they are none of the
    /// installation's own objects.
    pub fn check_for_installation(&self, objects: &S3) -> Result<(), Failure> {
        match self {
            Self::Here(Input::File(path)) if path.is_dir() => Err(Failure::usage(format!(
                "{}: the workers of an installation cannot read a local folder: upload it, and give s3://BUCKET/PREFIX/",
                path.display()
            ))),
            Self::S3Folder { bucket, prefix } => match objects.own_objects_below(bucket, prefix) {
                Some(own) => Err(Failure::usage(format!(
                    "{self}: the installation keeps its own objects there (`{own}/`): put the photos below another prefix"
                ))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Reads the whole source. `s3` is called only for a source in S3; a dump there is streamed and not stored.
    pub async fn candidates(
        self,
        s3: impl FnOnce() -> Result<S3, Failure>,
        options: Options,
        bars: &Bars,
    ) -> Result<Vec<Candidate>, Failure> {
        let folder = self.folder()?;
        if options.label_from_folder && folder.is_none() {
            return Err(Failure::usage(format!("--label-from folder: {self} is no folder with photos")));
        }
        let reading = bars.reading();
        let warnings = options.warnings.clone();
        let read = match self {
            Self::S3Folder { bucket, prefix } => {
                let listed = list(&s3()?.in_bucket(&bucket), &bucket, &prefix, &options).await;
                reading.finish();
                return listed;
            }
            Self::Here(Input::File(path)) if folder.is_some() => tokio::task::spawn_blocking(move || {
                let candidates = PhotoFolder::list(&path, &options);
                reading.finish();
                candidates
            }),
            Self::Here(input) => tokio::task::spawn_blocking(move || {
                let candidates = source::candidates(&input, &options, &mut |progress| reading.show(progress));
                reading.finish();
                candidates
            }),
            Self::S3Object { bucket, key } => {
                let download = s3()?.in_bucket(&bucket).download(&key).await.map_err(Failure::broken)?;
                let reader = Reader::new(download);
                tokio::task::spawn_blocking(move || {
                    let candidates = source::candidates_from(reader, &options, &mut |progress| reading.show(progress));
                    reading.finish();
                    candidates
                })
            }
        };
        let candidates = read.await.map_err(Failure::broken)?;
        print_warnings(&warnings);
        candidates.map_err(Failure::broken)
    }
}

/// The photos below a prefix.
async fn list(s3: &S3, bucket: &str, prefix: &str, options: &Options) -> Result<Vec<Candidate>, Failure> {
    let url = StoredUrl::S3 { bucket: bucket.to_owned(), key: prefix.to_owned() };
    let mut folder = PhotoFolder::new(url, options);
    let mut after: Option<String> = None;
    loop {
        let page = s3.names(prefix, after.as_deref()).await.map_err(Failure::broken)?;
        page.names.iter().for_each(|name| folder.add_object(name));
        after = page.names.into_iter().next_back();
        if !page.more {
            return Ok(folder.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_s3_differ_from_files() {
        let parse = |text: &str| SourceArg::parse(text.into());
        let object = SourceArg::S3Object { bucket: "dumps".into(), key: "2026/a.sql.gz".into() };
        assert_eq!(parse("s3://dumps/2026/a.sql.gz"), Ok(object));
        let folder = |prefix: &str| Ok(SourceArg::S3Folder { bucket: "photos".into(), prefix: prefix.into() });
        assert_eq!((parse("s3://photos/a/b/"), parse("s3://photos/")), (folder("a/b/"), folder("")));
        assert_eq!(parse("s3/a.sql"), Ok(SourceArg::Here(Input::File("s3/a.sql".into()))));
        assert_eq!(parse("-"), Ok(SourceArg::Here(Input::Stdin)));
        for bad in ["s3://", "s3://dumps", "s3:///key"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
