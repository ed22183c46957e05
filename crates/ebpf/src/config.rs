//! The configuration that all programs read with every packet: written word by word, for they read it meanwhile.
//!
//! What has to be the same for the life of the flow table is written once ([`initialise`]).

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use portway_core::ruleset::EbpfSettings;
use portway_datapath::abi::{ABI, Clock, Config, SEEDS, config_flags, rule_flags};
use portway_datapath::sweep;

use crate::host;
use crate::maps::FlowMemory;
use crate::state::RuleState;
use crate::table::View;
use crate::value::{self, Key};
use crate::view;

/// A connection that the client has closed holds nothing; its record stays for the last segments.
const CLOSED: Duration = Duration::from_secs(2);

/// Of one that was reset, as it seems: as long as conntrack remembers it (`nf_conntrack_tcp_timeout_close`), and long enough for
/// the sweep to ask the backend ([`crate::reopen`]).
const RESET: Duration = Duration::from_secs(10);

/// Whether the maps are of this version of everything in `abi`, and complete.
pub fn is_ours(flows: &FlowMemory) -> bool {
    let config = read(flows);
    let records = flows.records.len() == config.records as usize;
    config.abi == ABI && records && flows.buckets.len() == config.buckets as usize
}

/// The configuration as it is now.
pub fn read(flows: &FlowMemory) -> Config {
    let mut config = [Config::default()];
    let words = view::words_mut(&mut config);
    words.iter_mut().zip(flows.config.iter()).for_each(|(word, now)| *word = now.load(Relaxed));
    config[0]
}

fn write(flows: &FlowMemory, config: Config) {
    let mut config = [config];
    let words = view::words_mut(&mut config);
    for (word, now) in words.iter().zip(flows.config.iter()) {
        if now.load(Relaxed) != *word {
            now.store(*word, Relaxed);
        }
    }
}

/// Begins a flow table in maps that were just made. The version goes in last: maps without it are not taken over.
///
/// # Errors
/// There is no randomness.
pub fn initialise(flows: &FlowMemory) -> io::Result<()> {
    let mut seeds = [0; SEEDS];
    File::open("/dev/urandom")?.read_exact(view::bytes_mut(&mut seeds))?;
    let (records, buckets) = (flows.records.len() as u32, flows.buckets.len() as u32);
    let mut config = Config { seeds, records, buckets, generation: 1, ..Config::default() };
    write(flows, config);
    sweep::initialise(&View::new(flows));
    config.abi = ABI;
    write(flows, config);
    Ok(())
}

/// Sets what the file says.
pub fn set(flows: &FlowMemory, settings: &EbpfSettings, flags: u32) {
    let mut config = read(flows);
    (config.first_port, config.last_port) = (settings.source_ports.first(), settings.source_ports.last());
    (config.first_ephemeral, config.last_ephemeral) = host::ephemeral_ports();
    config.flags = flags;
    let clocks = [
        (Clock::Opening, settings.timeouts.opening),
        (Clock::Established, settings.timeouts.established),
        (Clock::Closing, settings.timeouts.closing),
        (Clock::TimeWait, settings.timeouts.time_wait),
        (Clock::Closed, CLOSED),
        (Clock::Reset, RESET),
        (Clock::UdpUnanswered, settings.timeouts.udp),
        (Clock::UdpAnswered, settings.timeouts.udp_stream),
    ];
    for (clock, time) in clocks {
        config.timeouts[clock as usize] = value::ticks(time);
    }
    write(flows, config);
}

/// Has the programs ask for all routes again.
pub fn next_generation(flows: &FlowMemory) {
    let mut config = read(flows);
    config.generation = config.generation.wrapping_add(1);
    write(flows, config);
}

/// What is to be asked, for what listens.
pub fn flags<'a>(keys: impl Iterator<Item = &'a Key>) -> u32 {
    keys.map(|key| {
        let (range, wide) = match key {
            Key::One(one) => (false, value::ip(one.address).is_unspecified()),
            Key::Range(range) => {
                (true, std::net::Ipv6Addr::from(range.address).to_canonical().is_unspecified())
            }
        };
        (if range { config_flags::RANGES } else { 0 }) | (if wide { config_flags::WIDE } else { 0 })
    })
    .fold(0, |all, one| all | one)
}

/// And for what rules do with clients.
pub fn asked_by<'a>(rules: impl Iterator<Item = &'a RuleState>) -> u32 {
    rules
        .filter_map(|rule| rule.value)
        .map(|value| {
            (if value.persist > 0 { config_flags::PERSIST } else { 0 })
                | (if value.flags & rule_flags::COOKIES != 0 { config_flags::COOKIES } else { 0 })
        })
        .fold(0, |all, one| all | one)
}
