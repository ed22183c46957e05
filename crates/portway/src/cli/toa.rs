//! `portway toa`: the backend's half of TOA, in the foreground or left attached.
//!
//! The programs serve by themselves. A process in the foreground is there for what they cannot do: to follow a cgroup that
//! a service manager removes and makes anew, and to take everything away at its end. Deliberately absent: the daemon and
//! its state directory, with which a backend has nothing to do.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use portway_core::flow::Network;
use portway_datapath::toa::Count;
use portway_ebpf::toa::{self, Attachment, Cgroup, Counts, Served};
use sd_notify::NotifyState;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::args::{Args, Toa};
use super::{Failure, report};

/// How often it is asked whether the path still leads to the same cgroup.
const LOOK: Duration = Duration::from_millis(500);

/// Does what the words say.
pub(super) fn run(words: &Toa) -> Result<(), Failure> {
    if words.status {
        return status(words);
    }
    if words.clear {
        return clear(words);
    }
    let Some(path) = &words.cgroup else {
        return Err(Failure::Say("--cgroup is missing".to_owned()));
    };
    if words.trust.is_empty() {
        let reason = "--trust is missing: whoever reaches a server can put option 254 into its packets and be anybody. \
                      Name the gateways, for example --trust 192.0.2.10";
        let mut command = Args::command();
        command.build();
        let toa = command.find_subcommand_mut("toa").expect("invariant: this runs by that command");
        toa.error(ErrorKind::MissingRequiredArgument, reason).exit();
    }
    for network in words.trust.iter().filter(|network| network.prefix == 0) {
        report::warning(&format!("--trust {network} believes everybody: any client can be anybody"));
    }
    let cgroup = Cgroup::open(path)?;
    // Caught before anything is attached: from here on every end is an orderly one.
    let stop = if words.detach { None } else { Some(stopped()?) };
    let attachment = toa::attach(&cgroup, &words.trust)?;
    report::say(&format!("attached to {}; believing {}", cgroup.path().display(), listed(&words.trust)));
    match stop {
        None => Ok(()),
        Some(stop) => serve(attachment, cgroup, &words.trust, &stop),
    }
}

/// Follows the cgroup until this process is told to end.
fn serve(
    attachment: Attachment,
    mut cgroup: Cgroup,
    trusted: &[Network],
    stop: &mpsc::Receiver<()>,
) -> Result<(), Failure> {
    report::ready();
    // Best effort by the protocol's own rule: a supervisor that does not listen is no reason to stop.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let mut here = true;
    while stop.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        if here && cgroup.is_current() {
            continue;
        }
        let next = match Cgroup::in_hierarchy(cgroup.name()) {
            Ok(next) => next,
            Err(reason) => {
                if here {
                    report::log(&format!("{reason}; waiting for the cgroup to be made anew"));
                }
                here = false;
                continue;
            }
        };
        match attachment.follow(&next, trusted) {
            Ok(()) => {
                report::log(&format!("attached to {}, which was made anew", next.path().display()));
                (cgroup, here) = (next, true);
            }
            // Removed again meanwhile, or the host is short of something: the next look tells.
            Err(reason) => report::log(&format!("{reason}; trying again")),
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let counts = attachment.counts()?;
    attachment.clear()?;
    report::say(&sentence(&counts));
    Ok(())
}

/// Says when SIGINT or SIGTERM has come.
fn stopped() -> Result<mpsc::Receiver<()>, Failure> {
    let (said, stop) = mpsc::sync_channel(1);
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // One is enough; that nobody listens any more means that the end has begun.
        let _ = signals.forever().next().map(|_| said.send(()));
    })?;
    Ok(stop)
}

fn clear(words: &Toa) -> Result<(), Failure> {
    let name = words.cgroup.as_ref().map(|path| match Cgroup::open(path) {
        Ok(cgroup) => cgroup.name().to_owned(),
        // The cgroup may be gone, and what was kept of it is to go as well.
        Err(_) => format!("/{}", path.display().to_string().trim_matches('/')),
    });
    let cleared = toa::clear(name.as_deref())?;
    match (cleared.is_empty(), name) {
        (true, Some(name)) => {
            Err(Failure::Say(format!("nothing is attached to {name} (portway toa --status)")))
        }
        (true, None) => {
            report::say("nothing was attached");
            Ok(())
        }
        (false, _) => {
            cleared.iter().for_each(|name| report::say(&format!("cleared {name}")));
            Ok(())
        }
    }
}

/// What `--status --json` prints of a cgroup.
#[derive(Serialize)]
struct Row {
    cgroup: String,
    state: &'static str,
    foreground: bool,
    trust: Vec<String>,
    connections: u64,
    told: u64,
    silent: u64,
    direct: u64,
    untrusted: u64,
    malformed: u64,
    family: u64,
    no_memory: u64,
    listeners: u64,
    answers: u64,
}

fn status(words: &Toa) -> Result<(), Failure> {
    let mut served = toa::served()?;
    if let Some(path) = &words.cgroup {
        let cgroup = Cgroup::open(path)?;
        served.retain(|served| served.cgroup == cgroup.name());
    }
    if words.output.json {
        report::json(&served.into_iter().map(row).collect::<Vec<_>>());
        return Ok(());
    }
    if served.is_empty() {
        report::say("nothing is attached");
    }
    for served in served {
        let by = if served.held { "by a process in the foreground" } else { "without a process" };
        report::say(&format!("{}: {}, {by}", served.cgroup, state(&served)));
        report::say(&format!("  believes {}", listed(&served.trusted)));
        report::say(&format!("  {}", sentence(&served.counts)));
    }
    Ok(())
}

fn row(served: Served) -> Row {
    let state = state(&served);
    let Served { cgroup, held, trusted, counts, .. } = served;
    Row {
        cgroup,
        state,
        foreground: held,
        trust: trusted.iter().map(ToString::to_string).collect(),
        connections: counts.of(Count::Connections),
        told: counts.of(Count::Told),
        silent: counts.of(Count::Silent),
        direct: counts.of(Count::Direct),
        untrusted: counts.of(Count::Untrusted),
        malformed: counts.of(Count::Malformed),
        family: counts.of(Count::Family),
        no_memory: counts.of(Count::NoMemory),
        listeners: counts.of(Count::Listeners),
        answers: counts.of(Count::Answers),
    }
}

fn state(served: &Served) -> &'static str {
    if served.attached { "attached" } else { "not attached, the cgroup was removed" }
}

/// The counts in words: all connections, and of the rest what there was.
fn sentence(counts: &Counts) -> String {
    let parts = [
        (Count::Told, "with the client told"),
        (Count::Silent, "from gateways that told none"),
        (Count::Direct, "direct"),
        (Count::Untrusted, "told by others, ignored"),
        (Count::Malformed, "told nonsense, ignored"),
        (Count::Family, "of IPv6 clients to IPv4 sockets"),
        (Count::NoMemory, "for which there was no memory"),
    ];
    let seen = parts.iter().filter(|(what, _)| counts.of(*what) > 0);
    let seen: Vec<String> = seen.map(|(what, words)| format!("{} {words}", counts.of(*what))).collect();
    let all = report::counted(counts.of(Count::Connections), "connection");
    let colon = if seen.is_empty() { "" } else { ": " };
    let (listeners, answers) = (counts.of(Count::Listeners), counts.of(Count::Answers));
    format!(
        "{all}{colon}{}; {}, {}",
        seen.join(", "),
        report::counted(listeners, "listener"),
        report::counted(answers, "answer")
    )
}

fn listed(networks: &[Network]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
