//! `portway lab`: arguments in, the lab's reports out. What it does is `portway-measure`'s.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use portway_measure::advise::Demand;
use portway_measure::exact::Exact;
use portway_measure::lane::Scheme;
use portway_measure::load::Load;
use portway_measure::options::{Options, Scale, Series};
use portway_measure::record::{FILE, Mode, Record};
use portway_measure::run::{self, Ending};
use portway_measure::{actor, advise, capture, compare, perform, read, report as reports};

use super::args::{Lab, Records};
use super::{Failure, report};

/// The words that make this program the stage of a lab.
const ON_STAGE: [&str; 2] = ["lab", "--on-stage"];

pub(super) fn run(words: Lab) -> Result<(), Failure> {
    match words.records {
        Some(Records::Compare { first, second, least, fail_on_regression, all }) => {
            return compare(&first, &second, least, fail_on_regression, all);
        }
        Some(Records::Report { record, out }) => {
            let written = reports::write_all(&read(&record)?, &out)?;
            report::say(&format!("written: {}", written.html.display()));
            return Ok(());
        }
        Some(Records::Advise { record, connections_per_second: connections, gbit, rules }) => {
            return advise(record, &Demand { connections, gbit, rules });
        }
        None => (),
    }
    if words.on_stage {
        return perform::main().map_err(|perform::Told| Failure::Said);
    }
    if words.in_machine {
        return perform::in_machine().map_err(|perform::Told| Failure::Said);
    }
    if let Some(part) = &words.act {
        return actor::main(part).map_err(Failure::Say);
    }
    if words.list {
        list();
        return Ok(());
    }
    let scale = match (words.quick, words.long) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Long,
        _ => Scale::Usual,
    };
    let out = words.out.unwrap_or_else(|| run::default_out(SystemTime::now()));
    reports::has_room(&out, None)?;
    let captures = words.pcap.then(|| capture_directory(&out)).transpose()?;
    let exact = words.exact.then(|| Exact::with_kernel(&words.kernel)).transpose()?;
    let options = Options {
        only: words.only,
        scale,
        rounds: words.rounds,
        peers: words.peers,
        series: words.series,
        captures,
        profile: words.profile,
        exact,
    };
    let (record, ending) = run::run(&options, &ON_STAGE, env!("CARGO_PKG_VERSION"))?;
    if record.runs.is_empty()
        && let Ending::Failed(reason) = ending
    {
        return Err(Failure::Say(reason));
    }
    let written = reports::write_all(&record, &out)?;
    report::say(&reports::brief(&record));
    report::say(&format!("written: {}", written.html.display()));
    match ending {
        Ending::Complete => Ok(()),
        Ending::Interrupted => Err("interrupted; what was measured until then is written".into()),
        Ending::Failed(reason) => Err(Failure::Say(reason)),
    }
}

/// Where captures go, by its whole path: the stage writes them, which has a /run of its own.
fn capture_directory(out: &Path) -> Result<PathBuf, Failure> {
    let said = |error: std::io::Error| Failure::Say(format!("{}: {error}", out.display()));
    let directory = std::path::absolute(out.join(capture::DIRECTORY)).map_err(said)?;
    if ["/run", "/var/run"].iter().any(|hidden| directory.starts_with(hidden)) {
        return Err(Failure::Say(
            "captures cannot go below /run, which the stage does not see: say another --out".to_owned(),
        ));
    }
    Ok(directory)
}

/// Says what became of the figures from one record to another.
fn compare(
    first: &Path,
    second: &Path,
    least: Option<f64>,
    fail_on_regression: bool,
    all: bool,
) -> Result<(), Failure> {
    let comparison = compare::compare(&read(first)?, &read(second)?, least)?;
    report::say(&reports::text(&reports::changes(&comparison, all)));
    if fail_on_regression && let Some(why) = comparison.cannot_tell() {
        return Err(Failure::Say(format!("whether something is worse cannot be told: {why}")));
    }
    let regressions = comparison.regressions().count();
    if fail_on_regression && regressions > 0 {
        return Err(Failure::Say(format!("figures of Portway's own lanes that are worse: {regressions}")));
    }
    Ok(())
}

/// Says which engine fits, and what a demand takes if there is one.
fn advise(path: Option<PathBuf>, demand: &Demand) -> Result<(), Failure> {
    let none = "no record of the lab is here: run `portway lab` first, or say which by --record";
    let record = read(&path.or_else(last_run).ok_or(none)?)?;
    let mut blocks = reports::warnings(&record);
    if *demand != Demand::default() {
        if record.mode == Mode::Exact {
            return Err(
                "a record of instructions says nothing of how long they take: ask one of times".into()
            );
        }
        blocks.extend(advise::answer(&record, demand));
    }
    blocks.extend(reports::conclusions(&record));
    report::say(&reports::text(&blocks));
    Ok(())
}

/// The last run whose reports went here: the names sort by time.
fn last_run() -> Option<PathBuf> {
    let here = std::fs::read_dir(".").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_run = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(run::DEFAULT_OUT)) && path.join(FILE).is_file()
    };
    here.filter(is_run).max()
}

fn read(path: &Path) -> Result<Record, Failure> {
    read::read(path).map_err(|reason| Failure::Say(format!("{}: {reason}", path.display())))
}

/// Says which lanes, loads and series there are.
fn list() {
    report::say("lanes");
    for scheme in Scheme::ALL {
        let why = scheme.available().err().map(|why| format!(" (not here: {why})")).unwrap_or_default();
        report::say(&format!("  {:<18} {}{why}", scheme.name(), scheme.title()));
    }
    report::say("loads");
    for load in Load::ALL {
        report::say(&format!("  {:<18} {}", load.name(), load.title()));
    }
    report::say("series");
    for series in Series::ALL {
        let counts: Vec<String> = series.counts().iter().map(u64::to_string).collect();
        report::say(&format!("  {:<18} {}", series.name(), counts.join(", ")));
    }
}
