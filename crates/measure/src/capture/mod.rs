//! Packet captures: a short run of a lane under a load, apart from the rounds, with what passed on the gateway's two wires as a
//! file and counted by kind.
//!
//! Seen at the other ends of the wires, at the client and at the server: what a program at XDP forwards passes no tap of the
//! gateway. A sample is so short, and so little is kept of each packet, that a file is bounded: [`MOST`] packets.
//! Deliberately absent: anything about costs, which a capture would change.

pub mod kinds;
pub mod pcapng;
pub mod tap;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;

use portway_lab::Ends;
use portway_lab::topology::{CLIENT4, SERVER4};

use crate::actor;
use crate::lane::setup::Lane;
use crate::load::Load;
use crate::record::{Capture, Wire};
use kinds::{Kind, Seen, count};
use pcapng::File;
use tap::{Frame, Tap};

/// The directory of captures, beside the record.
pub const DIRECTORY: &str = "captures";
/// Packets that are kept of a wire; the rest is counted.
pub const MOST: usize = 10_000;

/// The wires: how they are called, and whose side of the gateway they are on.
const WIRES: [(&str, &str); 2] = [("client", CLIENT4), ("server", SERVER4)];

/// What was seen on a wire.
struct Watched {
    frames: Vec<Frame>,
    wire: Wire,
    not_kept: u64,
    missed: u64,
}

/// Captures a sample of a load in a lane, into a file in that directory: what was seen. Nothing if the load has no sample.
///
/// # Errors
/// What could not be written or read.
///
/// # Panics
/// When the load does.
pub fn take(lane: &Lane, load: Load, into: &Path) -> Result<Option<Capture>, String> {
    let Some(call) = load.sample(lane) else { return Ok(None) };
    let hosts = [lane.net.client(), lane.net.server()];
    let taps = [Tap::open(hosts[0])?, Tap::open(hosts[1])?];
    let over = AtomicBool::new(false);
    let (done, watched) = thread::scope(|scope| {
        let watching = [0, 1].map(|nth| {
            let (tap, over) = (&taps[nth], &over);
            scope.spawn(move || watch(tap, WIRES[nth], over))
        });
        // Whatever becomes of the load, the others must end.
        let ends = Ends(&over);
        let done = actor::call(lane.net.client(), &call);
        drop(ends);
        (done, watching.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
    });
    let [client, server] = watched;
    let (client, server) = (client?, server?);
    let name = format!("{}-{}.pcapng", lane.scheme.name(), load.name());
    let mut all: Vec<(u32, &Frame)> = client.frames.iter().map(|frame| (0, frame)).collect();
    all.extend(server.frames.iter().map(|frame| (1, frame)));
    all.sort_by_key(|(_, frame)| frame.at);
    let comment = format!("{} under {}: {}", lane.scheme.name(), load.name(), load.title());
    let mut file = File::new(&comment, &WIRES.map(|(name, _)| name));
    all.iter().for_each(|(wire, frame)| file.packet(*wire, frame));
    fs::create_dir_all(into).map_err(|error| format!("make {}: {error}", into.display()))?;
    let path = into.join(&name);
    fs::write(&path, file.bytes()).map_err(|error| format!("write {}: {error}", path.display()))?;
    Ok(Some(Capture {
        lane: lane.scheme.name(),
        load: load.name().to_owned(),
        file: format!("{DIRECTORY}/{name}"),
        done: done.done,
        bytes: done.bytes,
        not_kept: client.not_kept + server.not_kept,
        missed: client.missed + server.missed,
        wires: vec![client.wire, server.wire],
    }))
}

/// Reads what passes on a wire until all is over.
fn watch(tap: &Tap, (name, host): (&str, &str), over: &AtomicBool) -> Result<Watched, String> {
    let host: Ipv4Addr = host.parse().map_err(|_| format!("{host} is no address"))?;
    let is_client = name == WIRES[0].0;
    let mut seen = Seen::default();
    let wire = Wire { name: name.to_owned(), ..Wire::default() };
    let mut watched = Watched { frames: Vec::new(), wire, not_kept: 0, missed: 0 };
    watched.missed = tap
        .read(over, |frame| {
            let (kind, from) = seen.kind(&frame.bytes);
            if kind != Kind::Other {
                // Towards the server: what the client sends, and what the server is sent.
                let forth = (from == host) == is_client;
                count(if forth { &mut watched.wire.forth } else { &mut watched.wire.back }, kind);
            }
            if watched.frames.len() < MOST {
                watched.frames.push(frame);
            } else {
                watched.not_kept += 1;
            }
        })?
        .into();
    Ok(watched)
}
