//! Connections that are made and then held without a word, for what they cost whoever forwards them.
//!
//! Made a few hundred at a time, so that no listener's queue overflows; the time runs from when the last is there. They end
//! by a reset: tens of thousands of ports in TIME_WAIT would stand in the way of the next run.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::context::{Context, Shared, Tally};
use crate::outcome::{ErrorKind, nanoseconds};
use crate::plan::{Length, Plan};
use crate::socket::Route;

/// Connections being made at a time, all threads together.
const MOST_MAKING: u32 = 256;
const TICK: u64 = 20_000_000;
const INTEREST: EventFlags = EventFlags::OUT.union(EventFlags::RDHUP).union(EventFlags::ET);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Making,
    Held,
    Over,
}

struct Slot {
    socket: Option<OwnedFd>,
    stage: Stage,
    since: u64,
}

/// Runs thread `index` of `threads` to the end of the load.
pub(crate) fn drive(
    plan: &Plan,
    shared: &Shared,
    (index, threads): (u32, u32),
    count: u32,
) -> Result<Tally, Errno> {
    let mut context = Context::new(shared)?;
    let mut route = Route::new(plan.target, &plan.from, index);
    let mut slots: Vec<Slot> = Vec::with_capacity(count as usize);
    let most_making = (MOST_MAKING / threads).max(1);
    let connect_timeout = nanoseconds(plan.connect_timeout);
    let length = match plan.length {
        Length::Time(time) => nanoseconds(time),
        Length::Count(_) | Length::Bytes(_) => 0,
    };
    let mut making = 0;
    // When the last one was made, or had failed.
    let mut complete = None;
    let mut tick = TICK;
    while !shared.stop.load(Relaxed) {
        while making < most_making && slots.len() < count as usize {
            let since = shared.now();
            let made = route.stream().and_then(|socket| {
                context.watch(&socket, slots.len() as u32, 0, INTEREST)?;
                Ok(socket)
            });
            let stage = if made.is_ok() { Stage::Making } else { Stage::Over };
            making += u32::from(made.is_ok());
            let socket = made.map_err(|error| context.failed(ErrorKind::of(error))).ok();
            slots.push(Slot { socket, stage, since });
        }
        let now = shared.now();
        if complete.is_none() && making == 0 && slots.len() == count as usize {
            complete = Some(now);
        }
        let end = complete.map_or(u64::MAX, |complete: u64| complete.saturating_add(length));
        if now >= end {
            break;
        }
        context.wait(tick.min(end))?;
        while let Some((key, _, flags)) = context.event() {
            let slot = &mut slots[key as usize];
            let ended = flags.intersects(EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP);
            let before = slot.stage;
            match before {
                Stage::Making if !ended && flags.contains(EventFlags::OUT) => {
                    slot.stage = Stage::Held;
                    context.tally.done += 1;
                    let time = shared.now().saturating_sub(slot.since);
                    context.tally.times.add(time);
                }
                Stage::Making | Stage::Held if ended => {
                    let error = slot.socket.as_ref().map(sockopt::socket_error);
                    context.failed(match error {
                        Some(Ok(Err(Errno::TIMEDOUT))) if before == Stage::Making => {
                            ErrorKind::ConnectTimeout
                        }
                        Some(Ok(Err(error)) | Err(error)) => ErrorKind::of(error),
                        Some(Ok(Ok(()))) | None => ErrorKind::ClosedEarly,
                    });
                    (slot.stage, slot.socket) = (Stage::Over, None);
                    context.tally.done -= u64::from(before == Stage::Held);
                }
                _ => {}
            }
            making -= u32::from(before == Stage::Making && slot.stage != Stage::Making);
        }
        let now = shared.now();
        if now >= tick {
            tick = now + TICK;
            if making > 0 {
                let late = |slot: &&mut Slot| {
                    slot.stage == Stage::Making && now.saturating_sub(slot.since) > connect_timeout
                };
                for slot in slots.iter_mut().filter(late) {
                    (slot.stage, slot.socket) = (Stage::Over, None);
                    context.failed(ErrorKind::ConnectTimeout);
                    making -= 1;
                }
            }
        }
    }
    for socket in slots.iter().filter_map(|slot| slot.socket.as_ref()) {
        // A socket that refuses this is closed all the same.
        _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
    }
    let now = shared.now();
    context.tally.last = now.saturating_sub(complete.unwrap_or(now));
    context.publish();
    Ok(context.tally)
}
