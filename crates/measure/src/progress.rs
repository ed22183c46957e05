//! How far a run is: a bar with an estimate on a terminal, a line for each piece of work elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::Event;

/// How far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    start: Instant,
    planned: f64,
    passed: f64,
    last: String,
}

impl Progress {
    /// Of a run that begins now.
    pub fn new() -> Self {
        let terminal = stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::no_length()
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {prefix:>12}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, terminal, start: Instant::now(), planned: 0.0, passed: 0.0, last: String::new() }
    }

    /// Shows what an event changes.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Plan { seconds } => {
                self.planned = *seconds;
                self.bar.set_length(tenths(*seconds));
                self.say(&format!("about {} to go", duration(*seconds)));
            }
            Event::Begins { what } => {
                self.bar.set_message(what.clone());
                // A line for each round and for each lane that is set up; what is within a round is told by the terminal only.
                let line = what.split(", ").next().unwrap_or_default().split(':').next().unwrap_or_default();
                if !self.terminal && line != self.last {
                    line.clone_into(&mut self.last);
                    self.say(&format!("{line} ({} s)", self.start.elapsed().as_secs()));
                }
            }
            Event::Passed { seconds } => {
                self.passed += seconds;
                self.bar.set_position(tenths(self.passed));
                // What is left takes as much longer than planned as what is behind us did.
                let slower = self.start.elapsed().as_secs_f64() / self.passed.max(0.1);
                let left = (self.planned - self.passed).max(0.0) * slower.max(0.2);
                self.bar.set_prefix(format!("{} left", duration(left)));
            }
            Event::LeftOut(left_out) => {
                let why = left_out.why.lines().next().unwrap_or_default();
                self.say(&format!("without {}: {why}", left_out.name));
            }
            _ => (),
        }
    }

    fn say(&self, line: &str) {
        if self.terminal {
            self.bar.println(line);
        } else {
            let _ = writeln!(stderr(), "{line}");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn tenths(seconds: f64) -> u64 {
    (seconds * 10.0) as u64
}

/// `2 min 5 s`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}
