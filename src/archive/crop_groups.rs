//! Groups of crops that a search has found in a run: which ones count, and the groups themselves, one a line.
//!
//! `runs/RUN/KIND.json` names the groups that count, `KIND/RUN/SHA256.jsonl` has them. They are derived, and can be found
//! again.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{change, damaged, decode, encode, optional};
use crate::domain::{ContentHash, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// What a group of crops has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// Crops that show one photograph, the best first.
    Duplicates,
    /// Crops that look like one person.
    Identities,
}

impl GroupKind {
    /// The name of the document and of the folder in the store, and of the command that finds the groups.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duplicates => "duplicates",
            Self::Identities => "identities",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropGroup {
    pub crops: Vec<ContentHash>,
}

/// Which groups count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundGroups {
    pub groups_sha256: ContentHash,
    pub groups: u64,
    /// Crops of the run that were compared.
    pub compared: u64,
    /// Seconds since 1970, UTC.
    pub at: u64,
    /// The version of the program.
    pub facemill: String,
}

#[derive(Default, Serialize, Deserialize)]
struct CurrentGroups {
    current: Option<FoundGroups>,
}

/// The groups of one kind and one run in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredGroups {
    objects: Arc<dyn Objects>,
    run: RunName,
    kind: GroupKind,
}

impl StoredGroups {
    pub fn new(objects: Arc<dyn Objects>, run: RunName, kind: GroupKind) -> Self {
        Self { objects, run, kind }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::of_run(&self.run, self.kind.as_str())
    }

    fn file(&self, sha256: ContentHash) -> ObjectKey {
        match self.kind {
            GroupKind::Duplicates => ObjectKey::duplicates(&self.run, sha256),
            GroupKind::Identities => ObjectKey::identities(&self.run, sha256),
        }
    }

    fn damaged(&self, key: &ObjectKey, what: &str) -> ObjectError {
        damaged(key, &format!("{what}: run `facemill {}` again", self.kind.as_str()))
    }

    /// None: nobody has looked for such groups in the run.
    pub async fn current(&self) -> Result<Option<FoundGroups>, ObjectError> {
        let key = self.key();
        let Some(body) = optional(self.objects.get(&key).await)? else { return Ok(None) };
        Ok(decode::<CurrentGroups>(&key, &body)?.current)
    }

    /// The groups under a hash. None: newer groups have replaced them.
    pub async fn groups(&self, sha256: ContentHash) -> Result<Option<Vec<CropGroup>>, ObjectError> {
        let key = self.file(sha256);
        let Some(body) = optional(self.objects.get(&key).await)? else { return Ok(None) };
        if ContentHash::of(&body) != sha256 {
            return Err(self.damaged(&key, "its content does not have this hash"));
        }
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| decode(&key, line)).collect::<Result<_, _>>().map(Some)
    }

    /// The groups that count. None: nobody has looked for such groups in the run.
    pub async fn current_groups(&self) -> Result<Option<(FoundGroups, Vec<CropGroup>)>, ObjectError> {
        let mut missing = None;
        loop {
            let Some(found) = self.current().await? else { return Ok(None) };
            match self.groups(found.groups_sha256).await? {
                Some(groups) => return Ok(Some((found, groups))),
                None if missing == Some(found.groups_sha256) => {
                    return Err(self.damaged(&self.key(), "its groups are missing"));
                }
                // Newer ones have just replaced them.
                None => missing = Some(found.groups_sha256),
            }
        }
    }

    /// Makes these the groups that count.
    pub async fn write(&self, groups: &[CropGroup], compared: u64, at: u64) -> Result<FoundGroups, ObjectError> {
        let found = self.put(groups, compared, at).await?;
        let replace = |document: &mut CurrentGroups| Ok::<_, ObjectError>(document.current.replace(found.clone()));
        let earlier = change(&*self.objects, &self.key(), replace).await?;
        self.delete_replaced(earlier, &found).await?;
        Ok(found)
    }

    /// Makes these the groups that count, unless others than `expected` count by now. False: they do.
    pub async fn replace(&self, expected: &FoundGroups, groups: &[CropGroup], at: u64) -> Result<bool, ObjectError> {
        let found = self.put(groups, expected.compared, at).await?;
        let replace = |document: &mut CurrentGroups| {
            let is_expected = document.current.as_ref().is_some_and(|now| now == expected || *now == found);
            if is_expected {
                document.current = Some(found.clone());
            }
            Ok::<_, ObjectError>(is_expected)
        };
        let is_replaced = change(&*self.objects, &self.key(), replace).await?;
        let (counting, other) = if is_replaced { (&found, expected) } else { (expected, &found) };
        self.delete_replaced(Some(other.clone()), counting).await?;
        Ok(is_replaced)
    }

    /// Removes crops from the groups that count. The call can be repeated.
    pub async fn remove(&self, crops: &HashSet<ContentHash>, at: u64) -> Result<(), ObjectError> {
        while let Some((found, mut groups)) = self.current_groups().await? {
            if !groups.iter().any(|group| group.crops.iter().any(|crop| crops.contains(crop))) {
                break;
            }
            groups.iter_mut().for_each(|group| group.crops.retain(|crop| !crops.contains(crop)));
            groups.retain(|group| group.crops.len() > 1);
            if self.replace(&found, &groups, at).await? {
                break;
            }
        }
        Ok(())
    }

    async fn put(&self, groups: &[CropGroup], compared: u64, at: u64) -> Result<FoundGroups, ObjectError> {
        let mut body = Vec::new();
        for group in groups {
            body.extend_from_slice(&encode(&self.key(), group)?);
            body.push(b'\n');
        }
        let found = FoundGroups {
            groups_sha256: ContentHash::of(&body),
            groups: groups.len() as u64,
            compared,
            at,
            facemill: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.objects.put(&self.file(found.groups_sha256), Bytes::from(body), "application/jsonl").await?;
        Ok(found)
    }

    async fn delete_replaced(&self, earlier: Option<FoundGroups>, found: &FoundGroups) -> Result<(), ObjectError> {
        match earlier.filter(|earlier| earlier.groups_sha256 != found.groups_sha256) {
            Some(earlier) => self.objects.delete(&self.file(earlier.groups_sha256)).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn group(names: &[&str]) -> CropGroup {
        CropGroup { crops: names.iter().map(|name| ContentHash::of(name.as_bytes())).collect() }
    }

    fn stored(folder: &std::path::Path, kind: GroupKind) -> StoredGroups {
        StoredGroups::new(Arc::new(Folder::at(folder)), RunName::default(), kind)
    }

    #[tokio::test]
    async fn the_last_groups_count_and_earlier_ones_are_deleted() {
        let scratch = tempfile::tempdir().unwrap();
        for kind in [GroupKind::Duplicates, GroupKind::Identities] {
            let stored = stored(scratch.path(), kind);
            assert_eq!(stored.current().await.unwrap(), None);
            let groups = [group(&["a", "b"]), group(&["c", "d", "e"])];
            let first = stored.write(&groups, 9, 7).await.unwrap();
            assert_eq!((first.groups, first.compared), (2, 9));
            assert_eq!(stored.current().await.unwrap(), Some(first.clone()));
            assert_eq!(stored.groups(first.groups_sha256).await.unwrap().unwrap(), groups);
            // The same groups again keep their file.
            assert_eq!(stored.write(&groups, 9, 8).await.unwrap().groups_sha256, first.groups_sha256);
            assert!(stored.groups(first.groups_sha256).await.unwrap().is_some());
            let second = stored.write(&[], 9, 9).await.unwrap();
            assert_eq!(stored.groups(second.groups_sha256).await.unwrap(), Some(Vec::new()));
            assert_eq!(stored.groups(first.groups_sha256).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn groups_replace_only_those_that_they_were_made_from() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = stored(scratch.path(), GroupKind::Duplicates);
        assert_eq!(stored.current_groups().await.unwrap(), None);
        let read = stored.write(&[group(&["a", "b", "c"])], 9, 7).await.unwrap();
        let searched = stored.write(&[group(&["a", "b", "c"]), group(&["d", "e"])], 9, 8).await.unwrap();
        let left = [group(&["a", "b"])];
        assert!(!stored.replace(&read, &left, 9).await.unwrap(), "a search has found others");
        assert_eq!(stored.current_groups().await.unwrap().unwrap().0, searched);
        assert!(stored.replace(&searched, &left, 9).await.unwrap());
        let (found, groups) = stored.current_groups().await.unwrap().unwrap();
        assert_eq!((found.at, found.compared, groups), (9, 9, left.to_vec()));
        assert_eq!(stored.groups(searched.groups_sha256).await.unwrap(), None);
        let file = scratch.path().join(format!("duplicates/default/{}.jsonl", found.groups_sha256));
        std::fs::remove_file(file).unwrap();
        let error = stored.current_groups().await.unwrap_err().to_string();
        assert!(error.contains("its groups are missing: run `facemill duplicates` again"), "{error}");
    }

    #[tokio::test]
    async fn damaged_groups_are_named() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = stored(scratch.path(), GroupKind::Identities);
        let found = stored.write(&[group(&["a", "b"])], 2, 7).await.unwrap();
        let path = scratch.path().join(format!("identities/default/{}.jsonl", found.groups_sha256));
        std::fs::write(path, "{}").unwrap();
        let error = stored.groups(found.groups_sha256).await.unwrap_err().to_string();
        assert!(error.contains(&found.groups_sha256.to_string()), "{error}");
        assert!(error.contains("run `facemill identities` again"), "{error}");
    }
}
