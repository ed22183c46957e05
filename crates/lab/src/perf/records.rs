//! The records of a ring as the kernel writes them (perf_event_open(2), "MMAP layout"), of events as [`super::during`] opens them.
//! Pure: bytes in, records out; what is no record ends them.

/// PERF_RECORD_LOST, PERF_RECORD_FORK, PERF_RECORD_SAMPLE
const LOST: u32 = 2;
const FORK: u32 = 7;
const SAMPLE: u32 = 9;
/// PERF_RECORD_MISC_CPUMODE_MASK and two of its values.
const MODE: u16 = 7;
const KERNEL: u16 = 1;
const USER: u16 = 2;
/// From here on an address is a mark between the parts of a stack (PERF_CONTEXT_MAX).
const MARKS: u64 = (-4095_i64) as u64;
/// Type, mode and length.
const HEADER: usize = 8;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A processor was seen.
    Sample(Sample<'a>),
    /// A process began.
    Began {
        /// Its number.
        process: u32,
        /// That of the one that started it.
        parent: u32,
    },
    /// So many records found no room.
    Lost(u64),
    /// Another.
    Other,
}

/// Where a processor was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// In whose context; 0 is none, or one of another PID namespace.
    pub process: u32,
    /// In which half of it.
    pub mode: Mode,
    /// The address.
    pub address: u64,
    callers: &'a [u8],
}

/// Which half of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel.
    Kernel,
    /// A program.
    User,
    /// A hypervisor, or one of its guests.
    Other,
}

impl Sample<'_> {
    /// Addresses from the sampled function outwards.
    pub fn stack(&self) -> impl Iterator<Item = u64> {
        let addresses = self.callers.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let callers = addresses.filter(|address| *address < MARKS);
        // Its own address comes first in the chain of the kernel's, which need not be there.
        std::iter::once(self.address).chain(callers.skip_while(|address| *address == self.address))
    }
}

/// The records of some bytes.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_at_checked(HEADER)?;
        let kind = number(header, 0)?;
        let mode = u16::from_ne_bytes([header[4], header[5]]);
        let length = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        let (record, rest) = bytes.split_at_checked(length)?;
        let body = record.get(HEADER..)?;
        bytes = rest;
        Some(record_of(kind, mode, body).unwrap_or(Record::Other))
    })
}

/// A record by its body, if it is one of these and long enough.
fn record_of(kind: u32, mode: u16, body: &[u8]) -> Option<Record<'_>> {
    match kind {
        LOST => Some(Record::Lost(long(body, 8)?)),
        // The numbers of process and parent, then of their threads.
        FORK => Some(Record::Began { process: number(body, 0)?, parent: number(body, 4)? }),
        SAMPLE => {
            let mode = match mode & MODE {
                KERNEL => Mode::Kernel,
                USER => Mode::User,
                _ => Mode::Other,
            };
            // The address, the numbers of process and thread, how many callers there are, and those.
            let callers = usize::try_from(long(body, 16)?).ok()?.checked_mul(8)?;
            let callers = body.get(24..)?.get(..callers)?;
            Some(Record::Sample(Sample { process: number(body, 8)?, mode, address: long(body, 0)?, callers }))
        }
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, mode: u16, body: &[u64]) -> Vec<u8> {
        let length = (HEADER + body.len() * 8) as u16;
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(mode.to_ne_bytes());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    /// Two numbers as they lie in a word.
    fn pair(first: u32, second: u32) -> u64 {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&first.to_ne_bytes());
        bytes[4..].copy_from_slice(&second.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    }

    fn all() -> Vec<u8> {
        let kernel_mark = (-128_i64) as u64;
        [
            record(FORK, 0, &[pair(70, 7), pair(70, 8), 0]),
            record(SAMPLE, KERNEL, &[10, pair(70, 71), 4, kernel_mark, 10, 20, 30]),
            record(SAMPLE, USER, &[11, pair(9, 9), 0]),
            record(LOST, 0, &[1, 5]),
            record(3, 0, &[1, 2]),
        ]
        .concat()
    }

    #[test]
    fn records_are_what_the_kernel_writes() {
        let bytes = all();
        let all: Vec<Record<'_>> = records(&bytes).collect();
        assert_eq!(all.len(), 5);
        assert_eq!(all[0], Record::Began { process: 70, parent: 7 });
        let Record::Sample(sample) = all[1] else { panic!("{:?}", all[1]) };
        assert_eq!((sample.process, sample.mode), (70, Mode::Kernel));
        assert_eq!(sample.stack().collect::<Vec<_>>(), [10, 20, 30]);
        let Record::Sample(sample) = all[2] else { panic!("{:?}", all[2]) };
        assert_eq!((sample.process, sample.mode), (9, Mode::User));
        assert_eq!(sample.stack().collect::<Vec<_>>(), [11]);
        assert_eq!(all[3..], [Record::Lost(5), Record::Other]);
    }

    #[test]
    fn what_is_no_record_ends_them_and_nothing_panics() {
        let whole = all();
        for end in 0..whole.len() {
            records(&whole[..end]).for_each(drop);
        }
        // Every byte another, in turn: lengths, counts of callers and kinds among them.
        for at in 0..whole.len() {
            for value in [0, 1, 7, 9, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let read = records(&bytes).map(|record| match record {
                    Record::Sample(sample) => sample.stack().count(),
                    _ => 0,
                });
                assert!(read.sum::<usize>() <= whole.len());
            }
        }
        assert_eq!(records(&[0; 64]).count(), 0);
        // Of a length that ends within its own header.
        assert_eq!(records(&[9, 0, 0, 0, 0, 0, 7, 0, 0, 0]).count(), 0);
    }
}
