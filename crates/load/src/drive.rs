//! The loop of a thread that asks and is answered: what is due begins in a free slot, what happens on sockets goes to the
//! slot's conversation, what takes too long is ended.
//!
//! What a conversation is (TCP, UDP) is its own affair ([`Talk`]).

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::context::{Context, Shared, Tally};
use crate::outcome::{ErrorKind, nanoseconds};
use crate::pace::{GRACE, Next, Pace};
use crate::plan::Plan;

/// How often it is looked for what takes too long, and whether to stop, in nanoseconds.
const TICK: u64 = 20_000_000;
/// How long a slot rests after a failure in a closed loop, in nanoseconds: a port that refuses would otherwise be asked as
/// fast as the CPU can.
const REST: u64 = 10_000_000;

/// A conversation per slot.
pub(crate) trait Talk {
    /// Begins the request of a free slot, due at `due`.
    fn begin(&mut self, slot: u32, due: u64, hub: &mut Hub<'_>);
    /// Something happened on the socket of a slot, in the generation that watched it.
    fn ready(&mut self, slot: u32, generation: u32, flags: EventFlags, hub: &mut Hub<'_>);
    /// Ends what has taken too long at `now`.
    fn expire(&mut self, now: u64, hub: &mut Hub<'_>);
}

/// What conversations report to.
pub(crate) struct Hub<'a> {
    pub(crate) context: Context<'a>,
    pace: Pace<'a>,
    free: VecDeque<u32>,
    /// Slots that rest, and until when.
    resting: VecDeque<(u64, u32)>,
    /// Requests on their way.
    busy: u32,
}

impl Hub<'_> {
    /// The request of a slot was answered. The slot stays taken until [`Self::free`].
    pub(crate) fn answered(&mut self, due: u64, sent: u64, received: u64) {
        let now = self.context.shared.now();
        if self.pace.counts(due, now) {
            let tally = &mut self.context.tally;
            tally.done += 1;
            tally.sent += sent;
            tally.received += received;
            tally.times.add(now.saturating_sub(due));
            tally.last = tally.last.max(now);
        }
    }

    /// The slot can take the next request.
    pub(crate) fn free(&mut self, slot: u32) {
        self.busy -= 1;
        self.free.push_back(slot);
    }

    /// The request of a slot failed; the slot takes another, at once or after a rest.
    pub(crate) fn failed(&mut self, slot: u32, due: u64, kind: ErrorKind) {
        let now = self.context.shared.now();
        if self.pace.counts(due, now) {
            self.context.failed(kind);
            self.context.tally.last = self.context.tally.last.max(now);
        }
        self.busy -= 1;
        if self.pace.is_open() {
            self.free.push_back(slot);
        } else {
            self.resting.push_back((now + REST, slot));
        }
    }

    /// Begins what is due; when to look again, or `None` when nothing will ever begin.
    fn begin(&mut self, talk: &mut impl Talk) -> Option<u64> {
        let now = self.context.shared.now();
        while let Some((_, slot)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            self.free.push_back(slot);
        }
        let rested = self.resting.front().map_or(u64::MAX, |(until, _)| *until);
        while let Some(slot) = self.free.pop_front() {
            match self.pace.next(self.context.shared.now()) {
                Next::Begin(due) => {
                    self.busy += 1;
                    talk.begin(slot, due, self);
                }
                Next::At(due) => {
                    self.free.push_front(slot);
                    return Some(due.min(rested));
                }
                Next::Over => {
                    self.free.push_front(slot);
                    return None;
                }
            }
        }
        Some(rested)
    }
}

/// Runs thread `index` of `threads` to the end of the load: `slots` requests at a time.
pub(crate) fn drive(
    plan: &Plan,
    shared: &Shared,
    (index, threads): (u32, u32),
    slots: u32,
    talk: &mut impl Talk,
) -> Result<Tally, Errno> {
    let pace = Pace::new(plan, index, threads, &shared.left);
    let context = Context::new(shared)?;
    let mut hub = Hub {
        context,
        pace,
        free: (0..slots).collect(),
        resting: VecDeque::with_capacity(slots as usize),
        busy: 0,
    };
    let end = hub.pace.end;
    // Answers that were asked for in time are awaited where the schedule or a count says how many there are to be.
    let give_up = end.map_or(u64::MAX, |end| {
        let longest = nanoseconds(plan.connect_timeout + plan.timeout) + GRACE + 2 * TICK;
        if hub.pace.is_open() { end.saturating_add(longest) } else { end }
    });
    let mut tick = TICK;
    while !shared.stop.load(Relaxed) {
        let next = hub.begin(talk);
        let now = shared.now();
        if now >= give_up || (next.is_none() && hub.busy == 0) {
            break;
        }
        if now >= tick {
            talk.expire(now, &mut hub);
            tick = now + TICK;
        }
        hub.context.wait(next.unwrap_or(u64::MAX).min(tick).min(give_up))?;
        while let Some((slot, generation, flags)) = hub.context.event() {
            talk.ready(slot, generation, flags, &mut hub);
        }
    }
    if !shared.stop.load(Relaxed) {
        hub.context.tally.errors.add(ErrorKind::NotSent, hub.pace.not_begun());
    }
    hub.context.publish();
    Ok(hub.context.tally)
}
