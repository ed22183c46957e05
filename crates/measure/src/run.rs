//! The command's half of a run: it starts the stage, shows how far it is, and keeps what it says.
//!
//! Whatever ends a run, what was measured until then is a record that says what is missing. Deliberately absent: anything
//! measured here.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Instant, SystemTime};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::event::Event;
use crate::host;
use crate::options::Options;
use crate::progress::Progress;
use crate::record::{Host, LeftOut, Record, VERSION};
use crate::stage::Stage;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// All was measured.
    Complete,
    /// The user wanted no more.
    Interrupted,
    /// Something went wrong, and what.
    Failed(String),
}

enum News {
    Event(Event),
    Signal,
    StageEnded,
}

/// Runs what was asked for: what was measured, and whether that is all. `words` make this program the stage; `portway` is its
/// version.
///
/// # Errors
/// Nothing could be begun, and why.
pub fn run(options: &Options, words: &[&str], portway: &str) -> Result<(Record, Ending), String> {
    options.check()?;
    if !rustix::process::geteuid().is_root() {
        return Err("the lab makes network namespaces, which needs root: sudo portway lab".to_owned());
    }
    let (started, start) = (SystemTime::now(), Instant::now());
    let mut record = Record {
        version: VERSION,
        portway: portway.to_owned(),
        started: host::rfc3339(started),
        seconds: 0.0,
        command: std::env::args().collect(),
        mode: options.mode(),
        optimised: !cfg!(debug_assertions),
        host: Host::default(),
        lanes: Vec::new(),
        left_out: Vec::new(),
        runs: Vec::new(),
        captures: Vec::new(),
        profiles: Vec::new(),
    };
    // Before the stage is there, so that no signal comes too early to be heard.
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| format!("watch for signals: {error}"))?;
    let (stage, events) = Stage::start(words, options)?;
    let (tell, news) = mpsc::channel();
    let by_signal = tell.clone();
    thread::spawn(move || signals.forever().for_each(|_| _ = by_signal.send(News::Signal)));
    thread::spawn(move || {
        events.for_each(|event| _ = tell.send(News::Event(event)));
        let _ = tell.send(News::StageEnded);
    });
    let mut ending = listen(&news, &mut record);
    let complaints = stage.end();
    if let Ending::Failed(reason) = &mut ending
        && !complaints.is_empty()
    {
        *reason = format!("{reason}: {complaints}");
    }
    record.seconds = start.elapsed().as_secs_f64();
    let rest = match &ending {
        Ending::Complete => None,
        Ending::Interrupted => Some("the command was interrupted".to_owned()),
        Ending::Failed(reason) => Some(reason.clone()),
    };
    record.left_out.extend(rest.map(|why| LeftOut { name: "the rest".to_owned(), why }));
    Ok((record, ending))
}

/// Keeps what the stage says, until there is no more.
fn listen(news: &Receiver<News>, record: &mut Record) -> Ending {
    let mut progress = Progress::new();
    loop {
        let event = match news.recv() {
            Ok(News::Event(event)) => event,
            Ok(News::Signal) => return Ending::Interrupted,
            Ok(News::StageEnded) | Err(_) => {
                return Ending::Failed("the stage has ended before its time".to_owned());
            }
        };
        progress.show(&event);
        match event {
            Event::Host(host) => record.host = host,
            Event::Lane(lane) => record.lanes.push(lane),
            Event::LeftOut(left_out) => record.left_out.push(left_out),
            Event::Run(run) => record.runs.push(*run),
            Event::Capture(capture) => record.captures.push(*capture),
            Event::Profile(profile) => record.profiles.push(*profile),
            Event::Plan { .. } | Event::Begins { .. } | Event::Passed { .. } => (),
            Event::Done => return Ending::Complete,
            Event::Failed(reason) => return Ending::Failed(reason),
        }
    }
}

/// How the directories begin into which results go if nothing else is said.
pub const DEFAULT_OUT: &str = "portway-lab-";

/// Where the result of a run that begins then goes, if nothing else is said.
pub fn default_out(begins: SystemTime) -> PathBuf {
    let date: String = host::rfc3339(begins).chars().filter(|c| *c != ':').take(15).collect();
    PathBuf::from(format!("{DEFAULT_OUT}{date}"))
}
