//! What the plain made record has not: failures, the other series, captures, a round that is spoilt, a lane that is lost in the
//! noise. Each is put into a record by itself; [`whole`] has all of it.

use std::collections::BTreeMap;

use portway_measure::record::{Capture, Cpu, Function, Kind, Lane, Point, Profile, Record, Run, Wire};

/// Has so many fail in a run, half of them by reset, the rest by timeout.
pub fn fail(run: &mut Run, failed: u64) {
    run.figures.errors.insert("reset".to_owned(), failed / 2);
    run.figures.errors.insert("timeout".to_owned(), failed - failed / 2);
}

/// The runs of a lane under a load, at a place of a series (what and how many) or outside of all.
pub fn runs<'a>(
    record: &'a mut Record,
    lane: &'a str,
    load: &'a str,
    at: Option<(&'a str, u64)>,
) -> impl Iterator<Item = &'a mut Run> {
    let at = at.map(|(of, count)| Point { of: of.to_owned(), count });
    record.runs.iter_mut().filter(move |run| run.lane == lane && run.load == load && run.at == at)
}

/// Makes a run's CPU time so many times as long.
pub fn stretch(run: &mut Run, factor: f64) {
    run.figures.cpu = run.figures.cpu.map(|cpu| Cpu { user: cpu.user * factor, kernel: cpu.kernel * factor });
}

/// Adds the series that the plain record has not: what connections cost, and a little more the more there is.
pub fn add_series(record: &mut Record) {
    let plain: Vec<Run> = record
        .runs
        .iter()
        .filter(|run| run.load == "connections" && run.at.is_none())
        .map(|run| Run { moments: Vec::new(), ..run.clone() })
        .collect();
    let counts: [(&str, &[u64]); 3] = [
        ("flows", &[1, 1000, 10_000, 100_000, 1_000_000]),
        ("concurrency", &[1, 10, 100, 1000, 10_000]),
        ("backends", &[1, 2, 10, 100]),
    ];
    for (of, counts) in counts {
        for (place, count) in counts.iter().enumerate() {
            for run in &plain {
                let at = Some(Point { of: of.to_owned(), count: *count });
                let mut run = Run { at, ..run.clone() };
                stretch(&mut run, 1.0 + 0.1 * place as f64);
                record.runs.push(run);
            }
        }
    }
}

/// Adds a capture of each lane under new connections and under a stream.
pub fn add_captures(record: &mut Record) {
    let lanes: Vec<String> = record.lanes.iter().map(|lane| lane.name.clone()).collect();
    for (load, done, bytes) in [("connections", 300, 300 * 900), ("bulk-up", 1, 60_000_000)] {
        for lane in &lanes {
            let counts =
                |of: &[(&str, u64)]| of.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
            let wire = |name: &str| Wire {
                name: name.to_owned(),
                forth: counts(&[("SYN", 300), ("data", 420), ("ACK", 700), ("FIN", 290), ("RST", 10)]),
                back: counts(&[("SYN-ACK", 300), ("data", 300), ("ACK", 330), ("FIN", 300), ("again", 4)]),
            };
            record.captures.push(Capture {
                lane: lane.clone(),
                load: load.to_owned(),
                file: format!("captures/{lane}-{load}.pcapng"),
                done,
                bytes,
                not_kept: 0,
                missed: 0,
                wires: vec![wire("client"), wire("server")],
            });
        }
    }
}

/// Adds a profile of each lane under new connections and under a stream.
pub fn add_profiles(record: &mut Record) {
    let lanes: Vec<Lane> = record.lanes.clone();
    for load in ["connections", "bulk-up"] {
        for lane in &lanes {
            let rules = if lane.kind == Kind::Routing { 0 } else { 700 };
            let areas = [
                ("client", 900),
                ("server", 600),
                ("transport", 4000),
                ("conntrack", rules),
                ("memory", 1500),
            ];
            let areas = areas.into_iter().filter(|(_, samples)| *samples > 0);
            let areas: BTreeMap<String, u64> =
                areas.map(|(area, samples)| (area.to_owned(), samples)).collect();
            let functions = [("tcp_v4_rcv", "transport", 800), ("nf_conntrack_in", "conntrack", rules)];
            let function = |(name, area, samples): (&str, &str, u64)| Function {
                name: name.to_owned(),
                area: area.to_owned(),
                samples,
            };
            record.profiles.push(Profile {
                lane: lane.name.clone(),
                load: load.to_owned(),
                done: 1000,
                period: 99_991,
                samples: areas.values().sum(),
                elsewhere: 50,
                lost: 0,
                areas,
                functions: functions.into_iter().filter(|each| each.2 > 0).map(function).collect(),
            });
        }
    }
}

/// Five rounds with all of it.
pub fn whole() -> Record {
    let mut record = super::record(5, 0.03, 1);
    add_series(&mut record);
    add_captures(&mut record);
    add_profiles(&mut record);
    runs(&mut record, "socat", "connections", Some(("concurrency", 10_000))).for_each(|run| fail(run, 4000));
    runs(&mut record, "haproxy", "connections", None).take(1).for_each(|run| fail(run, 900));
    runs(&mut record, "nft", "connections", None).take(1).for_each(|run| stretch(run, 3.0));
    // As much below its base as above it.
    for (run, factor) in runs(&mut record, "portway-ebpf", "bulk-up", None).zip([0.8, 0.9, 1.0, 1.1, 1.3]) {
        stretch(run, factor);
    }
    record.runs.retain(|run| run.load != "idle" || run.round == 1);
    record
}
