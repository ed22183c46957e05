//! Prints what Maglev's tables do for pools of several sizes: how even the shares are, and how many flows move when one
//! member goes or comes, beside the least that must; then how far pools of random addresses go beyond that least.
//! `cargo run --release -p portway-core --example maglev`

use portway_core::balance::{jhash, table};
use portway_core::members::Member;
use portway_core::ruleset::{Backend, Balance, Target, TargetPorts};

const DRAWS: u32 = 10_000;

fn member(address: u32) -> Member {
    let target = Target { address: std::net::IpAddr::V4(address.into()), ports: TargetPorts::One(80) };
    Member { backend: Backend::of(target).name, target, weight: 1, max_connections: None }
}

fn members(count: u32) -> Vec<Member> {
    (0..count).map(|nth| member(0x0a00_0001 + nth)).collect()
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
    println!("\n| members, {DRAWS} draws | moved without need, % (mean) | 99 in 100 | 999 in 1000 | most |");
    println!("|---|---|---|---|---|");
    for count in [2, 3, 5, 10, 16] {
        let mut beyond: Vec<f64> = (0..DRAWS).map(|draw| without_need(draw, count)).collect();
        beyond.sort_by(f64::total_cmp);
        let mean = beyond.iter().sum::<f64>() / f64::from(DRAWS);
        let but = |few: u32| beyond[(DRAWS - few) as usize - 1];
        println!(
            "| {count} | {mean:.2} | {:.2} | {:.2} | {:.2} |",
            but(DRAWS / 100),
            but(DRAWS / 1000),
            but(0)
        );
    }
}

/// What moves though its member stays, in percent, when the first of `count` members of random addresses goes.
fn without_need(draw: u32, count: u32) -> f64 {
    let mut left: Vec<Member> =
        (0..count).map(|nth| member(jhash(&nth.to_le_bytes(), draw * 1024 + count))).collect();
    let before = targets(left.len(), &left);
    let gone = left.remove(0).target;
    let needed = before.iter().filter(|target| **target == gone).count();
    moved(&before, &targets(left.len() + 1, &left)) - 100.0 * needed as f64 / before.len() as f64
}
