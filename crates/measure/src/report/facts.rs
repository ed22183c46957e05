//! What a report says besides figures: on which machine, with what, what is missing, how to repeat it, how to read it.

use portway_lab::process;

use super::document::{Block, Table};
use super::{doubts, words};
use crate::plot::png::shows;
use crate::record::{LeftOut, Mode, Record};
use crate::rounds::QUIET;
use crate::subject::{Since, subject};

/// What is the difference between the two figures of CPU time that are set against the base.
pub(super) const MACHINE: &str = "Added CPU, unless it says more, is that of client, forwarder and server with the kernel's work for them: whatever else \
     runs is not in it, so it is the figure to go by. That of the whole machine is all that its processors did and did not \
     idle away, less the same of the base in the same round: nothing can escape it, but what others did meanwhile is in it, \
     and it is counted in hundredths of a second. Where the two differ by more than their brackets, either somebody else was \
     at work or the kernel did something on nobody's account.";

/// The heading of it all.
pub fn title(record: &Record) -> String {
    let day = record.started.get(..10).unwrap_or(&record.started);
    format!("Ways to forward a port, and what each costs: {day}")
}

/// What comes first.
pub fn head(record: &Record) -> Vec<Block> {
    let host = &record.host;
    let mut blocks = vec![Block::Heading(1, title(record))];
    let machine =
        host.hypervisor.as_ref().map_or(String::new(), |kind| format!(", a virtual machine ({kind})"));
    blocks.push(Block::Paragraph(format!(
        "{} under {} on {} ({}), {} of memory, Linux {}{machine}. Measured by Portway {}, begun {}, in {}.",
        words::number(record.lanes.len(), "lane"),
        words::number(record.loads().len(), "load"),
        words::number(host.cpus as usize, "CPU"),
        host.cpu,
        words::bytes(host.memory as f64),
        host.kernel,
        record.portway,
        record.started,
        words::duration(record.seconds),
    )));
    blocks.push(Block::Paragraph(match record.mode {
        Mode::Time => "Figures are times of this machine. Client, gateway and server are network namespaces on it, so compare \
                       the lanes with each other rather than their absolute figures with another machine's."
            .to_owned(),
        Mode::Exact => "Figures are instructions of an emulated machine, which counts them: they do not depend on the machine \
                        below it or on what else runs there, and say nothing of caches."
            .to_owned(),
    }));
    blocks.extend(warnings(record));
    blocks
}

/// What a reader must know before believing a figure.
pub fn warnings(record: &Record) -> Vec<Block> {
    let mut warnings = Vec::new();
    if let Some(busy) = record.background().filter(|_| record.is_disturbed()) {
        warnings.push(format!(
            "not a quiet machine. Others kept {} CPUs busy before the runs (middle half {} to {}; {QUIET} would be quiet). \
             Rates and times suffer, CPU time per connection suffers less, and that of the whole machine has theirs in it.",
            words::figure(busy.median),
            words::figure(busy.low),
            words::figure(busy.high),
        ));
    }
    warnings.extend(doubts::stolen(record));
    let rounds = record.runs.iter().map(|run| run.round).collect::<std::collections::BTreeSet<_>>().len();
    if rounds < record.least_rounds() {
        warnings.push(format!(
            "too few rounds to decide anything: {}. It takes {}, and five to compare runs.",
            words::number(rounds, "round"),
            record.least_rounds()
        ));
    }
    warnings.extend(doubts::idle_bases(record));
    warnings.extend(doubts::failed(record));
    warnings.extend(doubts::fewer_rounds(record));
    if !record.optimised {
        warnings.push(
            "Portway was built without optimisation: the proxy costs more than it does otherwise.".to_owned(),
        );
    }
    if record.runs.is_empty() {
        warnings.push("nothing was measured.".to_owned());
    }
    warnings.into_iter().map(Block::Warning).collect()
}

/// What comes last but for the advice.
pub fn tail(record: &Record) -> Vec<Block> {
    let mut blocks = vec![Block::Heading(2, "What was compared, and on what".to_owned())];
    let mut lanes = Table::new("Lanes", &["lane", "what it is", "adds to"]);
    for lane in &record.lanes {
        let base = lane.base.clone().unwrap_or_else(|| "nothing: a base".to_owned());
        lanes.rows.push(vec![lane.name.clone(), lane.title.clone(), base]);
    }
    blocks.push(Block::Table(lanes));
    for lane in record.lanes.iter().filter(|lane| !lane.configuration.is_empty()) {
        let code = Block::Code(lane.configuration.clone());
        blocks.push(Block::Details(format!("Configuration of {}", lane.name), vec![code]));
    }
    blocks.extend(left_out(record));
    blocks.push(Block::Heading(3, "Machine".to_owned()));
    let mut facts = Table::new("Programs and settings", &["what", "as it was"]);
    let mut fact = |name: &str, value: String| facts.rows.push(vec![name.to_owned(), value]);
    fact("kernel", record.host.kernel.clone());
    fact("processor", format!("{}, {} of them", record.host.cpu, record.host.cpus));
    for (name, value) in record.host.programs.iter().chain(&record.host.settings) {
        fact(name, value.clone());
    }
    blocks.push(Block::Table(facts));
    blocks.push(Block::Heading(2, "How to repeat it".to_owned()));
    blocks.push(Block::Code(
        record.command.iter().map(|word| process::quoted(word)).collect::<Vec<_>>().join(" "),
    ));
    blocks.push(Block::Paragraph(
        "It needs root and the programs above. All of it happens in namespaces that end with it.".to_owned(),
    ));
    blocks.push(Block::Heading(2, "How to read it".to_owned()));
    blocks.push(Block::List(reading(record)));
    blocks
}

/// What is missing, and why.
pub fn left_out(record: &Record) -> Vec<Block> {
    let item = |left: &LeftOut| format!("{}: {}.", left.name, left.why);
    let items: Vec<String> = record.left_out.iter().map(item).collect();
    if items.is_empty() {
        return Vec::new();
    }
    vec![Block::Heading(3, "Left out".to_owned()), Block::List(items)]
}

/// From when the times of each load count, of those that have times.
fn times(record: &Record) -> Vec<String> {
    let timed = |load: &str| record.runs.iter().any(|run| run.load == load && run.figures.latency.is_some());
    let counted = |since: Since| {
        let all = record.loads().into_iter().filter(|load| subject(load).since == Some(since) && timed(load));
        all.collect::<Vec<_>>().join(", ")
    };
    let said = |since: Since, why: &str| {
        let loads = counted(since);
        (!loads.is_empty()).then(|| format!("Times under {loads} count {}{why}.", since.words()))
    };
    let due = said(Since::Due, ", so that a lane that stalls does not hide it (no coordinated omission)");
    due.into_iter()
        .chain(said(
            Since::Sent,
            ", so that its percentiles look better than they were (coordinated omission)",
        ))
        .collect()
}

fn reading(record: &Record) -> Vec<String> {
    let base = "What a lane adds is the difference to its base lane in the same round: the same hosts and wires without a \
                forwarder.";
    let mut items = vec![
        "Each lane runs in every round, so that a machine that slows down slows all of them. A figure is the median of the \
         rounds; brackets, and whiskers in plots, hold their middle half (quartiles after Hyndman and Fan 1996, type 7)."
            .to_owned(),
        base.to_owned(),
        match record.mode {
            Mode::Time => {
                "CPU is that of client, forwarder and server with the kernel's work for them. Kernel is system time and \
                 softirq, programs is user time."
            }
            Mode::Exact => {
                "CPU is that of client, forwarder and server with the kernel's work for them, not divided among kernel and \
                 programs. One nanosecond of the emulated machine's clock is one instruction."
            }
        }
        .to_owned(),
    ];
    if let Some(stolen) = record.stolen() {
        items.push(format!(
            "CPU of the whole machine is the time of all processors that was not idle; kernel is system time, softirq and \
             interrupts. What the hypervisor gave to others while there was work here (steal) is not in it: {} CPUs (middle half \
             {} to {}).",
            words::figure(stolen.median),
            words::figure(stolen.low),
            words::figure(stolen.high),
        ));
    }
    items.extend([
        "Too wide to tell, or ? beside what is added: the middle half reaches over the figure in question, which is zero there. \
         Of four rounds and more, those that stand out (further than one and a half widths of the middle half outside it; \
         Tukey 1977) are named. All are shown, none is dropped."
            .to_owned(),
        "GB are 10^9 bytes of payload, KiB and MiB are 1024 and 1024 squared bytes.".to_owned(),
    ]);
    items.extend(times(record));
    if record.lanes.iter().any(|lane| !lane.name.chars().all(shows)) {
        items.push(
            "Some names have signs that the font of the PNG pictures lacks; they show boxes there. This page and the SVG files \
             show the names as they are."
                .to_owned(),
        );
    }
    items
}
