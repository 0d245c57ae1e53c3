//! Typed documents in the object store: records, settings, candidates, folders and classifiers of runs, models, predictions,
//! rescores and their faults, users and their sessions, versions of datasets, groups of crops, refusals and takedowns.
//!
//! A document is JSON, except a model. A damaged document is an [`ServerError::Refused`] that names its key.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap};
use crate::server_error::ServerError;

pub mod crop_groups;
pub mod duplicates;
pub mod landmark_references;
pub mod models;
pub mod predictions;
pub mod records;
pub mod refusals;
pub mod rescores;
pub mod run_candidates;
pub mod run_classifier;
pub mod run_folders;
pub mod run_settings;
pub mod score_faults;
pub mod sessions;
pub mod takedowns;
pub mod users;
pub mod versions;

const JSON: &str = "application/json";
/// Keys in one page of a listing.
const PAGE: usize = 1000;
/// Documents that are read at a time.
const READERS: usize = 16;

fn encode<T: Serialize>(key: &ObjectKey, document: &T) -> Result<Bytes, ObjectError> {
    serde_json::to_vec(document)
        .map(Bytes::from)
        .map_err(|error| ServerError::Refused { what: format!("cannot write {key}"), detail: error.to_string() }.into())
}

fn decode<T: DeserializeOwned>(key: &ObjectKey, body: &[u8]) -> Result<T, ObjectError> {
    serde_json::from_slice(body).map_err(|error| damaged(key, &error.to_string()))
}

fn damaged(key: &ObjectKey, detail: &str) -> ObjectError {
    ServerError::Refused { what: format!("cannot read {key}"), detail: detail.to_owned() }.into()
}

/// None: the object does not exist.
fn optional<T>(read: Result<T, ObjectError>) -> Result<Option<T>, ObjectError> {
    match read {
        Ok(object) => Ok(Some(object)),
        Err(ObjectError::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes a document, which is created if it is missing. Concurrent changes are all kept: `edit` is called again if
/// another writer was faster. An error of `edit` writes nothing.
async fn change<D, T, E>(
    objects: &dyn Objects,
    key: &ObjectKey,
    mut edit: impl FnMut(&mut D) -> Result<T, E>,
) -> Result<T, E>
where
    D: Serialize + DeserializeOwned + Default,
    E: From<ObjectError>,
{
    loop {
        let read = optional(objects.get_versioned(key).await)?;
        let mut document = match &read {
            Some((body, _)) => decode(key, body)?,
            None => D::default(),
        };
        let result = edit(&mut document)?;
        let body = encode(key, &document)?;
        let written = match read {
            Some((_, version)) => objects.compare_and_swap(key, &version, body, JSON).await? == Swap::Done,
            None => objects.put_if_absent(key, body, JSON).await? == PutIfAbsent::Created,
        };
        if written {
            return Ok(result);
        }
    }
}

/// All keys that start with `prefix`, in key order.
fn keys(
    objects: Arc<dyn Objects>,
    prefix: String,
    page: usize,
) -> impl Stream<Item = Result<ObjectKey, ObjectError>> + use<> {
    // The key to continue after. The outer None: there are no more keys.
    let pages = stream::try_unfold(Some(None), move |after: Option<Option<ObjectKey>>| {
        let (objects, prefix) = (objects.clone(), prefix.clone());
        async move {
            let Some(after) = after else { return Ok(None) };
            let page = objects.list(&prefix, after.as_ref(), page).await?;
            let next = page.keys.last().cloned().filter(|_| page.more).map(Some);
            Ok::<_, ObjectError>(Some((stream::iter(page.keys.into_iter().map(Ok)), next)))
        }
    });
    pages.try_flatten()
}
