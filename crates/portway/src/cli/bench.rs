//! `portway bench`: the load generator alone, towards any host, without privilege.
//!
//! Deliberately absent: loads and figures themselves, which are `portway-load`'s.

mod shown;
pub(super) mod words;

use std::io::{IsTerminal, Write};
use std::thread;

use portway_load::{Plan, Progress, ServeOptions, Server, Stop, run as load};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{Failure, report};
use words::{Asked, Bench};

/// Does what the words say.
pub(super) fn run(words: &Bench) -> Result<(), Failure> {
    if let Bench::Serve { listen, page, threads } = words {
        return serve(&ServeOptions { listen: listen.clone(), page: *page, threads: *threads });
    }
    match words.plan()? {
        Some(Asked { plan, json }) => measure(&plan, json),
        None => Ok(()),
    }
}

fn measure(plan: &Plan, json: bool) -> Result<(), Failure> {
    let stop = Stop::new();
    let stopping = stop.clone();
    // The first signal ends the load and has what was done reported; the second ends the process as always.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if stopping.is_stopped() {
                // It does not return for these two; were it to, the load still ends by itself.
                _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            stopping.stop();
        }
    })?;
    if !json {
        report::say(&shown::intent(plan));
    }
    let shows = !json && std::io::stderr().is_terminal();
    let outcome = load(plan, &stop, |now| {
        if shows {
            show(now);
        }
    })?;
    if shows {
        clear();
    }
    if json {
        report::json(&shown::row(plan, &outcome));
    } else {
        shown::lines(plan, &outcome).iter().for_each(|line| report::say(line));
    }
    if let Some(doubt) = shown::doubt(&outcome) {
        report::warning(&doubt);
    }
    if outcome.done == 0 {
        return Err(Failure::Say(format!("{}: nothing was done", plan.target)));
    }
    Ok(())
}

fn serve(options: &ServeOptions) -> Result<(), Failure> {
    let server = Server::start(options)?;
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    report::say(&format!("serving on {}, TCP and UDP", addresses.join(", ")));
    Ok(server.wait()?)
}

/// A line that the next one overwrites.
fn show(now: &Progress) {
    let line = shown::progress(now.elapsed, now.done, now.failed, now.bytes);
    let phase = if now.counting { "" } else { " (warming up)" };
    // A terminal that has gone is no reason to stop.
    _ = write!(std::io::stderr(), "\r\x1b[K{line}{phase}");
}

fn clear() {
    _ = write!(std::io::stderr(), "\r\x1b[K");
}
