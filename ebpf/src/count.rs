//! Counters. They are one for each processor, so that counting is an addition.

use portway_datapath::abi::{Drop, Leg};
use portway_datapath::record::Direction;

use crate::maps::{DROPS, LEGS};

/// A packet of a member's flow has been carried.
#[inline(always)]
pub fn carried(member: u32, direction: Direction, bytes: u32) {
    add(member, direction, 1, u64::from(bytes));
}

/// One that was counted already has not been.
#[inline(always)]
pub fn not_carried(member: u32, direction: Direction, bytes: u32) {
    add(member, direction, u64::MAX, u64::from(bytes).wrapping_neg());
}

#[inline(always)]
fn add(member: u32, direction: Direction, packets: u64, bytes: u64) {
    let Some(leg) = LEGS.get_ptr_mut(member) else { return };
    // SAFETY: this processor's value; programs are not interrupted by each other between load and store.
    let leg: &mut Leg = unsafe { &mut *leg };
    match direction {
        Direction::Forth => {
            leg.packets_in = leg.packets_in.wrapping_add(packets);
            leg.bytes_in = leg.bytes_in.wrapping_add(bytes);
        }
        Direction::Back => {
            leg.packets_out = leg.packets_out.wrapping_add(packets);
            leg.bytes_out = leg.bytes_out.wrapping_add(bytes);
        }
    }
}

/// A flow has begun.
#[inline(always)]
pub fn begun(member: u32) {
    if let Some(leg) = LEGS.get_ptr_mut(member) {
        // SAFETY: as above.
        unsafe { (*leg).flows = (*leg).flows.wrapping_add(1) };
    }
}

/// A SYN is answered by a cookie.
#[inline(always)]
pub fn cookie(rule: u32) {
    if let Some(drops) = DROPS.get_ptr_mut(rule) {
        // SAFETY: as above.
        unsafe { (*drops).cookies = (*drops).cookies.wrapping_add(1) };
    }
}

/// A packet was not carried.
#[inline(always)]
pub fn dropped(rule: u32, reason: Drop) {
    if let Some(drops) = DROPS.get_ptr_mut(rule) {
        // SAFETY: as above. The index is a constant wherever this is called.
        if let Some(count) = unsafe { (*drops).by_reason.get_mut(reason as usize) } {
            *count = count.wrapping_add(1);
        }
    }
}
