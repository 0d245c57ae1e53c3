//! Test doubles that several tests share.
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use facemill::domain::ContentHash;
use facemill::objects::{ObjectError, ObjectKey, Objects, Page, PutIfAbsent, Swap, Version};
use facemill::server_error::ServerError;

/// An object store in memory that can be made unavailable.
#[derive(Default)]
pub struct MemoryObjects {
    objects: Mutex<BTreeMap<ObjectKey, Bytes>>,
    unavailable: AtomicBool,
}

impl MemoryObjects {
    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::SeqCst);
    }

    pub fn all(&self) -> BTreeMap<ObjectKey, Bytes> {
        self.objects.lock().unwrap().clone()
    }

    pub fn remove(&self, key: &ObjectKey) {
        self.objects.lock().unwrap().remove(key);
    }

    fn check_available(&self) -> Result<(), ObjectError> {
        match self.unavailable.load(Ordering::SeqCst) {
            true => Err(ServerError::Unavailable { what: "memory".into(), detail: "down".into() }.into()),
            false => Ok(()),
        }
    }
}

fn version_of(body: &[u8]) -> Version {
    Version::new(ContentHash::of(body).to_string())
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn put(&self, key: &ObjectKey, body: Bytes, _media_type: &str) -> Result<bool, ObjectError> {
        self.check_available()?;
        Ok(self.objects.lock().unwrap().insert(key.clone(), body).is_none())
    }

    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes, _media_type: &str) -> Result<PutIfAbsent, ObjectError> {
        self.check_available()?;
        match self.objects.lock().unwrap().entry(key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(body);
                Ok(PutIfAbsent::Created)
            }
            Entry::Occupied(_) => Ok(PutIfAbsent::AlreadyThere),
        }
    }

    async fn compare_and_swap(
        &self,
        key: &ObjectKey,
        expected: &Version,
        body: Bytes,
        _media_type: &str,
    ) -> Result<Swap, ObjectError> {
        self.check_available()?;
        match self.objects.lock().unwrap().get_mut(key) {
            Some(present) if version_of(present) == *expected => {
                *present = body;
                Ok(Swap::Done)
            }
            _ => Ok(Swap::Conflict),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        self.check_available()?;
        self.objects.lock().unwrap().get(key).cloned().ok_or_else(|| ObjectError::Missing(key.clone()))
    }

    async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError> {
        let body = self.get(key).await?;
        let version = version_of(&body);
        Ok((body, version))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        self.check_available()?;
        self.objects.lock().unwrap().remove(key);
        Ok(())
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        self.check_available()?;
        Ok(self.objects.lock().unwrap().contains_key(key))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        self.check_available()?;
        let objects = self.objects.lock().unwrap();
        let wanted = |key: &&ObjectKey| key.as_str().starts_with(prefix) && after.is_none_or(|after| *key > after);
        let mut keys: Vec<_> = objects.keys().filter(wanted).take(limit + 1).cloned().collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok(Page { keys, more })
    }

    async fn check(&self) -> Result<(), ObjectError> {
        self.check_available()
    }
}
