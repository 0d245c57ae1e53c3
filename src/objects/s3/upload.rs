//! Uploads of any size, part by part, without a local copy.

use aws_sdk_s3::Config;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

use super::S3;
use crate::objects::ObjectError;

/// An object while it is uploaded. It appears as a whole with [`Upload::finish`]. What is not finished must be aborted, or
/// the service keeps the parts that were sent.
pub struct Upload {
    s3: S3,
    key: String,
    media_type: String,
    /// The bytes of the next part.
    buffer: BytesMut,
    /// None: nothing has been sent.
    id: Option<String>,
    parts: Vec<CompletedPart>,
}

impl S3 {
    /// Begins the upload of an object of any program. Nothing is sent before the first part is full.
    pub fn upload(&self, key: &str, media_type: &str) -> Upload {
        Upload {
            s3: self.clone(),
            key: key.to_owned(),
            media_type: media_type.to_owned(),
            buffer: BytesMut::new(),
            id: None,
            parts: Vec::new(),
        }
    }
}

impl Upload {
    /// The first parts. A service takes 10,000 parts, so later ones are larger: an object can have a terabyte.
    const PART_BYTES: usize = 16 << 20;
    const PARTS_OF_A_SIZE: usize = 1000;
    /// For one attempt to send a part over a slow line.
    const PART_TIME: Duration = Duration::from_secs(300);

    fn part_bytes(&self) -> usize {
        Self::PART_BYTES << (self.parts.len() / Self::PARTS_OF_A_SIZE).min(4)
    }

    /// Adds bytes, and sends the parts that are full.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), ObjectError> {
        while !bytes.is_empty() {
            let room = self.part_bytes() - self.buffer.len();
            let taken = bytes.split_to(room.min(bytes.len()));
            self.buffer.extend_from_slice(&taken);
            if self.buffer.len() == self.part_bytes() {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), ObjectError> {
        let (s3, key) = (self.s3.clone(), self.key.as_str());
        let what = || format!("write {key}");
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let create = s3.client.create_multipart_upload().bucket(&s3.bucket).key(key);
                let created = create.content_type(&self.media_type).send().await;
                let created = created.map_err(|error| s3.failure(what(), &error))?;
                created.upload_id().ok_or_else(|| s3.refused(what(), "the service gives the upload no id"))?.to_owned()
            }
        };
        self.id = Some(id.clone());
        let body = self.buffer.split().freeze();
        let number = self.parts.len() as i32 + 1;
        let limits = TimeoutConfig::builder()
            .read_timeout(Self::PART_TIME)
            .operation_attempt_timeout(Self::PART_TIME)
            .operation_timeout(Self::PART_TIME * S3::ATTEMPTS);
        let part = s3.client.upload_part().bucket(&s3.bucket).key(key).upload_id(id).part_number(number);
        let part = part.content_length(body.len() as i64).body(ByteStream::from(body));
        let part = part.customize().config_override(Config::builder().timeout_config(limits.build())).send().await;
        let part = part.map_err(|error| s3.failure(what(), &error))?;
        self.parts.push(CompletedPart::builder().part_number(number).set_e_tag(part.e_tag().map(Into::into)).build());
        Ok(())
    }

    /// Sends what is left and completes the object. After an error, the parts are deleted.
    pub async fn finish(mut self) -> Result<(), ObjectError> {
        let finished = self.try_finish().await;
        match finished {
            Ok(()) => Ok(()),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn try_finish(&mut self) -> Result<(), ObjectError> {
        let Some(id) = self.id.clone() else {
            let body = std::mem::take(&mut self.buffer).freeze();
            return self.s3.write(&self.key, body, &self.media_type).await;
        };
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        let Self { s3, key, parts, .. } = &*self;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.clone())).build();
        let complete = s3.client.complete_multipart_upload().bucket(&s3.bucket).key(key).upload_id(id);
        match complete.multipart_upload(parts).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(s3.failure(format!("write {key}"), &error)),
        }
    }

    /// Has the service delete the parts. A failure leaves parts behind, which the bucket's rules delete.
    pub async fn abort(self) {
        if let Some(id) = &self.id {
            let abort = self.s3.client.abort_multipart_upload().bucket(&self.s3.bucket).key(&self.key).upload_id(id);
            if let Err(error) = abort.send().await {
                let error = self.s3.failure(format!("abort the upload of {}", self.key), &error);
                tracing::warn!(%error, "parts of an upload are left behind");
            }
        }
    }
}
