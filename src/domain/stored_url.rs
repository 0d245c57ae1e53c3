//! URLs of photos that are stored where this program can read them: `file:///photos/a.jpg`, `s3://bucket/photos/a.jpg`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// Everything but what is plain in a path. A `%` is encoded, so that decoding gives the same bytes.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'=').remove(b'+');

/// A photo or a folder in a file system or in a bucket. The path of a folder ends with `/`.
///
/// Whether it may be read is decided elsewhere: a URL in a dump comes from a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredUrl {
    /// An absolute path.
    File(Vec<u8>),
    S3 {
        bucket: String,
        key: String,
    },
}

/// The text is not the URL of a file or of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected file:///PATH or s3://BUCKET/KEY")]
pub struct NotStored;

impl StoredUrl {
    /// The URL of a file; `path` must be absolute.
    pub fn file(path: &Path) -> Self {
        Self::File(path.as_os_str().as_bytes().to_vec())
    }

    /// The URL of a folder.
    pub fn folder(path: &Path) -> Self {
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        if !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        Self::File(bytes)
    }

    /// The path of a file; none for an object in a bucket.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(OsString::from_vec(path.clone()).into()),
            Self::S3 { .. } => None,
        }
    }

    /// Whether this is something below the folder. Paths with `.` or `..` are below nothing.
    pub fn is_below(&self, folder: &Self) -> bool {
        let is_below = |path: &[u8], folder: &[u8]| {
            let mut segments = path.split(|byte| *byte == b'/');
            (folder.is_empty() || folder.ends_with(b"/"))
                && path.starts_with(folder)
                && path.len() > folder.len()
                && segments.all(|segment| segment != b"." && segment != b"..")
        };
        match (self, folder) {
            (Self::File(path), Self::File(folder)) => !folder.is_empty() && is_below(path, folder),
            (Self::S3 { bucket, key }, Self::S3 { bucket: other, key: prefix }) => {
                bucket == other && is_below(key.as_bytes(), prefix.as_bytes())
            }
            _ => false,
        }
    }
}

impl fmt::Display for StoredUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{}", percent_encode(path, ENCODED)),
            Self::S3 { bucket, key } => write!(f, "s3://{bucket}/{}", percent_encode(key.as_bytes(), ENCODED)),
        }
    }
}

impl FromStr for StoredUrl {
    type Err = NotStored;

    fn from_str(text: &str) -> Result<Self, NotStored> {
        let path = |path: &str| percent_decode_str(path).collect::<Vec<u8>>();
        if let Some(rest) = text.strip_prefix("file://") {
            let path = path(rest);
            return if path.starts_with(b"/") && !path.contains(&0) { Ok(Self::File(path)) } else { Err(NotStored) };
        }
        let (bucket, key) = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).ok_or(NotStored)?;
        let key = String::from_utf8(path(key)).map_err(|_| NotStored)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        match !bucket.is_empty() && bucket.bytes().all(is_name) {
            true => Ok(Self::S3 { bucket: bucket.into(), key }),
            false => Err(NotStored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> StoredUrl {
        text.parse().unwrap()
    }

    #[test]
    fn paths_and_keys_survive_as_urls() {
        for path in ["/photos/a b?c#d%20.jpg", "/photos/宇.jpg", "/"] {
            let written = StoredUrl::file(Path::new(path));
            assert_eq!(url(&written.to_string()), written);
            assert_eq!(written.path().unwrap(), Path::new(path));
            assert!(url::Url::parse(&written.to_string()).is_ok());
        }
        let not_utf8 = StoredUrl::File(b"/photos/\xff.jpg".to_vec());
        assert_eq!(
            (not_utf8.to_string().as_str(), url("file:///photos/%FF.jpg")),
            ("file:///photos/%FF.jpg", not_utf8)
        );
        let object = StoredUrl::S3 { bucket: "b".into(), key: "p/a b%.jpg".into() };
        assert_eq!((object.to_string().as_str(), url("s3://b/p/a%20b%25.jpg")), ("s3://b/p/a%20b%25.jpg", object));
        for other in ["http://a/b", "file://host/a", "file:a", "s3://b", "s3:///k", "s3://b@c/k", "s3://b/%ff", ""] {
            assert_eq!(other.parse::<StoredUrl>(), Err(NotStored), "{other}");
        }
    }

    #[test]
    fn only_what_is_in_a_folder_is_below_it() {
        for (photo, folder) in [
            ("file:///p/a.jpg", "file:///p/"),
            ("file:///p/q/a.jpg", "file:///p/"),
            ("s3://b/p/a.jpg", "s3://b/p/"),
            ("s3://b/a.jpg", "s3://b/"),
        ] {
            assert!(url(photo).is_below(&url(folder)), "{photo}");
        }
        for (photo, folder) in [
            ("file:///etc/passwd", "file:///p/"),
            ("file:///p/../etc/passwd", "file:///p/"),
            ("file:///p/%2e%2e/etc/passwd", "file:///p/"),
            ("file:///pq/a.jpg", "file:///p"),
            ("file:///p/", "file:///p/"),
            ("s3://b/q/a.jpg", "s3://b/p/"),
            ("s3://b/p/../q/a.jpg", "s3://b/p/"),
            ("s3://c/p/a.jpg", "s3://b/p/"),
            ("s3://b/pq.jpg", "s3://b/p"),
            ("s3://b/p/a.jpg", "file:///p/"),
        ] {
            assert!(!url(photo).is_below(&url(folder)), "{photo}");
        }
    }
}
