//! The exact mode: the stage is in a machine that counts instructions, so a busy host changes nothing that is measured.
//!
//! On the host's stage there is one program, the emulator, and what the stage in the machine tells is passed on. So whatever ends the
//! command ends the machine, as it ends everything else there. Deliberately absent: the machine ([`portway_lab::emulated`]),
//! and what is done in it, which is [`crate::perform`]'s as ever.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use portway_lab::emulated::kernel::CACHE;
pub use portway_lab::emulated::kernel::USUAL;
use portway_lab::emulated::{Clock, Kernel, Machine, SHARED, first, port};
use rustix::stdio::dup2_stdout;
use rustix::system::{RebootCommand, reboot};
use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::ground::TEMPORARY;
use crate::options::Options;

/// What the exact mode needs from the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exact {
    kernel: Kernel,
    /// This program, as it is found in the machine.
    program: PathBuf,
}

/// The words that make this program the stage in a machine.
const IN_MACHINE: [&str; 2] = ["lab", "--in-machine"];
/// What starts within ten seconds on a machine takes longer at a billion instructions a second: the verifier above all.
const PATIENCE: &str = "PORTWAY_LAB_PATIENCE=300";
/// Where the machine has nothing of the host's.
const HIDDEN: [&str; 3] = ["/tmp", "/run", "/var/run"];
/// Lines of the kernel's last words that are shown when a machine fails.
const LAST_WORDS: usize = 12;
/// Seconds that a second there takes, about: a second there is 10^9 instructions.
const SLOWER: f64 = 12.0;
/// Seconds that it takes until a machine measures.
const START: f64 = 30.0;

impl Exact {
    /// With the kernel of that name: a directory, or a release of Debian's whose newest is fetched.
    ///
    /// # Errors
    /// What is missing.
    pub fn with_kernel(name: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
        if !program.is_file() {
            return Err("this program's file has been replaced since it started: start it again".to_owned());
        }
        if HIDDEN.iter().any(|hidden| program.starts_with(hidden)) {
            let program = program.display();
            return Err(format!(
                "{program} is not there in the machine, whose /tmp and /run are its own: put it elsewhere"
            ));
        }
        Ok(Self { kernel: Kernel::named(name, Path::new(CACHE))?, program })
    }

    /// Has a machine do what is asked for, and tells what it tells.
    ///
    /// # Errors
    /// It did not come to an end, and the last that its kernel said.
    pub fn perform(&self, options: &Options, tell: impl Fn(&Event)) -> Result<(), String> {
        let at = |name: &str| Path::new(TEMPORARY).join(name);
        let said = |error: std::io::Error| format!("prepare the machine: {error}");
        let shared = options.captures.clone();
        shared.iter().try_for_each(fs::create_dir_all).map_err(said)?;
        let inside = Options { captures: shared.as_ref().map(|_| SHARED.into()), ..options.clone() };
        let orders = serde_json::to_vec(&inside).map_err(|error| error.to_string())?;
        let program = self.program.display().to_string();
        let temporary = format!("TMPDIR={TEMPORARY}");
        // The first process there is the stage, as on the host.
        let mut words = vec!["/usr/bin/env", &temporary, PATIENCE, "PORTWAY_BIN=/proc/1/exe", &program];
        words.extend(IN_MACHINE);
        fs::write(at("first"), first::archive(&self.kernel, &words, &orders)?).map_err(said)?;
        let machine = Machine {
            kernel: self.kernel.clone(),
            clock: Clock::Instructions,
            first: at("first"),
            console: at("console"),
            shared,
        };
        let mut command = machine.command()?;
        let complaints = File::create(at("complaints")).map_err(said)?;
        // Its end of the port stays open as long as our end of its standard input does.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        tell(&Event::Begins { what: "starting the machine that counts instructions".to_owned() });
        let mut machine = command.spawn().map_err(said)?;
        let port = machine.stdout.take().expect("invariant: stdout is piped");
        for line in BufReader::new(port).lines() {
            let line = line.map_err(|error| format!("listen to the machine: {error}"))?;
            // A kernel that gives up may leave half a line.
            let Ok(event) = serde_json::from_str::<Event>(&line) else { break };
            match event {
                Event::Done => return Ok(()),
                Event::Failed(why) => return Err(why),
                Event::Plan { seconds } => tell(&Event::Plan { seconds: START + seconds * SLOWER }),
                Event::Host(_) => {
                    tell(&event);
                    tell(&Event::Passed { seconds: START });
                }
                Event::Passed { seconds } => tell(&Event::Passed { seconds: seconds * SLOWER }),
                event => tell(&event),
            }
        }
        let _ = machine.kill();
        let _ = machine.wait();
        let text = |name: &str| {
            let bytes = fs::read(at(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            // A panic is followed by where it was, which says less.
            let end = lines.iter().position(|line| line.contains("Call Trace")).unwrap_or(lines.len());
            lines[end.saturating_sub(LAST_WORDS)..end].join("\n")
        };
        Err(format!("the machine ended before its time: {}{}", text("complaints"), text("console")))
    }
}

/// In the machine: has events go to the host, and says what is asked for.
///
/// # Errors
/// This is no such machine, or there are no orders.
pub fn enter() -> Result<Options, String> {
    // Who leaves switches the machine off.
    if std::process::id() != 1 {
        return Err("this is not the first process of a machine of the lab's".to_owned());
    }
    let port = port()?;
    let opened = File::options().write(true).open(&port);
    let opened = opened.map_err(|error| format!("open {}: {error}", port.display()))?;
    dup2_stdout(&opened).map_err(|error| format!("write to {}: {error}", port.display()))?;
    let orders =
        fs::read_to_string(first::ORDERS).map_err(|error| format!("read {}: {error}", first::ORDERS))?;
    serde_json::from_str(&orders).map_err(|error| format!("{}: {error}", first::ORDERS))
}

/// In the machine, which [`enter`] has made sure of: switches it off.
pub fn leave() {
    let _ = reboot(RebootCommand::PowerOff);
}
