//! Decoded images between the stages detect and crop.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::RgbImage;

use crate::domain::ContentHash;
use crate::memory::Reservation;

/// A decoded image and its share of the memory for decoded images.
pub struct HeldImage {
    pub pixels: RgbImage,
    /// As [`super::jpeg_quality`] says of its file.
    pub jpeg_quality: Option<u8>,
    _memory: Reservation,
}

impl HeldImage {
    pub fn new(pixels: RgbImage, jpeg_quality: Option<u8>, memory: Reservation) -> Self {
        Self { pixels, jpeg_quality, _memory: memory }
    }
}

/// A cache of decoded images, by the hash of their files.
///
/// The stages detect and crop both need the pixels of the original. Where both run in one process, crop takes them from
/// this cache. Decoding takes as long as detection. The cache is bounded. An evicted image is decoded again.
pub struct ImageCache {
    entries: Mutex<VecDeque<(ContentHash, Arc<HeldImage>)>>,
    bytes: usize,
}

impl ImageCache {
    /// Creates a cache for at most `bytes` of pixels.
    pub fn new(bytes: usize) -> Self {
        Self { entries: Mutex::default(), bytes }
    }

    /// Removes and returns an image.
    pub fn take(&self, hash: ContentHash) -> Option<Arc<HeldImage>> {
        let mut entries = self.entries();
        let at = entries.iter().position(|(other, _)| *other == hash)?;
        entries.remove(at).map(|(_, picture)| picture)
    }

    /// Adds an image and evicts the oldest ones where necessary. An image larger than the whole cache is not added.
    pub fn put(&self, hash: ContentHash, picture: Arc<HeldImage>) {
        let size = |picture: &HeldImage| picture.pixels.len();
        if size(&picture) > self.bytes {
            return;
        }
        let mut entries = self.entries();
        entries.retain(|(other, _)| *other != hash);
        entries.push_back((hash, picture));
        while entries.iter().map(|(_, picture)| size(picture)).sum::<usize>() > self.bytes {
            entries.pop_front();
        }
    }

    /// Evicts all images, so that their memory is free.
    pub fn clear(&self) {
        self.entries().clear();
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<(ContentHash, Arc<HeldImage>)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryBudget;

    #[test]
    fn the_cache_is_bounded_and_returns_an_image_once() {
        let cache = ImageCache::new(2 * 300);
        let memory = MemoryBudget::new(100 << 10);
        let hash = |i: u8| ContentHash::of(&[i]);
        let picture = |side: u32| {
            let pixels = RgbImage::new(side, side);
            Arc::new(HeldImage::new(pixels, None, memory.try_reserve(10 << 10).unwrap()))
        };
        for i in 0..3 {
            cache.put(hash(i), picture(10));
        }
        assert!(cache.take(hash(0)).is_none(), "the oldest is evicted");
        assert!(cache.take(hash(2)).is_some());
        assert!(cache.take(hash(2)).is_none());
        cache.put(hash(9), picture(20));
        assert!(cache.take(hash(9)).is_none(), "larger than the cache");
        cache.put(hash(4), picture(10));
        assert!(memory.try_reserve(100 << 10).is_none(), "cached images hold memory");
        cache.clear();
        assert!(cache.take(hash(1)).is_none());
        assert!(memory.try_reserve(100 << 10).is_some());
    }
}
