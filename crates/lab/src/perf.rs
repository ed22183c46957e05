//! Where the processors are, looked at so many times a second: samples of the kernel's clock event (PERF_COUNT_SW_CPU_CLOCK,
//! perf_event_open(2)) on every processor, with who was running and through which functions of the kernel.
//!
//! It needs no counter of the hardware, so it works in virtual machines; on the machine that counts instructions a nanosecond is
//! one, and the share of samples in a function is its share of instructions. While interrupts are off there is no sample: it is
//! taken where they are switched on, which is why each comes with its callers. The events end with the process that opened them.
//!
//! Deliberately absent: stacks of programs, and what samples mean.

pub mod records;
pub mod symbols;
mod sys;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::Ends;
use records::{Record, records};
use sys::{Event, Ring};

/// How often what was sampled is fetched: a ring holds several times as much.
const FETCHED: Duration = Duration::from_millis(20);
/// Pages of a processor's ring, a power of two: 2 MiB.
const PAGES: usize = 512;
/// Bytes of samples that are kept in all, half a million samples or more; what comes after is counted as lost.
const MOST: usize = 256 << 20;
/// Callers that are kept of a sample.
const CALLERS: u16 = 64;

/// What was sampled.
#[derive(Debug, Default)]
pub struct Sampled {
    /// Records of the kernel, for [`records()`].
    pub bytes: Vec<u8>,
    /// Samples that are not in it, for want of room.
    pub lost: u64,
}

/// Samples all processors while something is done, every so many nanoseconds of each.
///
/// # Errors
/// What the kernel does not allow or have.
///
/// # Panics
/// When what is done does.
pub fn during<T>(period: u64, work: impl FnOnce() -> T) -> Result<(T, Sampled), String> {
    let said = |error: std::io::Error| format!("perf_event_open(2): {error}");
    let mut rings = Vec::new();
    for processor in processors()? {
        let event = Event::open(processor, period, CALLERS).map_err(said)?;
        rings.push(Ring::map(event, PAGES).map_err(said)?);
    }
    rings.iter().try_for_each(|ring| ring.event().enable()).map_err(said)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut sampled = Sampled::default();
            loop {
                // Once more after the end, for what came until then.
                let last = over.load(Ordering::Acquire);
                rings.iter_mut().for_each(|ring| sampled.fetch(ring));
                if last {
                    return sampled;
                }
                thread::sleep(FETCHED);
            }
        });
        let ends = Ends(&over);
        let done = work();
        drop(ends);
        let sampled = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done, sampled))
    })
}

impl Sampled {
    fn fetch(&mut self, ring: &mut Ring) {
        let before = self.bytes.len();
        ring.read(&mut self.bytes);
        if self.bytes.len() > MOST {
            let beyond = records(&self.bytes[before..]);
            self.lost += beyond.filter(|record| matches!(record, Record::Sample(_))).count() as u64;
            self.bytes.truncate(before);
        }
    }
}

/// The processors that are there (/sys/devices/system/cpu/online).
fn processors() -> Result<Vec<i32>, String> {
    let path = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
    listed(text.trim()).ok_or_else(|| format!("{path} holds {text:?}"))
}

/// A list as the kernel writes it: `0-3,6`.
fn listed(text: &str) -> Option<Vec<i32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    Some(all.into_iter().map(i32::from).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_list_has_ranges_and_single_ones() {
        assert_eq!(super::listed("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(super::listed("0"), Some(vec![0]));
        assert_eq!((super::listed(""), super::listed("0-")), (None, None));
    }
}
