//! Parts that requests change in turn.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a part. A panic of another request leaves it whole: each change is one call.
pub fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
