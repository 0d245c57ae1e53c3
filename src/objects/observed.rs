//! An object store with traces and metrics.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::Status;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{ObjectError, ObjectKey, Objects, Page, PutIfAbsent, Swap, Version};
use crate::domain::StoredUrl;
use crate::telemetry::instruments::{self, Io};

/// Forwards every call to another store.
pub struct Observed {
    store: Arc<dyn Objects>,
    /// The bucket's name. None: the store is a folder.
    bucket: Option<String>,
}

impl Observed {
    pub fn folder(store: Arc<dyn Objects>) -> Self {
        Self { store, bucket: None }
    }

    pub fn bucket(store: Arc<dyn Objects>, bucket: &str) -> Self {
        Self { store, bucket: Some(bucket.to_owned()) }
    }

    /// <https://opentelemetry.io/docs/specs/semconv/object-stores/s3/>
    fn span(&self, operation: &'static str, method: &'static str, key: &ObjectKey) -> Span {
        let span = tracing::trace_span!("object", otel.name = operation, facemill.object = %key);
        if let (Some(bucket), false) = (&self.bucket, span.is_disabled()) {
            span.set_attribute("rpc.system", "aws-api");
            span.set_attribute("rpc.service", "S3");
            span.set_attribute("rpc.method", method);
            span.set_attribute("aws.s3.bucket", bucket.clone());
            span.set_attribute("aws.s3.key", key.to_string());
        }
        span
    }
}

fn finish<T>(span: &Span, result: &Result<T, ObjectError>, moved: impl FnOnce(&T) -> Option<(Io, usize)>) {
    match result {
        Ok(answer) => {
            let Some((io, bytes)) = moved(answer) else { return };
            span.set_attribute("facemill.bytes", bytes as i64);
            if let Some(instruments) = instruments::get() {
                instruments.object(io, bytes);
            }
        }
        Err(error) => {
            span.set_attribute("error.type", error.kind());
            span.set_status(Status::error(error.to_string()));
        }
    }
}

#[async_trait]
impl Objects for Observed {
    async fn put(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<bool, ObjectError> {
        let (span, bytes) = (self.span("object put", "PutObject", key), body.len());
        let stored = self.store.put(key, body, media_type).instrument(span.clone()).await;
        // An object that existed was not transferred.
        finish(&span, &stored, |new| new.then_some((Io::Put, bytes)));
        stored
    }

    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<PutIfAbsent, ObjectError> {
        let (span, bytes) = (self.span("object put", "PutObject", key), body.len());
        let put = self.store.put_if_absent(key, body, media_type).instrument(span.clone()).await;
        finish(&span, &put, |put| (*put == PutIfAbsent::Created).then_some((Io::Put, bytes)));
        put
    }

    async fn compare_and_swap(
        &self,
        key: &ObjectKey,
        expected: &Version,
        body: Bytes,
        media_type: &str,
    ) -> Result<Swap, ObjectError> {
        let (span, bytes) = (self.span("object put", "PutObject", key), body.len());
        let swapped = self.store.compare_and_swap(key, expected, body, media_type).instrument(span.clone()).await;
        finish(&span, &swapped, |swap| (*swap == Swap::Done).then_some((Io::Put, bytes)));
        swapped
    }

    fn links_to(&self, photo: &StoredUrl) -> bool {
        self.store.links_to(photo)
    }

    async fn link(&self, key: &ObjectKey, photo: &StoredUrl) -> Result<bool, ObjectError> {
        let span = self.span("object link", "PutObject", key);
        let linked = self.store.link(key, photo).instrument(span.clone()).await;
        finish(&span, &linked, |_| None);
        linked
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        let span = self.span("object get", "GetObject", key);
        let body = self.store.get(key).instrument(span.clone()).await;
        finish(&span, &body, |body| Some((Io::Get, body.len())));
        body
    }

    async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError> {
        let span = self.span("object get", "GetObject", key);
        let object = self.store.get_versioned(key).instrument(span.clone()).await;
        finish(&span, &object, |(body, _)| Some((Io::Get, body.len())));
        object
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        let span = self.span("object head", "HeadObject", key);
        let there = self.store.exists(key).instrument(span.clone()).await;
        finish(&span, &there, |_| None);
        there
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let span = self.span("object delete", "DeleteObject", key);
        let deleted = self.store.delete(key).instrument(span.clone()).await;
        finish(&span, &deleted, |()| None);
        deleted
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        self.store.list(prefix, after, limit).await
    }

    async fn check(&self) -> Result<(), ObjectError> {
        self.store.check().await
    }
}
