//! Telling those who watch something that it is over, also when it panics: a scope waits for its threads.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says that all is over when it is dropped.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
