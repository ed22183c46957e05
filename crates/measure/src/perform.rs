//! What is done on the stage: lanes are set up, loads run, everything is told as events.
//!
//! The fixtures that build networks and start programs panic when something is wrong, with a sentence that says what. Here that
//! sentence becomes an event: a lane that cannot be set up does not take part, whatever the reason, unless nothing can be told
//! without it. Deliberately absent: any cleaning up ([`crate::stage`] says why) and any writing to files that stay.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;

use portway_lab::perf::symbols::Symbols;

use crate::absent::Absent;
use crate::event::Event;
use crate::lane::Scheme;
use crate::lane::setup::{Lane, Setting};
use crate::load::{Load, Terms};
use crate::options::Options;
use crate::record::{Figures, Kind, LeftOut, Mode, Moment, Point, Run};
use crate::schedule::{self, Step, Trial, Turn};
use crate::{capture, exact, flows, ground, host, meter, profile};

/// The stage could not go on, and has told why.
#[derive(Clone, Copy, Debug)]
pub struct Told;

/// The stage, from its orders on standard input to its end.
///
/// # Errors
/// It could not go on; why is told as an event.
pub fn main() -> Result<(), Told> {
    let mut orders = String::new();
    let read = io::stdin().lock().read_line(&mut orders);
    let options: Options = match read
        .map_err(|e| e.to_string())
        .and_then(|_| serde_json::from_str(&orders).map_err(|e| e.to_string()))
    {
        Ok(options) => options,
        Err(error) => return failed(&format!("the stage got no orders: {error}")),
    };
    thread::spawn(|| {
        // Nothing more comes. The end of the pipe is the end of the command, and so of this process and of its namespaces.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
    act(|| match &options.exact {
        None => perform(&options),
        Some(exact) => exact.perform(&options, tell),
    })?;
    // Not by hand: what took seconds to set up takes as many to take down, and the kernel does it anyway.
    std::process::exit(0);
}

/// The stage in a machine of its own, which ends with it.
///
/// # Errors
/// It could not go on; why is told as an event.
pub fn in_machine() -> Result<(), Told> {
    let options = match exact::enter() {
        Ok(options) => options,
        // Where this is no such machine nothing is switched off; where it is, its kernel gives up without a first process.
        Err(reason) => return failed(&reason),
    };
    let outcome = act(|| perform(&options));
    exact::leave();
    outcome
}

/// Lays the ground and works there, and tells how it ended.
fn act(work: impl FnOnce() -> Result<(), String>) -> Result<(), Told> {
    if let Err(reason) = ground::lay() {
        return failed(&reason);
    }
    portway_lab::process::raise_descriptor_limit();
    // What a panic says is told as an event.
    panic::set_hook(Box::new(|_| ()));
    match caught(work) {
        Ok(Ok(())) => {
            tell(&Event::Done);
            Ok(())
        }
        Ok(Err(reason)) | Err(reason) => failed(&reason),
    }
}

fn failed(reason: &str) -> Result<(), Told> {
    tell(&Event::Failed(reason.to_owned()));
    Err(Told)
}

/// Tells the command. When it does not listen any more it is gone, and so is this process in a moment.
fn tell(event: &Event) {
    let _ = event.write(io::stdout().lock());
}

fn leave_out(name: &str, why: &str) {
    tell(&Event::LeftOut(LeftOut { name: name.to_owned(), why: why.trim_end().to_owned() }));
}

/// Runs something that may panic, and says what it said then.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|said| {
        let text = said.downcast_ref::<String>().cloned();
        text.or_else(|| said.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic".to_owned())
    })
}

fn perform(options: &Options) -> Result<(), String> {
    tell(&Event::Host(host::describe()));
    let schemes: Vec<Scheme> = options.lanes().into_iter().filter(is_there).collect();
    let loads = options.loads();
    for load in options.loads_without_times() {
        let name = load.name();
        leave_out(
            name,
            &format!(
                "it is there for its times, which here are an emulated machine's; --only {name} counts its instructions"
            ),
        );
    }
    let mut absent = Absent::default();
    for load in &loads {
        if let Some(why) = load.caveat() {
            leave_out(&format!("part of {}", load.name()), &why);
        }
        for scheme in &schemes {
            if let Err(why) = load.suits(scheme) {
                absent.load(&scheme.name(), *load, why);
            }
        }
    }
    let steps = schedule::rounds(&schemes, &loads, options.rounds(), (options.scale, options.mode()));
    let groups = schedule::apart(&schemes, &loads, &options.series(), (options.scale, options.mode()));
    let mut is_possible =
        |trial: &Trial| trial.possible().inspect_err(|why| absent.trial(trial, why)).is_ok();
    let groups: Vec<Vec<Trial>> =
        groups.into_iter().map(|group| group.into_iter().filter(&mut is_possible).collect()).collect();
    absent.lines().for_each(|left_out| tell(&Event::LeftOut(left_out)));
    let profiled = if options.profile {
        schedule::profiles(&schemes, &loads, (options.scale, options.mode()))
    } else {
        Vec::new()
    };
    let seconds =
        schedule::planned(&steps, &groups, options.rounds()) + profiled.iter().map(Step::takes).sum::<f64>();
    tell(&Event::Plan { seconds });
    let mut told = BTreeSet::new();
    let mut lanes = Vec::new();
    for (nth, scheme) in schemes.iter().enumerate() {
        if !steps.iter().any(|step| step.lane == nth) {
            lanes.push(None);
            continue;
        }
        tell(&Event::Begins { what: format!("setting up {}", scheme.name()) });
        lanes.push(set_up(scheme)?.inspect(|lane| describe(lane, &mut told)));
        tell(&Event::Passed { seconds: schedule::SET_UP });
    }
    // A pair that has failed once is not tried again.
    let mut broken = Vec::new();
    for step in &steps {
        let name = schemes[step.lane].name();
        if let Some(lane) = &lanes[step.lane]
            && !broken.contains(&(step.lane, step.load))
        {
            let what = match step.round {
                0 => format!("warming up: {name}, {}", step.load.name()),
                round => format!("round {round} of {}: {name}, {}", options.rounds(), step.load.name()),
            };
            tell(&Event::Begins { what });
            match caught(|| measured(lane, step.load, step.terms, step.round, options.mode())) {
                Ok(None) => (),
                Ok(Some(measured)) => tell(&run(lane, step.load, step.round, None, measured)),
                Err(why) => {
                    leave_out(&format!("{name} under {}", step.load.name()), &why);
                    broken.push((step.lane, step.load));
                }
            }
        }
        tell(&Event::Passed { seconds: step.takes() });
    }
    take_profiles(&lanes, &profiled, &broken, options.mode());
    if let Some(into) = &options.captures {
        take_captures(lanes.iter().flatten(), &loads, into);
    }
    drop(lanes);
    groups.iter().for_each(|group| try_apart(group, options, &mut told));
    Ok(())
}

/// Sees where the work of every lane that stands goes, under every load that has not failed there.
fn take_profiles(lanes: &[Option<Lane>], steps: &[Step], broken: &[(usize, Load)], mode: Mode) {
    if steps.is_empty() {
        return;
    }
    // When everything has run: what is loaded for it is there.
    let symbols = Symbols::read();
    let symbols = symbols.inspect_err(|why| leave_out("profiles", why)).ok();
    for step in steps {
        if let Some(symbols) = &symbols
            && let Some(lane) = &lanes[step.lane]
            && !broken.contains(&(step.lane, step.load))
        {
            let (name, load) = (lane.scheme.name(), step.load.name());
            tell(&Event::Begins { what: format!("looking where the work goes: {name}, {load}") });
            match caught(|| profile::take(lane, step.load, step.terms, mode, symbols)).flatten() {
                Ok(profile) => tell(&Event::Profile(Box::new(profile))),
                Err(why) => leave_out(&format!("the profile of {name} under {load}"), &why),
            }
        }
        tell(&Event::Passed { seconds: step.takes() });
    }
}

/// Captures a sample of every load in every lane that stands.
fn take_captures<'a>(lanes: impl Iterator<Item = &'a Lane>, loads: &[Load], into: &Path) {
    for lane in lanes {
        let name = lane.scheme.name();
        for load in loads.iter().filter(|load| load.suits(&lane.scheme).is_ok()) {
            tell(&Event::Begins { what: format!("capturing packets: {name}, {}", load.name()) });
            match caught(|| capture::take(lane, *load, into)).flatten() {
                Ok(Some(capture)) => tell(&Event::Capture(Box::new(capture))),
                Ok(None) => (),
                Err(why) => leave_out(&format!("the capture of {name} under {}", load.name()), &why),
            }
        }
    }
}

/// Sets up the lanes of a group and runs their rounds.
fn try_apart(group: &[Trial], options: &Options, told: &mut BTreeSet<String>) {
    let mut lanes = Vec::new();
    for trial in group {
        tell(&Event::Begins { what: format!("setting up {}", trial.title()) });
        let lane = caught(|| Lane::set_up(&trial.scheme, trial.setting));
        let lane = lane.inspect_err(|why| leave_out(&trial.title(), why)).ok();
        lanes.push(lane.inspect(|lane| describe(lane, told)));
        tell(&Event::Passed { seconds: trial.set_up() });
    }
    let mut with_flows = BTreeSet::new();
    let rounds = schedule::rounds_apart(options.rounds());
    for Turn { trial: nth, round } in schedule::turns(group, rounds) {
        let trial = &group[nth];
        if let Some(lane) = &lanes[nth] {
            let what = match round {
                0 => format!("warming up: {}", trial.title()),
                round => format!("round {round} of {rounds}: {}", trial.title()),
            };
            tell(&Event::Begins { what });
            let measured = caught(|| {
                // Relays forget them after a minute or so, and say so by closing sockets; all others have an hour.
                if with_flows.insert(nth) || trial.scheme.is_relay() {
                    trial.terms.make_flows(lane);
                }
                measured(lane, trial.load, trial.terms(round), round, options.mode())
            });
            match measured {
                Ok(None) => (),
                Ok(Some(measured)) => tell(&run(lane, trial.load, round, trial.at.clone(), measured)),
                Err(why) => {
                    leave_out(&trial.title(), &why);
                    lanes[nth] = None;
                }
            }
        }
        tell(&Event::Passed { seconds: trial.run(round) });
    }
}

/// Runs a load in a lane and says what it cost; of a warm-up nothing is said.
fn measured(lane: &Lane, load: Load, terms: Terms, round: u32, mode: Mode) -> Option<(Figures, Vec<Moment>)> {
    let load_it = || load.run(lane, terms);
    if round == 0 {
        load_it();
        return None;
    }
    let background = meter::background();
    // Lanes stand through all loads, and what one leaves in the table would be in the next one's way. Not before it has been silent
    // for a while: what is still on its way would be no flow's any more, and be sent again and again.
    if terms.flows == 0 && lane.scheme.has_conntrack() {
        flows::forget(&lane.net.gateway).unwrap_or_else(|why| panic!("{why}"));
    }
    Some(meter::measure(lane, load.held(), mode, background, load_it))
}

/// Tells of a lane that stands, once.
fn describe(lane: &Lane, told: &mut BTreeSet<String>) {
    if told.insert(lane.scheme.name()) {
        tell(&Event::Lane(lane.described()));
    }
}

fn run(
    lane: &Lane,
    load: Load,
    round: u32,
    at: Option<Point>,
    (figures, moments): (Figures, Vec<Moment>),
) -> Event {
    Event::Run(Box::new(Run {
        lane: lane.scheme.name(),
        load: load.name().to_owned(),
        round,
        at,
        figures,
        moments,
    }))
}

/// Whether this host can have a lane; if not, that is told.
fn is_there(scheme: &Scheme) -> bool {
    scheme.available().inspect_err(|why| leave_out(&scheme.name(), why)).is_ok()
}

/// A lane, or none if it could not be set up, which is told. Without a zero line there is nothing to compare with.
fn set_up(scheme: &Scheme) -> Result<Option<Lane>, String> {
    match caught(|| Lane::set_up(scheme, Setting::default())) {
        Ok(lane) => Ok(Some(lane)),
        Err(why) if scheme.kind() == Kind::Routing => Err(why),
        Err(why) => {
            leave_out(&scheme.name(), &why);
            Ok(None)
        }
    }
}
