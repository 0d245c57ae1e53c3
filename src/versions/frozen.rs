//! The faces of a version, read back.

use rusqlite::{Connection, OptionalExtension};

use super::error::VersionError;
use super::header::header;
use super::shard;
use crate::archive::versions::{StoredVersions, VersionHeader};
use crate::dataset::Face;
use crate::dataset::selection::{SelectedFace, Selection};
use crate::domain::{Id, VersionName};

/// The faces of a version, in a temporary database that is deleted with this value.
pub struct FrozenFaces {
    pub header: VersionHeader,
    faces: Connection,
}

impl FrozenFaces {
    /// Reads a version. `progress` receives the number of faces of each step, and of all.
    ///
    /// # Errors
    /// There is no such version, or it cannot be read.
    pub async fn open(
        versions: &StoredVersions,
        name: &VersionName,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Self, VersionError> {
        let header = header(versions, name).await?;
        // An empty path is a temporary file, which SQLite deletes.
        let faces = Connection::open("").map_err(scratch)?;
        faces
            .execute_batch(
                "CREATE TABLE faces (photo_id TEXT PRIMARY KEY, face TEXT NOT NULL) WITHOUT ROWID;
                             BEGIN;",
            )
            .map_err(scratch)?;
        for part in &header.shards {
            let file = versions.read_shard(name, part.sha256).await?;
            let rows = shard::faces(file).map_err(|error| damaged(name, error))?;
            let mut insert = faces.prepare_cached("INSERT INTO faces VALUES (?1, ?2)").map_err(scratch)?;
            for row in rows {
                insert.execute([row.0, row.1]).map_err(scratch)?;
            }
            progress(part.faces, header.counts.faces);
        }
        faces.execute_batch("COMMIT").map_err(scratch)?;
        Ok(Self { header, faces })
    }

    /// The face of a photo.
    pub fn face(&self, photo_id: &Id) -> Result<Option<Face>, VersionError> {
        let read = |faces: &Connection| {
            let mut by_id = faces.prepare_cached("SELECT face FROM faces WHERE photo_id = ?1")?;
            by_id.query_row([photo_id.as_str()], |row| row.get::<_, String>(0)).optional()
        };
        read(&self.faces).map_err(scratch)?.map(|text| self.parse(&text)).transpose()
    }

    /// The faces for pictures of `size` pixels, in the order of their photo ids. Smaller crops are left out unless
    /// `upscale`.
    pub fn selection(&self, size: u32, upscale: bool) -> Result<Selection, VersionError> {
        let counts = &self.header.counts;
        let mut selection = Selection { matching: counts.faces, ..Selection::default() };
        let mut all = self.faces.prepare("SELECT face FROM faces").map_err(scratch)?;
        let mut rows = all.query([]).map_err(scratch)?;
        while let Some(row) = rows.next().map_err(scratch)? {
            let face = self.parse(&row.get::<_, String>(0).map_err(scratch)?)?;
            if face.size < size && !upscale {
                selection.left_out.too_small += 1;
            } else {
                selection.faces.push(SelectedFace::of(&face));
            }
        }
        selection.faces.sort_by(|a, b| a.photo_id.cmp(&b.photo_id));
        Ok(selection)
    }

    fn parse(&self, text: &str) -> Result<Face, VersionError> {
        serde_json::from_str(text).map_err(|error| damaged(&self.header.name, error))
    }
}

fn scratch(error: rusqlite::Error) -> VersionError {
    VersionError::Scratch(error.to_string())
}

fn damaged(name: &VersionName, error: impl ToString) -> VersionError {
    VersionError::Damaged { name: name.clone(), detail: error.to_string() }
}
