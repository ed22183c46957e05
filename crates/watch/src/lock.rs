//! Locks of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holders do not panic half-way: what they guard is whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
