//! What passed on the gateway's wires in the samples that were captured: packets by kind for one of the load's units, and the files.

use super::document::{Block, NOTHING, Table};
use super::words;
use crate::capture::kinds::{Counts, Kind};
use crate::plot::Drawing;
use crate::plot::bars::{Bar, bars, present};
use crate::record::{Capture, Record};
use crate::stats::Summary;
use crate::subject::{Unit, subject};

/// What bars are divided into: class, meaning, the kinds.
const PARTS: [(&str, &str, &[Kind]); 6] = [
    ("softirq", "SYN, SYN-ACK", &[Kind::Syn, Kind::SynAck]),
    ("kernel", "data", &[Kind::Data, Kind::Datagram]),
    ("user", "ACK", &[Kind::Ack]),
    ("f-routing", "FIN", &[Kind::Fin]),
    ("f-rules", "RST", &[Kind::Reset]),
    ("f-program", "again", &[Kind::Again]),
];

/// The section; nothing without captures.
pub fn blocks(record: &Record) -> Vec<Block> {
    let mut loads: Vec<&str> = record.captures.iter().map(|capture| capture.load.as_str()).collect();
    loads.sort_by_key(|load| crate::subject::place(load));
    loads.dedup();
    if loads.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![
        Block::Heading(2, "What passes on the wires".to_owned()),
        Block::Paragraph(
            "Packets of a short run of each lane, apart from what was measured, seen at the client and at the server. ACK is one that \
             carries nothing; a FIN with data counts as data; again is what was sent before. Of streams a packet is what the kernel \
             hands over as one: up to 64 KiB, which a network card would cut."
                .to_owned(),
        ),
    ];
    for load in loads {
        let captures: Vec<&Capture> = record.captures.iter().filter(|each| each.load == load).collect();
        blocks.push(Block::Heading(3, subject(load).title.to_owned()));
        let table = table(&captures, load);
        blocks.push(match drawing(&captures, load) {
            Some(drawing) => Block::Figure(vec![drawing], table),
            None => Block::Table(table),
        });
        let file = |each: &&Capture| {
            let mut name = format!("{} under {}", each.lane, each.load);
            if each.not_kept > 0 {
                name.push_str(&format!(", without the last {}", words::count(each.not_kept)));
            }
            if each.missed > 0 {
                name.push_str(&format!(", {} were missed and are not counted", words::count(each.missed)));
            }
            (name, each.file.clone())
        };
        blocks.push(Block::Details(
            "Captures, for Wireshark or tcpdump -r".to_owned(),
            vec![Block::Files(captures.iter().map(file).collect())],
        ));
    }
    blocks
}

/// How many of the load's units a capture holds.
fn units(capture: &Capture) -> f64 {
    match subject(&capture.load).unit {
        Unit::Gigabyte => capture.bytes as f64 / 1e9,
        _ => capture.done as f64,
    }
}

fn of(counts: &Counts, kind: Kind) -> u64 {
    counts.get(kind.name()).copied().unwrap_or_default()
}

fn table(captures: &[&Capture], load: &str) -> Table {
    let caption = format!("Packets per {}, by wire and direction", subject(load).unit.word());
    let mut table = Table::new(caption, &["lane, wire"]);
    let kinds = || Kind::ALL.into_iter().filter(|kind| *kind != Kind::Other);
    for kind in kinds() {
        table.head.extend([format!("{} to server", kind.name()), format!("{} to client", kind.name())]);
    }
    table.head.push("in all".to_owned());
    for capture in captures {
        for wire in &capture.wires {
            let each = |count: u64| match (count, count as f64 / units(capture)) {
                (0, _) => NOTHING.to_owned(),
                (_, each) if each.is_finite() => words::figure(each),
                _ => NOTHING.to_owned(),
            };
            let mut row = vec![format!("{}, {}", capture.lane, wire.name)];
            row.extend(kinds().flat_map(|kind| [each(of(&wire.forth, kind)), each(of(&wire.back, kind))]));
            let all = |counts: &Counts| counts.values().fold(0_u64, |all, each| all.saturating_add(*each));
            row.push(each(all(&wire.forth).saturating_add(all(&wire.back))));
            table.rows.push(row);
        }
    }
    table.compact()
}

/// Both wires of each lane, by what the packets are.
fn drawing(captures: &[&Capture], load: &str) -> Option<Drawing> {
    let unit = subject(load).unit.word();
    let drawn: Vec<Bar> = captures
        .iter()
        .filter_map(|capture| {
            let both = |kind: &Kind| {
                let wires = capture.wires.iter().flat_map(|wire| [&wire.forth, &wire.back]);
                wires.map(|counts| of(counts, *kind) as f64).sum::<f64>() / units(capture)
            };
            let parts: Vec<(&'static str, f64)> =
                PARTS.iter().map(|(class, _, kinds)| (*class, kinds.iter().map(both).sum())).collect();
            let all: f64 = parts.iter().map(|(_, each)| each).sum();
            let spread = Summary { median: all, low: all, high: all };
            let figure = words::figure(all);
            all.is_finite().then(|| Bar {
                name: capture.lane.clone(),
                figure,
                parts,
                spread,
                rounds: Vec::new(),
            })
        })
        .collect();
    let title = format!("Packets per {unit}, both wires");
    let each: Vec<String> = drawn.iter().map(|bar| format!("{} {}", bar.name, bar.figure)).collect();
    let alt = format!("{title}: {}.", each.join("; "));
    let parts = present(&PARTS, &drawn);
    (!drawn.is_empty()).then(|| {
        bars(&format!("packets-{load}"), &title, alt, &parts, &format!("packets per {unit}"), &drawn)
    })
}
