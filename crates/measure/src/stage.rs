//! The stage, as the command sees it: started, listened to, ended.
//!
//! Nothing is cleaned up, because nothing is left: the stage is the first process of a PID namespace and has mount, network
//! and IPC namespaces of its own. Two things end it, and the kernel does both: the signal that is sent to a child when its
//! parent dies (PR_SET_PDEATHSIG; unshare(1) passes it on), and the end of the pipe that only the command holds, for a
//! command that died before that signal was asked for. The stage is a session of its own, so that Ctrl-C at a terminal
//! reaches the command alone, which still has a record to write.
//!
//! Deliberately absent: what is done on the stage ([`crate::perform`]).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};

use portway_lab::process;

use crate::event::Event;
use crate::ground;
use crate::options::Options;

/// A running stage. It ends when this is dropped.
#[derive(Debug)]
pub struct Stage {
    child: Child,
    _lifeline: ChildStdin,
    complaints: Option<JoinHandle<String>>,
}

impl Stage {
    /// Starts this program again, on a stage, with these words and these orders; and where its events are to be read.
    ///
    /// The thread that calls this must live as long as the stage: the signal above is sent when the thread ends.
    ///
    /// # Errors
    /// A missing program, by its Debian package, or what the kernel says.
    pub fn start(words: &[&str], options: &Options) -> Result<(Self, Events), String> {
        let mut command = Command::new(process::installed("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(process::installed("unshare")?);
        command.args([
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--propagation",
            "slave",
            "--fork",
            "--kill-child=KILL",
        ]);
        // Slave: what the host unmounts meanwhile is not kept by the stage's copy, and nothing goes the other way.
        // Not /proc/self/exe, which would be unshare. A link to the very file that runs, wherever it lies, even if it has been
        // replaced since.
        command.arg("--").arg(format!("/proc/{}/exe", std::process::id())).args(words);
        command.env("TMPDIR", ground::TEMPORARY);
        // The engines under test are this very program as well. On the stage it is the first process.
        command.env("PORTWAY_BIN", "/proc/1/exe");
        // A process group that is not the terminal's.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("start {command:?}: {error}"))?;
        let mut lifeline = child.stdin.take().expect("invariant: stdin is piped");
        let events = child.stdout.take().expect("invariant: stdout is piped");
        let mut errors = child.stderr.take().expect("invariant: stderr is piped");
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let mut orders = serde_json::to_vec(options).map_err(|error| error.to_string())?;
        orders.push(b'\n');
        // A stage that has not come to be says why on its standard error, which is better than our broken pipe.
        let _ = lifeline.write_all(&orders);
        let stage = Self { child, _lifeline: lifeline, complaints: Some(complaints) };
        Ok((stage, Events(BufReader::new(events))))
    }

    /// Ends it, and says what it printed that was not an event.
    pub fn end(mut self) -> String {
        self.kill();
        self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn kill(&mut self) {
        // The signal that unshare asked for takes the stage's first process along, and that one all others.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What happens on the stage, until it ends.
#[derive(Debug)]
pub struct Events(BufReader<ChildStdout>);

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut line = String::new();
        // What cannot be read or is no event is the end: a stage that was killed may leave half a line.
        self.0.read_line(&mut line).ok().filter(|length| *length > 0)?;
        serde_json::from_str(&line).ok()
    }
}
