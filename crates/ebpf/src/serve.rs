//! Interfaces: which ones are served, their places in the maps, the programs on them; and what else follows from the host:
//! its addresses, and which of them members see.
//!
//! Looks at the host afresh every time and writes what differs. Deliberately absent: being told when ([`crate::follow`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use portway_core::engine::EngineError;
use portway_core::ruleset::{EbpfSettings, Scope};
use portway_datapath::abi::{self, port_flags};

use crate::attach::Hooks;
use crate::choice::{self, Known};
use crate::config;
use crate::held::Held;
use crate::host::Host;
use crate::maps::{Maps, PORTS};
use crate::object::Kind;
use crate::refusal::refused;
use crate::sources::Unreached;
use crate::state;
use crate::sys;
use crate::value;
use crate::write::{self, Write};

/// What is served, as the maps have it.
pub struct Serving {
    /// Numbers of ports by index of the interface.
    numbers: BTreeMap<u32, u32>,
    ports: BTreeMap<u32, abi::Port>,
    /// The number that was given out last: one that was let go of is not used again soon.
    last: u32,
    locals: BTreeMap<abi::Address, u32>,
    /// What was chosen when this daemon last attached something: it is tried once.
    tried: BTreeMap<u32, Hooks>,
    /// What came of it.
    hooks: BTreeMap<u32, Hooks>,
    /// Addresses of members that nothing can be sent to.
    pub unreached: BTreeMap<abi::Address, Unreached>,
    /// Whether the kernel has tcx.
    tcx: bool,
}

impl Serving {
    /// What an earlier daemon left.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(maps: &Maps) -> io::Result<Self> {
        let numbers: BTreeMap<u32, u32> = maps.interfaces.all()?.into_iter().collect();
        let all = maps.ports.first(PORTS)?;
        let port = |number: &u32| Some((*number, *all.get(*number as usize)?));
        Ok(Self {
            ports: numbers.values().filter_map(port).collect(),
            last: numbers.values().max().copied().unwrap_or(0),
            numbers,
            locals: maps.locals.all()?.into_iter().collect(),
            tried: BTreeMap::new(),
            hooks: BTreeMap::new(),
            unreached: BTreeMap::new(),
            tcx: has_tcx(),
        })
    }

    /// What hangs where, as far as this daemon has attached it.
    pub fn attached(&self) -> Vec<(u32, Hooks)> {
        self.hooks.iter().map(|(interface, hooks)| (*interface, *hooks)).collect()
    }

    fn number(&mut self, interface: u32) -> Option<u32> {
        if let Some(number) = self.numbers.get(&interface) {
            return Some(*number);
        }
        let used: BTreeSet<u32> = self.numbers.values().copied().collect();
        let number = (self.last + 1..PORTS).chain(1..=self.last).find(|number| !used.contains(number))?;
        self.last = number;
        Some(number)
    }
}

/// Whether the kernel has tcx (Linux 6.6): it says what is attached to the loopback device, or that it does not know the place.
pub fn has_tcx() -> bool {
    const LOOPBACK: u32 = 1;
    sys::attached(LOOPBACK, sys::place::TCX_INGRESS).is_ok()
}

/// The port of an interface, as the programs see it.
fn port(known: &Known, hooks: Hooks) -> abi::Port {
    let Known { interface, features, .. } = known;
    let flag = |set: bool, flag: u16| if set { flag } else { 0 };
    // Hardware has a way back of its own. A veth device takes what `XDP_TX` sends only while the other end runs a program
    // (drivers/net/veth.c: veth_xdp_flush), which nobody here can see; what is redirected to it, it takes in any case.
    let sends_back = features.runs() && interface.made_by.as_deref() != Some("veth");
    abi::Port {
        interface: interface.index,
        mtu: interface.mtu,
        link: interface.address,
        flags: flag(hooks.kind == Kind::Ethernet, port_flags::ETHERNET)
            | flag(features.takes(interface.mtu), port_flags::XDP)
            | flag(hooks.xdp && sends_back, port_flags::XDP_TX),
    }
}

impl Held {
    /// Loads the programs that the interfaces of now need, so that the verifier is heard before anything changes.
    ///
    /// # Errors
    /// The verifier's.
    pub fn load_programs(&mut self, settings: &EbpfSettings) -> Result<(), EngineError> {
        let mut kinds = BTreeSet::from([Kind::Ethernet]);
        for known in self.host.interfaces.values() {
            if let Ok((hooks, _)) = choice::choose(known, settings, self.serving.tcx) {
                kinds.insert(hooks.kind);
                kinds.extend(hooks.xdp.then_some(Kind::Xdp));
            }
        }
        for kind in kinds {
            self.programs.get(kind).map_err(|error| refused("load the programs", error))?;
        }
        Ok(())
    }

    /// Serves the interfaces that are there now; says in the log what could not be done. Also for the first time.
    pub fn serve(&mut self) {
        self.looks += 1;
        match Host::look(&mut self.route) {
            Ok(host) => self.follow_host(host),
            Err(error) => (self.log)(&format!("ebpf: list the interfaces: {error}")),
        }
        config::next_generation(&self.maps.flows);
    }

    /// Brings the maps and the programs on interfaces to what the host is now.
    pub fn follow_host(&mut self, host: Host) {
        self.host = host;
        if let Err(error) = self.follow_addresses().and_then(|()| self.follow_interfaces()) {
            (self.log)(&format!("ebpf: write the host's interfaces and addresses to the maps: {error}"));
        }
        if let Err(error) = self.follow_scopes() {
            (self.log)(&format!("ebpf: {error}"));
        }
    }

    fn follow_addresses(&mut self) -> io::Result<()> {
        let now: BTreeMap<abi::Address, u32> =
            self.host.addresses.iter().map(|(ip, interface)| (value::address(*ip), *interface)).collect();
        for (address, interface) in &now {
            if self.serving.locals.get(address) != Some(interface) {
                self.maps.locals.set(address, interface)?;
            }
        }
        for address in self.serving.locals.keys().filter(|address| !now.contains_key(*address)) {
            self.maps.locals.remove(address)?;
        }
        self.serving.locals = now;
        Ok(())
    }

    fn follow_interfaces(&mut self) -> io::Result<()> {
        let settings = self.plan.settings.clone();
        let mut served = BTreeMap::new();
        for (index, known) in &self.host.interfaces {
            if let Ok((hooks, _)) = choice::choose(known, &settings, self.serving.tcx) {
                served.insert(*index, hooks);
            }
        }
        let there: BTreeSet<u32> = self.attachments.interfaces();
        for interface in there.iter().filter(|index| !served.contains_key(*index)) {
            self.attachments.detach(*interface);
            self.serving.hooks.remove(interface);
            self.serving.tried.remove(interface);
        }
        let gone: Vec<(u32, u32)> =
            self.serving.numbers.iter().map(|(index, number)| (*index, *number)).collect();
        for (index, number) in gone.into_iter().filter(|(index, _)| !served.contains_key(index)) {
            self.maps.interfaces.remove(&index)?;
            self.maps.ports.set(&number, &abi::Port::default())?;
            self.serving.numbers.remove(&index);
            self.serving.ports.remove(&number);
            self.serving.hooks.remove(&index);
            self.serving.tried.remove(&index);
        }
        for (index, hooks) in served {
            self.follow_interface(index, hooks)?;
        }
        Ok(())
    }

    fn follow_interface(&mut self, index: u32, mut hooks: Hooks) -> io::Result<()> {
        let Some(known) = self.host.interfaces.get(&index).cloned() else { return Ok(()) };
        let Some(number) = self.serving.number(index) else {
            (self.log)(&format!(
                "ebpf: more than {} interfaces; {} is not served",
                PORTS - 1,
                known.interface.name
            ));
            return Ok(());
        };
        if self.serving.tried.insert(index, hooks) != Some(hooks) {
            self.serving.hooks.insert(index, hooks);
            let mut attached = self.attachments.attach(index, hooks, &mut self.programs);
            if hooks.xdp
                && let Err(failed) = attached
            {
                let name = &known.interface.name;
                (self.log)(&format!("ebpf: {name}: {}: {}; TC does all of it", failed.doing, failed.reason));
                hooks.xdp = false;
                self.serving.hooks.insert(index, hooks);
                attached = self.attachments.attach(index, hooks, &mut self.programs);
            }
            if let Err(failed) = attached {
                self.serving.hooks.remove(&index);
                (self.log)(&format!("ebpf: {}: {}: {}", known.interface.name, failed.doing, failed.reason));
            }
        }
        hooks.xdp &= self.attachments.has_xdp(index);
        let port = port(&known, hooks);
        if self.serving.ports.get(&number) != Some(&port) {
            self.maps.ports.set(&number, &port)?;
            self.serving.ports.insert(number, port);
        }
        if self.serving.numbers.get(&index) != Some(&number) {
            self.maps.interfaces.set(&index, &number)?;
            self.serving.numbers.insert(index, number);
        }
        Ok(())
    }

    /// Interfaces that are to be served and have no program.
    pub fn unattached(&self) -> Vec<String> {
        let without = |index: &&u32| !self.attachments.has_tc(**index);
        let name = |index: &u32| self.host.interfaces.get(index).map(|known| known.interface.name.clone());
        let names = self.serving.numbers.keys().filter(without).filter_map(name);
        names.map(|name| format!("interface {name} has no program")).collect()
    }

    /// How many interfaces are served.
    pub fn served(&self) -> usize {
        self.serving.numbers.len()
    }

    /// Listeners on interfaces that have come or gone.
    fn follow_scopes(&mut self) -> Result<(), EngineError> {
        let (mut writes, mut changed) = (Vec::new(), Vec::new());
        for (name, plan) in &self.plan.rules {
            let on_interface = |scope: &Scope| matches!(scope, Scope::Interface(..));
            if !plan.listeners.iter().any(|listener| on_interface(&listener.scope)) {
                continue;
            }
            let Some(rule) = self.rules.get(name) else { continue };
            let keys = state::keys(plan, rule.id, &self.host);
            for (key, value) in &keys {
                let before = self.listening.get(key).copied();
                if before != Some(*value) {
                    writes.push(Write::Listener(*key, Some(*value), before));
                }
            }
            for (key, value) in rule.keys.iter().filter(|(key, _)| !keys.contains_key(*key)) {
                writes.push(Write::Listener(*key, None, Some(*value)));
            }
            changed.push((name.clone(), keys));
        }
        let carried = write::carry_out(&self.maps, &writes);
        carried.map_err(|error| crate::refusal::failure("listen on an interface", &error))?;
        for write in writes {
            match write {
                Write::Listener(key, Some(value), _) => _ = self.listening.insert(key, value),
                Write::Listener(key, None, _) => _ = self.listening.remove(&key),
                _ => {}
            }
        }
        for (name, keys) in changed {
            if let Some(rule) = self.rules.get_mut(&name) {
                rule.keys = keys;
            }
        }
        self.epoch += 1;
        Ok(())
    }
}
