//! `portway toa`, and servers that say whom they see.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::netns::PATIENCE;
use crate::{Cgroup, Namespace, Process, Scratch, peer, portway, process};

/// Runs `portway toa WORDS` to its end.
///
/// # Errors
/// What it printed when it failed.
pub fn run(words: &[&str]) -> Result<String, String> {
    process::attempt(Command::new(portway::binary()).arg("toa").args(words))
}

/// `portway toa` in the foreground, for the servers in a control group. What it attached goes with it.
#[derive(Debug)]
pub struct Toa {
    /// The process.
    pub process: Process,
    cgroup: String,
}

impl Toa {
    /// Starts it, believing these networks.
    ///
    /// # Panics
    /// When it does not become ready; the message has all that it printed.
    pub fn start(cgroup: &Cgroup, trust: &[&str]) -> Self {
        Self::try_start(cgroup, trust).unwrap_or_else(|said| panic!("portway toa did not start: {said}"))
    }

    /// The same, with what it printed when it ends instead of becoming ready.
    ///
    /// # Errors
    /// What it printed.
    pub fn try_start(cgroup: &Cgroup, trust: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(portway::binary());
        command.args(["toa", "--cgroup"]).arg(cgroup.path());
        for network in trust {
            command.args(["--trust", network]);
        }
        let mut process = Process::start(&mut command);
        let start = Instant::now();
        while !process.log().lines().any(|line| line == "ready") {
            if process.ended().is_some() {
                return Err(process.log());
            }
            assert!(start.elapsed() < PATIENCE, "neither ready nor ended: {}", process.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, cgroup: cgroup.name().to_owned() })
    }
}

impl Drop for Toa {
    fn drop(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(PATIENCE);
        let _ = run(&["--clear", "--cgroup", &self.cgroup]);
    }
}

/// nginx on port 80 of these addresses, which writes whom it sees ("ADDRESS PORT") into its answers, and into
/// `access.log` of the directory.
///
/// # Panics
/// When it does not start.
pub fn nginx(ns: &Namespace, listen: &[&str]) -> (Process, Scratch) {
    let logs = Scratch::new();
    let listen: String = listen.iter().map(|address| format!("listen {address};")).collect();
    let contexts = format!(
        "worker_processes 1; events {{ worker_connections 500; }}
         http {{ log_format who '$remote_addr $remote_port'; access_log {} who;
                server {{ {listen} return 200 '$remote_addr $remote_port'; }} }}",
        logs.join("access.log").display()
    );
    (peer::nginx_raw(ns, &contexts, 80), logs)
}
