//! The real `portway` binary as a process in a namespace.
//!
//! The binary is the one that PORTWAY_BIN names, else the one beside the running test or program: build
//! it first with `cargo build -p portway` (the same profile).

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::netns::{PATIENCE, patience};
use crate::{Namespace, Process, Scratch, engine, process, wire};

/// How long a start may take. Having the kernel verify programs is a second of work, and other tests want the CPUs too.
const START: Duration = Duration::from_secs(30);
/// How much longer for each line of the file: a hundred thousand rules of three lines are a minute for a busy machine.
const START_LINE: Duration = Duration::from_micros(400);

/// The binary under test.
///
/// # Panics
/// When it has not been built.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PORTWAY_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("/proc is mounted");
    // A test lies in target/PROFILE/deps, the other programs of the lab in target/PROFILE.
    let found = exe.ancestors().skip(1).take(2).map(|dir| dir.join("portway")).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no portway beside {}: cargo build -p portway (or set PORTWAY_BIN)", exe.display())
    })
}

/// A running `portway run` with a file and a state directory of its own.
#[derive(Debug)]
pub struct Portway {
    namespace: Namespace,
    process: Process,
    prefix: Vec<String>,
    directory: Scratch,
}

impl Portway {
    /// Starts it with this file and waits until every rule forwards.
    ///
    /// # Panics
    /// When it does not become ready; the message has all that it printed.
    pub fn start(namespace: &Namespace, file: &str) -> Self {
        Self::try_start(namespace, file).unwrap_or_else(|log| panic!("portway did not start:\n{log}"))
    }

    /// The same, with what it printed when it ends instead of becoming ready.
    ///
    /// # Errors
    /// What it printed.
    pub fn try_start(namespace: &Namespace, file: &str) -> Result<Self, String> {
        Self::start_under(namespace, &[], file)
    }

    /// The same under another command (`prlimit --nofile=100`).
    ///
    /// # Errors
    /// What it printed.
    pub fn start_under(namespace: &Namespace, prefix: &[&str], file: &str) -> Result<Self, String> {
        let directory = Scratch::new();
        write(namespace, &directory, file);
        let prefix: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
        let process = spawn(namespace, &prefix, &directory)?;
        Ok(Self { namespace: namespace.clone(), process, prefix, directory })
    }

    /// Kills it as a crash would.
    pub fn kill9(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(PATIENCE);
    }

    /// Starts it again after its end, with the same file and state directory.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn restart(&mut self) {
        self.process = spawn(&self.namespace, &self.prefix, &self.directory)
            .unwrap_or_else(|log| panic!("portway did not start again:\n{log}"));
    }

    /// Ends it as an operator would, and returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(PATIENCE)
    }

    /// Changes the file, without telling it.
    pub fn write(&self, file: &str) {
        write(&self.namespace, &self.directory, file);
    }

    /// Changes the file and runs `portway reload`.
    ///
    /// # Errors
    /// What the command printed when it failed.
    pub fn try_reload(&self, file: &str) -> Result<String, String> {
        self.write(file);
        self.command("reload")
    }

    /// Changes the file and reloads.
    ///
    /// # Panics
    /// When that fails.
    pub fn reload(&self, file: &str) {
        self.try_reload(file).unwrap_or_else(|complaint| panic!("{complaint}"));
    }

    /// Runs `portway WORD --state-dir ...`.
    ///
    /// # Errors
    /// What it printed when it failed.
    pub fn command(&self, words: &str) -> Result<String, String> {
        let mut command = self.namespace.command("timeout");
        command
            .arg("60")
            .arg(binary())
            .args(words.split_whitespace())
            .arg("--state-dir")
            .arg(self.state_dir());
        process::attempt(&mut command)
    }

    /// What `portway status --json` says.
    ///
    /// # Panics
    /// When it fails or prints something else.
    pub fn status(&self) -> Value {
        let text = self.command("status --json").unwrap_or_else(|complaint| panic!("{complaint}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("status --json is not JSON: {e}\n{text}"))
    }

    /// One figure of one rule in the status, found by its key anywhere below the rule.
    ///
    /// # Panics
    /// When the rule or the figure is not there.
    pub fn figure(&self, rule: &str, key: &str) -> u64 {
        let status = self.status();
        let found = find_rule(&status, rule).and_then(|rule| find_key(rule, key)).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no {key} of rule {rule} in {status:#}"))
    }

    /// One word of one rule in the status.
    ///
    /// # Panics
    /// When the rule or the word is not there.
    pub fn word(&self, rule: &str, key: &str) -> String {
        let status = self.status();
        let found = find_rule(&status, rule).and_then(|rule| find_key(rule, key)).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {key} of rule {rule} in {status:#}")).to_owned()
    }

    /// How many packets of a rule were not carried, for a reason in the words of the status ("flow table full"). What never
    /// happened is not listed.
    pub fn drops(&self, rule: &str, reason: &str) -> u64 {
        let status = self.status();
        let drops = find_rule(&status, rule).and_then(|rule| find_key(rule, "drops"));
        drops.and_then(|drops| drops[reason].as_u64()).unwrap_or(0)
    }

    /// All that it printed until now.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process, for its CPU time and memory.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The file it reads.
    pub fn config(&self) -> PathBuf {
        self.directory.join("portway.toml")
    }

    /// Where the control socket and the record of host settings lie.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }
}

/// Runs `portway check` on a file: nothing, or its complaint.
///
/// # Errors
/// What it printed.
pub fn check(namespace: &Namespace, file: &str) -> Result<String, String> {
    let directory = Scratch::new();
    let path = write(namespace, &directory, file);
    process::attempt(namespace.command("timeout").arg("60").arg(binary()).args(["check", "-c"]).arg(path))
}

/// Writes the file, and prepares the network for the place where it wants to have its programs.
fn write(namespace: &Namespace, directory: &Scratch, file: &str) -> PathBuf {
    if engine::wants_xdp(file) {
        wire::prepare_for_xdp(namespace);
    }
    directory.write("portway.toml", engine::attached(file).as_bytes())
}

fn spawn(namespace: &Namespace, prefix: &[String], directory: &Scratch) -> Result<Process, String> {
    let mut command: Command = match prefix.split_first() {
        None => namespace.command(binary()),
        Some((program, rest)) => {
            let mut command = namespace.command(program);
            command.args(rest).arg(binary());
            command
        }
    };
    command.args(["run", "-c"]).arg(directory.join("portway.toml"));
    command.arg("--state-dir").arg(directory.join("state"));
    let file = std::fs::read_to_string(directory.join("portway.toml")).unwrap_or_default();
    until_ready_within(Process::start(&mut command), START + START_LINE * file.lines().count() as u32)
}

/// Waits for the line that says that every rule forwards.
///
/// # Errors
/// What it printed when it ends or takes too long.
pub fn until_ready(process: Process) -> Result<Process, String> {
    until_ready_within(process, START)
}

fn until_ready_within(mut process: Process, limit: Duration) -> Result<Process, String> {
    let (start, limit) = (Instant::now(), patience(limit));
    loop {
        if process.log().lines().any(|line| line.starts_with("ready")) {
            return Ok(process);
        }
        if let Some(status) = process.ended() {
            return Err(format!("{}{status}", process.log()));
        }
        if start.elapsed() > limit {
            return Err(format!("{}not ready after {limit:?}", process.log()));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The object that describes a rule: one with that "name" or "rule", or the value under that key.
fn find_rule<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => {
            let named = ["name", "rule"].iter().any(|k| map.get(*k).and_then(Value::as_str) == Some(name));
            if named {
                return Some(value);
            }
            let under = map.get(name).filter(|value| value.is_object());
            under.or_else(|| map.values().find_map(|value| find_rule(value, name)))
        }
        Value::Array(items) => items.iter().find_map(|value| find_rule(value, name)),
        _ => None,
    }
}

fn find_key<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find_key(value, key))),
        Value::Array(items) => items.iter().find_map(|value| find_key(value, key)),
        _ => None,
    }
}
