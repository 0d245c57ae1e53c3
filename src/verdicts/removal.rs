//! Verdicts on crops that were taken down.
//!
//! Readers know how many bytes of a segment they have read. So a verdict is not cut out: the hash of its crop becomes
//! zeros, in place, and readers skip it.

use std::collections::HashSet;

use bytes::Bytes;

use super::log::{MEDIA_TYPE, VerdictLog};
use crate::domain::{ContentHash, Id, Verdict};
use crate::objects::{ObjectError, ObjectKey, Swap};

impl VerdictLog {
    /// The crops of these photos that were judged.
    pub async fn crops_of(&self, photos: &HashSet<Id>) -> Result<HashSet<ContentHash>, ObjectError> {
        let mut crops = HashSet::new();
        self.read(&mut Default::default(), |verdict: Verdict| {
            if photos.contains(&verdict.photo_id) {
                crops.insert(verdict.crop);
            }
        })
        .await?;
        Ok(crops)
    }

    /// Removes the verdicts on these crops from what readers see, and returns how many. The call can be repeated. Other
    /// writers may append meanwhile.
    pub async fn remove(&self, crops: &HashSet<ContentHash>) -> Result<u64, ObjectError> {
        let mut removed = 0;
        for segment in 1.. {
            let key = ObjectKey::verdicts(&self.run, segment);
            loop {
                let (body, version) = match self.objects.get_versioned(&key).await {
                    Ok(read) => read,
                    Err(ObjectError::Missing(_)) => return Ok(removed),
                    Err(error) => return Err(error),
                };
                let (changed, count) = without(&body, crops);
                if count == 0 || self.objects.compare_and_swap(&key, &version, changed, MEDIA_TYPE).await? == Swap::Done
                {
                    removed += count;
                    break;
                }
            }
        }
        Ok(removed)
    }
}

/// The segment with zeros for these crops, and how many.
fn without(segment: &[u8], crops: &HashSet<ContentHash>) -> (Bytes, u64) {
    const FIELD: &[u8] = b"\"crop\":\"";
    const DIGITS: usize = 64;
    let (mut changed, mut count, mut at) = (segment.to_vec(), 0, 0);
    while let Some(field) = segment[at..].windows(FIELD.len()).position(|window| window == FIELD) {
        at += field + FIELD.len();
        let crop = segment.get(at..at + DIGITS).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        if crop.is_some_and(|crop: ContentHash| crops.contains(&crop)) {
            changed[at..at + DIGITS].fill(b'0');
            count += 1;
        }
    }
    (changed.into(), count)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Judgement, RunName, Selection, View};
    use crate::objects::Objects;
    use crate::objects::folder::Folder;
    use crate::verdicts::{LogPosition, VerdictWriter};

    fn verdict(id: u64, crop: &[u8]) -> Verdict {
        Verdict {
            id: format!("v-{id}").parse().unwrap(),
            photo_id: (id as i64).into(),
            crop: ContentHash::of(crop),
            judgement: Judgement::Ok,
            reason: None,
            by: "ada".into(),
            at: 5,
            replaces: vec![],
            selection: Selection::Random,
            view: View::Single,
            repeat: false,
            seen: None,
        }
    }

    #[tokio::test]
    async fn removed_verdicts_are_not_read_and_positions_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
        let log = VerdictLog::new(objects.clone(), RunName::default()).with_segment_bytes(300);
        let all: Vec<Verdict> = (0..9).map(|id| verdict(id, &[id as u8 % 3])).collect();
        let mut writer = VerdictWriter::open(log.clone(), |_| ()).await.unwrap();
        for verdict in &all {
            writer.append(std::slice::from_ref(verdict)).await.unwrap();
        }
        let crop = ContentHash::of(&[1]);
        let of_photos = log.crops_of(&[1.into(), 4.into()].into()).await.unwrap();
        assert_eq!(of_photos, [crop].into());
        let end = writer.position();
        assert_eq!(log.remove(&[crop].into()).await.unwrap(), 3);
        assert_eq!(log.remove(&[crop].into()).await.unwrap(), 0);
        let mut position = LogPosition::default();
        let mut read = Vec::new();
        log.read(&mut position, |verdict| read.push(verdict)).await.unwrap();
        let left: Vec<Verdict> = all.iter().filter(|verdict| verdict.crop != crop).cloned().collect();
        assert_eq!((read, position), (left, end));
        // A writer that was open goes on.
        let news = writer.append(&[verdict(10, b"new")]).await.unwrap();
        assert_eq!((news.news.len(), news.foreign), (1, 0));
        for segment in 1..9 {
            if let Ok(body) = objects.get(&ObjectKey::verdicts(&RunName::default(), segment)).await {
                assert!(!String::from_utf8_lossy(&body).contains(&crop.to_string()));
            }
        }
    }
}
