//! The engine alone, for measuring it: `relay [tcp|udp/]LISTEN BACKEND [...] [--workers N]`. Ends with its
//! standard input and prints what the engine counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use portway_core::address::{PortRange, Protocol};
use portway_core::engine::Engine;
use portway_core::plan::proxy::{Plan, PoolPlan, RulePlan, Settings, Socket, Source};
use portway_core::ruleset::{RuleName, Scope, Timeouts};
use portway_proxy::ProxyEngine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut settings = Settings::default();
    if let Some(at) = args.iter().position(|a| a == "--workers") {
        settings.workers = Some(args.get(at + 1).ok_or("--workers N")?.parse::<NonZeroU32>()?);
        args.drain(at..at + 2);
    }
    let mut rules = BTreeMap::new();
    for pair in args.chunks(2) {
        let [listen, backend] = pair else { return Err("relay [udp/]LISTEN BACKEND ...".into()) };
        let (protocol, address) = match listen.split_once('/') {
            Some(("udp", address)) => (Protocol::Udp, address),
            Some((_, address)) => (Protocol::Tcp, address),
            None => (Protocol::Tcp, listen.as_str()),
        };
        let address: SocketAddr = address.parse()?;
        let scope = Scope::Address(address.ip());
        let ports = PortRange::single(address.port()).ok_or("port 0 does not exist")?;
        let rule = RulePlan {
            sockets: [(Socket { protocol, scope, port: address.port() }, ports)].into(),
            pool: PoolPlan::to(backend.parse()?),
            source: Source::Kernel,
            timeouts: Timeouts::default(),
            max_connections: None,
        };
        rules.insert(RuleName::new(listen).ok_or("a valid listener")?, rule);
    }
    let plan = Plan { settings, rules };
    let mut engine = ProxyEngine::new(|message| eprintln!("{message}"));
    engine.prepare(&plan)?;
    engine.commit()?;
    println!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    println!("{:#?}", engine.observer()?.observe()?);
    engine.clear()?;
    Ok(())
}
