//! Prints what Maglev's tables do for pools of several sizes: how even the shares are, and how many flows move when one
//! member goes or comes, beside the least that must. `cargo run -p portway-core --example maglev`

use portway_core::balance::table;
use portway_core::members::Member;
use portway_core::ruleset::{Backend, Balance, Target, TargetPorts};

fn members(count: u32) -> Vec<Member> {
    let member = |nth: u32| {
        let target =
            Target { address: std::net::IpAddr::V4((0x0a00_0001 + nth).into()), ports: TargetPorts::One(80) };
        Member { backend: Backend::of(target).name, target, weight: 1, max_connections: None }
    };
    (0..count).map(member).collect()
}

/// Where each slot leads.
fn targets(places: usize, members: &[Member]) -> Vec<Target> {
    let table = table(Balance::ConsistentHash, places, members);
    table.into_iter().map(|nth| members[usize::from(nth)].target).collect()
}

/// The part of the slots that lead elsewhere, in percent.
fn moved(before: &[Target], after: &[Target]) -> f64 {
    let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
    100.0 * moved as f64 / before.len() as f64
}

fn main() {
    println!(
        "| members | slots | share of one, % of the mean | moved when one goes, % (mean, most) | least, % | moved when one comes, % | least, % |"
    );
    println!("|---|---|---|---|---|---|---|");
    for count in [2, 3, 5, 10, 16, 20, 50, 64, 100, 256] {
        let members_now = members(count);
        let places = members_now.len();
        let whole = targets(places, &members_now);
        let mean_share = whole.len() as f64 / f64::from(count);
        let share = |member: &Member| {
            100.0 * whole.iter().filter(|target| **target == member.target).count() as f64 / mean_share
        };
        let shares: Vec<f64> = members_now.iter().map(share).collect();
        let gone = |nth: usize| {
            let mut left = members_now.clone();
            left.remove(nth);
            moved(&whole, &targets(places, &left))
        };
        let losses: Vec<f64> = (0..members_now.len()).map(gone).collect();
        let more = moved(&whole, &targets(places, &members(count + 1)));
        println!(
            "| {count} | {} | {:.2} to {:.2} | {:.2}, {:.2} | {:.2} | {more:.2} | {:.2} |",
            whole.len(),
            shares.iter().copied().fold(f64::MAX, f64::min),
            shares.iter().copied().fold(0.0, f64::max),
            losses.iter().sum::<f64>() / losses.len() as f64,
            losses.iter().copied().fold(0.0, f64::max),
            100.0 / f64::from(count),
            100.0 / f64::from(count + 1),
        );
    }
}
