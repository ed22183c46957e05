//! Counters. They are one for each processor, so that counting is an addition.

use portway_datapath::abi::{Drop, Leg, Refusal};
use portway_datapath::record::Direction;

use crate::maps::{LEGS, REFUSALS};

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

/// A packet of this member was not carried; of member 0, if it is not known whose it is.
#[inline(always)]
pub fn dropped(member: u32, reason: Drop) {
    if let Some(leg) = LEGS.get_ptr_mut(member) {
        // SAFETY: as above. The index is below the number of reasons, which the compiler sees.
        if let Some(count) = unsafe { (*leg).drops.get_mut(reason as usize) } {
            *count = count.wrapping_add(1);
        }
    }
}

/// A packet that could have begun a flow of this rule met no member.
#[inline(always)]
pub fn refused(rule: u32, reason: Refusal) {
    if let Some(refusals) = REFUSALS.get_ptr_mut(rule) {
        // SAFETY: as above.
        if let Some(count) = unsafe { (*refusals).by_reason.get_mut(reason as usize) } {
            *count = count.wrapping_add(1);
        }
    }
}

/// A SYN is answered by a cookie.
#[inline(always)]
pub fn cookie(rule: u32) {
    if let Some(refusals) = REFUSALS.get_ptr_mut(rule) {
        // SAFETY: as above.
        unsafe { (*refusals).cookies = (*refusals).cookies.wrapping_add(1) };
    }
}
