//! Originals for detect and crop: read from the object store and decoded within a budget of memory.

use std::sync::Arc;
use std::time::Duration;

use ::image::RgbImage;
use bytes::Bytes;
use tokio::task::JoinError;
use tokio::time::timeout;

use super::gate;
use super::handover::Handover;
use super::stage::{Outcome, Retry, panic_text, store_failed};
use crate::domain::{Cause, CauseCode, Decoding, Original, Photo};
use crate::memory::{MemoryBudget, Reservation};
use crate::objects::{ObjectKey, Objects};
use crate::vision::image::{DecodeError, Header, Limits, jpeg_quality};

/// The memory for decoded images of a process in bytes, by default. With models and buffers of eight threads a worker
/// then stays within a gigabyte.
pub const DECODE_MEMORY: u64 = 512_000_000;

/// A decoded image and its share of the memory for decoded images.
pub struct HeldImage {
    pixels: RgbImage,
    /// As [`jpeg_quality`] says of its file.
    jpeg_quality: Option<u8>,
    _memory: Reservation,
}

/// Reads and decodes originals. All stages of a process that do so share memory and images.
#[derive(Clone)]
pub struct Originals {
    objects: Arc<dyn Objects>,
    images: Option<Arc<Handover<HeldImage>>>,
    memory: Arc<MemoryBudget>,
    patience: Duration,
}

impl Originals {
    /// How long a photo waits for memory before it is deferred. Shorter than the time limit of a stage.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub fn new(objects: Arc<dyn Objects>) -> Self {
        let memory = Arc::new(MemoryBudget::new(DECODE_MEMORY));
        Self { objects, images: None, memory, patience: Self::PATIENCE }
    }

    /// Hands decoded images from detect to crop. Decoding takes as long as detection.
    #[must_use]
    pub fn with_images(mut self, images: Arc<Handover<HeldImage>>) -> Self {
        self.images = Some(images);
        self
    }

    /// Shares the memory for decoded images with the other stages of the process.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<MemoryBudget>) -> Self {
        self.memory = memory;
        self
    }

    pub(super) fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }

    /// Decodes an original, and works on its upright pixels and the quality of its JPEG. `extra_memory`: the bytes that
    /// this work takes besides on an image of some width and height.
    pub(super) async fn work_on<T: Send + 'static>(
        &self,
        original: &Original,
        limits: Limits,
        extra_memory: impl Fn(u32, u32) -> u64,
        work: impl FnOnce(&RgbImage, Option<u8>) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<(HeldImage, Decoding, T), Outcome> {
        let mut for_file = Some(self.reserve(original.bytes).await?);
        let mut bytes = self.read(original).await?;
        let header = self.header(&bytes, limits).await?;
        let while_working = header.decoded_bytes() + extra_memory(header.width, header.height);
        let needed = header.memory().max(while_working);
        let total = needed.saturating_add(original.bytes);
        if total > self.memory.bytes() {
            let (needed, allowed) = (total.div_ceil(1_000_000), self.memory.bytes() / 1_000_000);
            let detail = format!("its pixels take {needed} MB of memory; --decode-megabytes is {allowed}");
            return Err(Outcome::Reject(Cause::new(CauseCode::TooLarge, detail)));
        }
        let mut reservation = match self.memory.try_reserve(needed) {
            Some(reservation) => reservation,
            None => {
                // A photo that waits holds nothing, so that others can go on.
                drop((bytes, for_file.take()));
                let reservation = self.reserve(total).await?;
                bytes = self.read(original).await?;
                reservation
            }
        };
        off_thread(move || {
            let (pixels, decoding) = header.decode(&bytes).map_err(|error| reject(&error))?;
            let jpeg_quality = jpeg_quality(&bytes);
            drop((bytes, for_file));
            reservation.shrink_to(while_working);
            let result = work(&pixels, jpeg_quality)?;
            reservation.shrink_to(header.decoded_bytes());
            Ok((HeldImage { pixels, jpeg_quality, _memory: reservation }, decoding, result))
        })
        .await
    }

    /// Waits a little while many decoded images wait for the next stage.
    pub(super) async fn let_next_stage_catch_up(&self) {
        if let Some(images) = &self.images {
            images.let_catch_up().await;
        }
    }

    /// Keeps a decoded image for the next stage, if no other photo waits for its memory.
    pub(super) fn keep(&self, original: &Original, image: HeldImage) {
        if let Some(images) = &self.images {
            let size = image.pixels.len();
            images.put(original.sha256, image, size);
            if self.memory.is_contended() {
                images.clear();
            }
        }
    }

    /// Takes the pixels that detect has left, if they are there. Those that nobody takes keep others out.
    pub(super) fn take_kept(&self, original: &Original) -> Option<HeldImage> {
        self.images.as_ref().and_then(|images| images.take(original.sha256))
    }

    /// As [`Originals::work_on`], but on the pixels that detect has left, if there are any. `extra_memory`: the bytes that
    /// the work takes besides.
    pub(super) async fn work_on_kept<T: Send + 'static>(
        &self,
        kept: Option<HeldImage>,
        original: &Original,
        limits: Limits,
        extra_memory: u64,
        work: impl FnOnce(&RgbImage, Option<u8>) -> Result<T, Outcome> + Send + 'static,
    ) -> Result<T, Outcome> {
        if let Some(image) = kept {
            let reservation = self.memory.try_reserve(extra_memory);
            if extra_memory == 0 || reservation.is_some() {
                return off_thread(move || {
                    let result = work(&image.pixels, image.jpeg_quality);
                    drop(reservation);
                    result
                })
                .await;
            }
            // The image would hold memory while others wait for it: it is decoded again once there is enough for both.
        }
        self.work_on(original, limits, |_, _| extra_memory, work).await.map(|(_, _, result)| result)
    }

    async fn read(&self, original: &Original) -> Result<Bytes, Outcome> {
        let key = ObjectKey::original(original.sha256, original.format);
        self.objects.get(&key).await.map_err(|error| store_failed(&error))
    }

    async fn header(&self, bytes: &Bytes, limits: Limits) -> Result<Header, Outcome> {
        let bytes = bytes.clone();
        off_thread(move || Header::read(&bytes, limits).map_err(|error| reject(&error))).await
    }

    async fn reserve(&self, bytes: u64) -> Result<Reservation, Outcome> {
        if let Some(reservation) = self.memory.try_reserve(bytes) {
            return Ok(reservation);
        }
        let reservation = self.memory.reserve(bytes);
        // Images that were left hold memory, and their photos may never ask for them.
        self.images.iter().for_each(|images| images.clear());
        timeout(self.patience, reservation).await.map_err(|_| {
            let held = self.memory.bytes() / 1_000_000;
            let detail = format!("other photos hold the {held} MB of memory for decoded images");
            Retry::wait(Cause::new(CauseCode::DecodeMemory, detail), None)
        })
    }
}

/// The original that fetch has stored.
pub(super) fn original(photo: &Photo) -> Result<&Original, Outcome> {
    let unfit =
        || Outcome::Poison(Cause::new(CauseCode::UnfitMessage, "the photo has no original: it has not passed fetch"));
    photo.facts.original.as_ref().ok_or_else(unfit)
}

/// Runs native or blocking work off the async threads. A panic is a failed attempt.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Outcome> + Send + 'static,
) -> Result<T, Outcome> {
    gate::spawn_blocking(work).await.map_err(panicked).flatten()
}

fn panicked(error: JoinError) -> Outcome {
    let detail = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| panic_text(panic.as_ref()));
    Retry::failed(Cause::new(CauseCode::Panic, detail))
}

fn reject(error: &DecodeError) -> Outcome {
    Outcome::Reject(Cause::new(error.code(), error.to_string()))
}
