//! What the stage tells the command while it measures: JSON, a line each, on a pipe.
//!
//! The command draws progress from it and keeps every run, so that what was measured is not lost when the rest is. Deliberately
//! absent: words from the command to the stage. It gets its orders once, and ends when the command does.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::record::{Capture, Host, Lane, LeftOut, Profile, Run};

/// Something that happened on the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// What is to come: how many seconds of work, before anything has been measured.
    Plan {
        /// Seconds.
        seconds: f64,
    },
    /// The machine.
    Host(Host),
    /// A piece of work begins.
    Begins {
        /// In a few words: `round 2 of 3: nft, bulk-up`.
        what: String,
    },
    /// So many of the planned seconds' work are done, however long they took.
    Passed {
        /// Seconds of the plan.
        seconds: f64,
    },
    /// A lane stands.
    Lane(Lane),
    /// A lane or a load does not take part.
    LeftOut(LeftOut),
    /// A run was measured.
    Run(Box<Run>),
    /// Packets were captured.
    Capture(Box<Capture>),
    /// It was seen where the work goes.
    Profile(Box<Profile>),
    /// All is measured.
    Done,
    /// The stage cannot go on.
    Failed(String),
}

impl Event {
    /// Writes it as a line.
    ///
    /// # Errors
    /// Of the writer: nobody reads any more.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        to.write_all(&line)?;
        to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Event::Failed("first\nsecond".to_owned());
        let mut bytes = Vec::new();
        event.write(&mut bytes).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Event>(&bytes).unwrap(), event);
    }
}
