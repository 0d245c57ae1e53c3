//! The groups of duplicates of a run, and what people have parted.
//!
//! `runs/RUN/partings.json` is what people have said: an append-only list.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::crop_groups::{GroupKind, StoredGroups};
use super::{change, decode, optional};
use crate::domain::{ContentHash, RunName};
use crate::objects::{ObjectError, ObjectKey, Objects};

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
    pub groups: StoredGroups,
    objects: Arc<dyn Objects>,
    run: RunName,
}

impl StoredDuplicates {
    pub fn new(objects: Arc<dyn Objects>, run: RunName) -> Self {
        let groups = StoredGroups::new(objects.clone(), run.clone(), GroupKind::Duplicates);
        Self { groups, objects, run }
    }

    fn partings_key(&self) -> ObjectKey {
        ObjectKey::of_run(&self.run, "partings")
    }

    /// Removes crops from the groups that count and from all partings. The call can be repeated.
    pub async fn remove(&self, crops: &HashSet<ContentHash>, at: u64) -> Result<(), ObjectError> {
        self.groups.remove(crops, at).await?;
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
    use crate::archive::crop_groups::CropGroup;
    use crate::objects::folder::Folder;

    #[tokio::test]
    async fn removed_crops_are_in_no_group_and_no_parting() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
        let hashes = |names: &[&str]| names.iter().map(|name| ContentHash::of(name.as_bytes())).collect::<Vec<_>>();
        let group = |names: &[&str]| CropGroup { crops: hashes(names) };
        let [a, b] = [hashes(&["a"])[0], hashes(&["b"])[0]];
        stored.remove(&[a].into(), 1).await.unwrap();
        let groups = [group(&["a", "x"]), group(&["b", "c", "d"]), group(&["e", "f"])];
        stored.groups.write(&groups, 9, 7).await.unwrap();
        let parting =
            |of: &str, group: &[&str]| Parting { crops: hashes(&[of]), group: hashes(group), by: "ada".into(), at: 1 };
        stored.part(&[parting("a", &["a", "x"]), parting("c", &["b", "c", "d"])]).await.unwrap();
        for _ in 0..2 {
            stored.remove(&[a, b].into(), 8).await.unwrap();
        }
        let (_, groups) = stored.groups.current_groups().await.unwrap().unwrap();
        assert_eq!(groups, [group(&["c", "d"]), group(&["e", "f"])]);
        assert_eq!(stored.partings().await.unwrap(), [parting("c", &["c", "d"])]);
    }

    #[tokio::test]
    async fn partings_are_added_and_never_lost() {
        let scratch = tempfile::tempdir().unwrap();
        let stored = StoredDuplicates::new(Arc::new(Folder::at(scratch.path())), RunName::default());
        assert_eq!(stored.partings().await.unwrap(), []);
        let hash = |name: &str| ContentHash::of(name.as_bytes());
        let parting = |name: &str, at| Parting {
            crops: vec![hash(name)],
            group: vec![hash(name), hash("x")],
            by: "ada".into(),
            at,
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
