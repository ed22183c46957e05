//! The words of the command line (clap). Shape only; what they mean is parsed with the file's own grammar.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::state_dir;

/// Forward ports: one rule, carried by the cheapest engine that can serve it.
#[derive(Debug, Parser)]
#[command(name = "portway", version, about, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Forward now, in the foreground; Ctrl-C removes every trace
    #[command(after_help = "Examples:\n  \
        portway forward 0.0.0.0:8888 192.168.1.100:80\n  \
        portway forward 8888:192.168.1.100:80\n  \
        portway forward udp/0.0.0.0:53 10.0.0.2:53 '[::]:8443' '[fd00::2]:443'")]
    Forward {
        /// LISTEN BACKEND pairs, or one word each in the form PORT:HOST:PORT
        #[arg(required = true, value_name = "LISTEN BACKEND")]
        pairs: Vec<String>,
        /// auto, nftables or proxy [default: auto, the cheapest that can serve the rules]
        #[arg(long)]
        engine: Option<String>,
        /// masquerade, preserve, or addresses separated by commas [default: masquerade]
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        state: State,
    },
    /// Run the rules of a file in the foreground; SIGHUP or `portway reload` applies a changed file
    Run {
        /// The file
        #[arg(short = 'c', long = "config", value_name = "FILE")]
        file: PathBuf,
        /// When stopped by SIGTERM or SIGINT, leave the kernel's rules forwarding for the next start to adopt
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        state: State,
    },
    /// Report every mistake in a file
    Check {
        #[command(flatten)]
        text: Text,
        /// Judge the file alone, as on a host that can do everything and whose ports are free
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Print what a file would apply: each rule's engine and why, and the plan of each engine
    Plan {
        #[command(flatten)]
        text: Text,
        /// As on a host that can do everything
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show what a changed file would change in the running daemon
    Diff {
        #[command(flatten)]
        text: Text,
        /// Compare with this file instead of the running daemon
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Show the rules of the running daemon and how they do
    Status {
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        state: State,
    },
    /// Apply the changed file; a bad one changes nothing
    Reload {
        #[command(flatten)]
        state: State,
    },
    /// Remove what a killed daemon left: kernel rules, their flows, host settings, files
    Clear {
        #[command(flatten)]
        state: State,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Text {
    /// The file, or - for standard input
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Output {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct State {
    /// Where the control socket, the lock and the record of host settings live
    /// [default: /run/portway for root, else in the user's runtime directory]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl State {
    pub(super) fn dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(state_dir::default_path)
    }
}
