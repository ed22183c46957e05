//! The report: nanoseconds by hook, direction and number of flows, and what a flow takes of memory.

use std::fmt::Write;
use std::time::Duration;

use crate::flows::Direction;
use crate::walk::Hook;

/// What a figure that misses its bound says.
pub const MISSED: &str = "**missed**";

/// The bounds at one flow, in ns: without a look-up of the route, and with one for every packet.
const BOUNDS: [u64; 2] = [70, 150];
/// The most bytes a flow may take, both directions together.
const BYTES: f64 = 160.0;

/// What a packet of one direction took at one hook, among so many flows.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub hook: Hook,
    pub direction: Direction,
    pub flows: u32,
    /// The walk and a program that does nothing.
    pub nothing: Duration,
    /// The walk and the engine, every flow's route kept from the round before.
    pub kept: Duration,
    /// The same over several seconds, in which routes are asked for again when they are a second old.
    pub normal: Duration,
    /// The same with a look-up for every packet.
    pub asked: Duration,
    /// The walk and a program that looks up and does nothing else: no engine that looks up can be faster.
    pub question: Duration,
}

/// The table.
pub fn nanoseconds(rows: &[Row]) -> String {
    let mut out = String::from(
        "| hook | flows | packet to the | nothing behind the walk | engine, route kept | engine, normal | engine, a look-up each | a look-up alone | |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for Row { hook, direction, flows, nothing, kept, normal, asked, question } in rows {
        let hook = match hook {
            Hook::Tc => "TC",
            Hook::Xdp => "XDP",
        };
        let to = if *direction == Direction::Forth { "backend" } else { "client" };
        let over =
            [kept, asked].into_iter().zip(BOUNDS).any(|(took, bound)| took.as_nanos() > u128::from(bound));
        let verdict = match (flows, over) {
            (1, true) => MISSED,
            (1, false) => "met",
            _ => "",
        };
        let [nothing, kept, normal, asked, question] =
            [nothing, kept, normal, asked, question].map(Duration::as_nanos);
        let _ = writeln!(
            out,
            "| {hook} | {flows} | {to} | {nothing} | {kept} | {normal} | {asked} | {question} | {verdict} |"
        );
    }
    let _ = writeln!(
        out,
        "\nNanoseconds a packet, nothing subtracted; bounds at one flow: {} with the route kept, {} with a look-up each.",
        BOUNDS[0], BOUNDS[1]
    );
    out
}

/// A full table.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// Flows in it, at the same time.
    pub flows: u64,
    /// Flows that it was made for.
    pub room: u64,
    /// Bytes of the flow table's maps.
    pub bytes: u64,
    /// Nanoseconds that beginning a flow took, while there was room.
    pub beginning: Duration,
    /// New flows asked for when there was none.
    pub asked: u64,
    /// Of these, refused and counted.
    pub refused: u64,
    /// Nanoseconds that a refusal took.
    pub refusing: Duration,
    /// Flows that had been established before it was full.
    pub before: u64,
    /// Of these, those that were carried afterwards.
    pub carried: u64,
}

/// The table of a full flow table.
pub fn full(full: &Full) -> String {
    let each = full.bytes as f64 / full.flows as f64;
    let verdict = |met: bool| if met { "met" } else { MISSED };
    format!(
        "| what | measured | bound | |\n|---|---|---|---|\n\
         | concurrent flows in one table | {} | of {} | |\n\
         | bytes a flow, both directions | {each:.1} | {BYTES} | {} |\n\
         | {} new flows at the full table, refused and counted | {} | {} | {} |\n\
         | established flows carried after that | {} | {} | {} |\n\
         | beginning a flow, walk included | {} ns | | |\n\
         | refusing one, walk included | {} ns | | |\n",
        full.flows,
        full.room,
        verdict(each <= BYTES),
        full.asked,
        full.refused,
        full.asked,
        verdict(full.refused == full.asked),
        full.carried,
        full.before,
        verdict(full.carried == full.before),
        full.beginning.as_nanos(),
        full.refusing.as_nanos(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(flows: u32, kept: u64, asked: u64) -> Row {
        let [nothing, kept, normal, asked, question] = [30, kept, kept, asked, 130].map(Duration::from_nanos);
        Row { hook: Hook::Tc, direction: Direction::Forth, flows, nothing, kept, normal, asked, question }
    }

    #[test]
    fn bounds_are_held_at_one_flow() {
        assert!(!nanoseconds(&[row(1, 70, 150)]).contains(MISSED));
        assert!(nanoseconds(&[row(1, 71, 150)]).contains(MISSED));
        assert!(nanoseconds(&[row(1, 70, 151)]).contains(MISSED));
        assert!(!nanoseconds(&[row(1000, 500, 500)]).contains(MISSED));
    }

    #[test]
    fn a_full_table_has_bounds() {
        let good = Full {
            flows: 10,
            room: 10,
            before: 10,
            bytes: 1600,
            beginning: Duration::ZERO,
            asked: 5,
            refused: 5,
            refusing: Duration::ZERO,
            carried: 10,
        };
        assert!(!full(&good).contains(MISSED));
        assert!(full(&Full { bytes: 1601, ..good }).contains(MISSED));
        assert!(full(&Full { refused: 4, ..good }).contains(MISSED));
        assert!(full(&Full { carried: 9, ..good }).contains(MISSED));
    }
}
