//! The groups of duplicates of a run, and what people have parted.
//!
//! `runs/RUN/duplicates.json` names the groups that count, `duplicates/RUN/SHA256.jsonl` has them, one a line. They are
//! derived, and can be found again. `runs/RUN/partings.json` is what people have said: an append-only list.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{change, damaged, decode, encode, optional};
use crate::domain::{ContentHash, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// Crops that show one photograph, the best first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateGroup {
    pub crops: Vec<ContentHash>,
}

/// Which groups count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDuplicates {
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
struct CurrentDuplicates {
    current: Option<FoundDuplicates>,
}

/// What a person has said: none of `crops` is in one group with another one of `group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    pub crops: Vec<ContentHash>,
    /// The group as the person saw it, the parted crops included.
    pub group: Vec<ContentHash>,
    pub by: String,
    /// Seconds since 1970, UTC.
    pub at: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Partings {
    partings: Vec<Parting>,
}

/// The duplicates of one run in the object store. Clones share the store.
#[derive(Clone)]
pub struct StoredDuplicates {
    objects: Arc<dyn Objects>,
    run: RunName,
}

impl StoredDuplicates {
    pub fn new(objects: Arc<dyn Objects>, run: RunName) -> Self {
        Self { objects, run }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::of_run(&self.run, "duplicates")
    }

    fn partings_key(&self) -> ObjectKey {
        ObjectKey::of_run(&self.run, "partings")
    }

    /// None: nobody has looked for duplicates in the run.
    pub async fn current(&self) -> Result<Option<FoundDuplicates>, ObjectError> {
        let key = self.key();
        let Some(body) = optional(self.objects.get(&key).await)? else { return Ok(None) };
        Ok(decode::<CurrentDuplicates>(&key, &body)?.current)
    }

    /// The groups under a hash. None: newer groups have replaced them.
    pub async fn groups(&self, sha256: ContentHash) -> Result<Option<Vec<DuplicateGroup>>, ObjectError> {
        let key = ObjectKey::duplicates(&self.run, sha256);
        let Some(body) = optional(self.objects.get(&key).await)? else { return Ok(None) };
        if ContentHash::of(&body) != sha256 {
            return Err(damaged(&key, "its content does not have this hash: run `facemill duplicates` again"));
        }
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| decode(&key, line)).collect::<Result<_, _>>().map(Some)
    }

    /// The groups that count. None: nobody has looked for duplicates in the run.
    pub async fn current_groups(&self) -> Result<Option<(FoundDuplicates, Vec<DuplicateGroup>)>, ObjectError> {
        let mut missing = None;
        loop {
            let Some(found) = self.current().await? else { return Ok(None) };
            match self.groups(found.groups_sha256).await? {
                Some(groups) => return Ok(Some((found, groups))),
                None if missing == Some(found.groups_sha256) => {
                    return Err(damaged(&self.key(), "its groups are missing: run `facemill duplicates` again"));
                }
                // Newer ones have just replaced them.
                None => missing = Some(found.groups_sha256),
            }
        }
    }

    /// Makes these the groups that count.
    pub async fn write(
        &self,
        groups: &[DuplicateGroup],
        compared: u64,
        at: u64,
    ) -> Result<FoundDuplicates, ObjectError> {
        let found = self.put(groups, compared, at).await?;
        let replace = |document: &mut CurrentDuplicates| Ok::<_, ObjectError>(document.current.replace(found.clone()));
        let earlier = change(&*self.objects, &self.key(), replace).await?;
        self.delete_replaced(earlier, &found).await?;
        Ok(found)
    }

    /// Makes these the groups that count, unless others than `expected` count by now. False: they do.
    pub async fn replace(
        &self,
        expected: &FoundDuplicates,
        groups: &[DuplicateGroup],
        at: u64,
    ) -> Result<bool, ObjectError> {
        let found = self.put(groups, expected.compared, at).await?;
        let replace = |document: &mut CurrentDuplicates| {
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

    async fn put(&self, groups: &[DuplicateGroup], compared: u64, at: u64) -> Result<FoundDuplicates, ObjectError> {
        let mut body = Vec::new();
        for group in groups {
            body.extend_from_slice(&encode(&self.key(), group)?);
            body.push(b'\n');
        }
        let found = FoundDuplicates {
            groups_sha256: ContentHash::of(&body),
            groups: groups.len() as u64,
            compared,
            at,
            facemill: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let file = ObjectKey::duplicates(&self.run, found.groups_sha256);
        self.objects.put(&file, Bytes::from(body), "application/jsonl").await?;
        Ok(found)
    }

    async fn delete_replaced(
        &self,
        earlier: Option<FoundDuplicates>,
        found: &FoundDuplicates,
    ) -> Result<(), ObjectError> {
        match earlier.filter(|earlier| earlier.groups_sha256 != found.groups_sha256) {
            Some(earlier) => self.objects.delete(&ObjectKey::duplicates(&self.run, earlier.groups_sha256)).await,
            None => Ok(()),
        }
    }

    /// Removes crops from the groups that count and from all partings. The call can be repeated.
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
        if self.partings().await?.is_empty() {
            return Ok(());
        }
        let remove = |document: &mut Partings| {
            for parting in &mut document.partings {
                parting.crops.retain(|crop| !crops.contains(crop));
                parting.group.retain(|crop| !crops.contains(crop));
            }
            document.partings.retain(|parting| !parting.crops.is_empty() && parting.group.len() > 1);
            Ok::<_, ObjectError>(())
        };
        change(&*self.objects, &self.partings_key(), remove).await
    }

    /// All partings, oldest first.
    pub async fn partings(&self) -> Result<Vec<Parting>, ObjectError> {
        let key = self.partings_key();
        let Some(body) = optional(self.objects.get(&key).await)? else { return Ok(Vec::new()) };
        Ok(decode::<Partings>(&key, &body)?.partings)
    }

    /// Adds partings. Concurrent ones are all kept.
    pub async fn part(&self, partings: &[Parting]) -> Result<(), ObjectError> {
        let add = |document: &mut Partings| {
            // An earlier attempt may have succeeded although its answer was lost.
            document.partings.retain(|known| !partings.contains(known));
            document.partings.extend_from_slice(partings);
            Ok::<_, ObjectError>(())
        };
        change(&*self.objects, &self.partings_key(), add).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn group(names: &[&str]) -> DuplicateGroup {
        DuplicateGroup { crops: names.iter().map(|name| ContentHash::of(name.as_bytes())).collect() }
    }

    #[tokio::test]
    async fn the_last_groups_count_and_earlier_ones_are_deleted() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
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

    #[tokio::test]
    async fn groups_replace_only_those_that_they_were_made_from() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
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
        assert!(error.contains("its groups are missing"), "{error}");
    }

    #[tokio::test]
    async fn removed_crops_are_in_no_group_and_no_parting() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
        let [a, b] = [group(&["a"]).crops[0], group(&["b"]).crops[0]];
        stored.remove(&[a].into(), 1).await.unwrap();
        stored.write(&[group(&["a", "x"]), group(&["b", "c", "d"]), group(&["e", "f"])], 9, 7).await.unwrap();
        let parting = |of: &str, group: &[&str]| Parting {
            crops: vec![ContentHash::of(of.as_bytes())],
            group: group.iter().map(|name| ContentHash::of(name.as_bytes())).collect(),
            by: "ada".into(),
            at: 1,
        };
        stored.part(&[parting("a", &["a", "x"]), parting("c", &["b", "c", "d"])]).await.unwrap();
        for _ in 0..2 {
            stored.remove(&[a, b].into(), 8).await.unwrap();
        }
        let (_, groups) = stored.current_groups().await.unwrap().unwrap();
        assert_eq!(groups, [group(&["c", "d"]), group(&["e", "f"])]);
        assert_eq!(stored.partings().await.unwrap(), [parting("c", &["c", "d"])]);
    }

    #[tokio::test]
    async fn damaged_groups_are_named() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
        let found = stored.write(&[group(&["a", "b"])], 2, 7).await.unwrap();
        let path = scratch.path().join(format!("duplicates/default/{}.jsonl", found.groups_sha256));
        std::fs::write(path, "{}").unwrap();
        let error = stored.groups(found.groups_sha256).await.unwrap_err().to_string();
        assert!(error.contains(&found.groups_sha256.to_string()), "{error}");
    }

    #[tokio::test]
    async fn partings_are_added_and_never_lost() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
        assert_eq!(stored.partings().await.unwrap(), []);
        let parting = |name: &str, at| {
            let crops = group(&[name]).crops;
            Parting { crops, group: group(&[name, "x"]).crops, by: "ada".into(), at }
        };
        let all = [parting("a", 1), parting("b", 2), parting("c", 3)];
        stored.part(&all[..1]).await.unwrap();
        let (one, other) = tokio::join!(stored.part(&all[1..2]), stored.part(&all[2..]));
        one.unwrap();
        other.unwrap();
        let mut known = stored.partings().await.unwrap();
        known.sort_by_key(|parting| parting.at);
        assert_eq!(known, all);
        stored.part(&all[2..]).await.unwrap();
        assert_eq!(stored.partings().await.unwrap().len(), 3, "the same again");
    }
}
