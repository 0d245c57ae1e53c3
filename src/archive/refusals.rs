//! What may not be taken again after a takedown: `refusals/`.
//!
//! Addresses and originals have an object each, under their hashes, so that one request tells whether one is refused.
//! Fingerprints of crops are in one list: whoever looks for one compares it with all. Nothing here names a person, a
//! photo or a host. Refusals hold for all runs of the store and are never removed by the program.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{TryStreamExt, future};
use serde::{Deserialize, Serialize};

use super::{JSON, PAGE, change, decode, encode, keys, optional};
use crate::domain::photo_url::address_hash;
use crate::domain::{ContentHash, Fingerprint};
use crate::objects::{ObjectError, ObjectKey, Objects};

/// What a takedown refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Hashes of addresses: see [`address_hash`].
    pub urls: Vec<ContentHash>,
    pub originals: Vec<ContentHash>,
    pub fingerprints: Vec<Fingerprint>,
}

impl Refused {
    pub fn is_empty(&self) -> bool {
        self.urls.is_empty() && self.originals.is_empty() && self.fingerprints.is_empty()
    }
}

/// Why an address or an original is refused.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    /// The id of the takedown.
    takedown: String,
    /// Seconds since 1970, UTC.
    at: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct RefusedFingerprints {
    fingerprints: Vec<RefusedFingerprint>,
}

#[derive(Serialize, Deserialize)]
struct RefusedFingerprint {
    fingerprint: Fingerprint,
    #[serde(flatten)]
    refusal: Refusal,
}

/// The refusals in the object store. Clones share the store.
#[derive(Clone)]
pub struct Refusals {
    objects: Arc<dyn Objects>,
}

impl Refusals {
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Adds refusals. Those that are there stay, so the call can be repeated. `at`: seconds since 1970, UTC.
    pub async fn add(&self, refused: &Refused, takedown: &str, at: u64) -> Result<(), ObjectError> {
        let refusal = || Refusal { takedown: takedown.to_owned(), at };
        let urls = refused.urls.iter().map(|url| ObjectKey::refused_url(*url));
        let originals = refused.originals.iter().map(|original| ObjectKey::refused_original(*original));
        for key in urls.chain(originals) {
            let _ = self.objects.put_if_absent(&key, encode(&key, &refusal())?, JSON).await?;
        }
        if refused.fingerprints.is_empty() {
            return Ok(());
        }
        let add = |document: &mut RefusedFingerprints| {
            for fingerprint in &refused.fingerprints {
                if !document.fingerprints.iter().any(|known| known.fingerprint == *fingerprint) {
                    document.fingerprints.push(RefusedFingerprint { fingerprint: *fingerprint, refusal: refusal() });
                }
            }
            Ok::<_, ObjectError>(())
        };
        change(&*self.objects, &ObjectKey::refused_fingerprints(), add).await
    }

    /// Whether nothing is refused.
    pub async fn is_empty(&self) -> Result<bool, ObjectError> {
        Ok(self.objects.list(ObjectKey::REFUSALS, None, 1).await?.keys.is_empty())
    }

    /// Whether photos at this URL are refused.
    pub async fn has_url(&self, url: &str) -> Result<bool, ObjectError> {
        self.objects.exists(&ObjectKey::refused_url(address_hash(url))).await
    }

    pub async fn has_original(&self, original: ContentHash) -> Result<bool, ObjectError> {
        self.objects.exists(&ObjectKey::refused_original(original)).await
    }

    /// The hashes of all refused addresses.
    pub async fn urls(&self) -> Result<HashSet<ContentHash>, ObjectError> {
        let hash = |key: ObjectKey| key.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse::<ContentHash>().ok();
        let keys = keys(self.objects.clone(), ObjectKey::REFUSED_URLS.into(), PAGE);
        keys.try_filter_map(move |key| future::ok(hash(key))).try_collect().await
    }

    /// The fingerprints of all refused crops.
    pub async fn fingerprints(&self) -> Result<Vec<Fingerprint>, ObjectError> {
        let key = ObjectKey::refused_fingerprints();
        let Some(body) = optional(self.objects.get(&key).await)? else { return Ok(Vec::new()) };
        let document: RefusedFingerprints = decode(&key, &body)?;
        Ok(document.fingerprints.into_iter().map(|refused| refused.fingerprint).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn refused(url: &str, bits: u128) -> Refused {
        Refused {
            urls: vec![address_hash(url)],
            originals: vec![ContentHash::of(url.as_bytes())],
            fingerprints: vec![Fingerprint::from_bits(bits)],
        }
    }

    #[tokio::test]
    async fn refusals_are_added_once_and_never_lost() {
        let scratch = tempfile::tempdir().unwrap();
        let refusals = Refusals::new(Arc::new(Folder::at(scratch.path())));
        assert!(refusals.is_empty().await.unwrap());
        assert_eq!(refusals.fingerprints().await.unwrap(), []);
        assert!(refusals.urls().await.unwrap().is_empty());
        let (one, two) = (refused("https://a.test/1.jpg", 1), refused("https://a.test/2.jpg", 2));
        let (first, second) = tokio::join!(refusals.add(&one, "t1", 5), refusals.add(&two, "t2", 6));
        first.and(second).unwrap();
        refusals.add(&one, "t3", 7).await.unwrap();
        assert!(!refusals.is_empty().await.unwrap());
        for spelling in ["https://a.test/1.jpg", "http://A.test/1.jpg#face"] {
            assert!(refusals.has_url(spelling).await.unwrap(), "{spelling}");
        }
        assert!(!refusals.has_url("https://a.test/3.jpg").await.unwrap());
        assert!(refusals.has_original(one.originals[0]).await.unwrap());
        assert!(!refusals.has_original(ContentHash::of(b"other")).await.unwrap());
        assert_eq!(refusals.urls().await.unwrap(), [one.urls[0], two.urls[0]].into());
        let mut fingerprints = refusals.fingerprints().await.unwrap();
        fingerprints.sort();
        assert_eq!(fingerprints, [1, 2].map(Fingerprint::from_bits));
    }
}
