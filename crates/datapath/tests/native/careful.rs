//! What a packet is worked on with: one for each thread here.

use std::cell::Cell;

use crate::parse::Headers;
use crate::work::Work;

thread_local! {
    static WORK: Cell<Option<&'static mut Work>> = const { Cell::new(None) };
}

/// This thread's.
pub fn work() -> Option<&'static mut Work> {
    WORK.with(|cell| {
        let work = cell.take().unwrap_or_else(|| {
            Box::leak(Box::new(Work {
                headers: Headers::new(),
                new: Default::default(),
                header: [0; _],
                walk: Default::default(),
                mss: Default::default(),
                option: [0; _],
            }))
        });
        let again: *mut Work = work;
        cell.set(Some(work));
        // SAFETY: as in the kernel, where the map gives it out as often as it is asked; it is never freed.
        Some(unsafe { &mut *again })
    })
}
