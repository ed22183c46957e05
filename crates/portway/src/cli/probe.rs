//! `portway probe`: what this host can do for each engine, and what the ebpf engine would do with each interface, with the
//! reasons. Reads only.

use std::path::Path;

use comfy_table::{Table, presets};
use portway_core::caps::Caps;
use portway_core::ruleset::EbpfSettings;
use portway_ebpf::Interface;
use serde::Serialize;

use super::{Failure, report};
use crate::{host, load};

/// One engine.
#[derive(Serialize)]
struct Engine {
    available: bool,
    /// What it can do, or why it cannot be used.
    what: String,
}

/// Everything, as it is printed.
#[derive(Serialize)]
struct Probed {
    nftables: Engine,
    ebpf: Engine,
    proxy: Engine,
    interfaces: Vec<Interface>,
}

/// Asks the host and prints what it says; the interfaces are chosen for by `[ebpf]` of `file`, where there is one.
pub(super) fn run(file: Option<&Path>, json: bool) -> Result<(), Failure> {
    let settings = match file {
        None => EbpfSettings::default(),
        Some(file) => settings(file)?,
    };
    let caps = host::probe::caps();
    let interfaces = portway_ebpf::interfaces(&settings)?;
    let probed = probed(&caps, interfaces);
    if json {
        report::json(&probed);
    } else {
        print(&probed);
    }
    Ok(())
}

/// What a file says of the engine. Its rules may be any.
fn settings(file: &Path) -> Result<EbpfSettings, Failure> {
    let loaded = load::load(load::read(file)?, &Caps::all());
    report::diagnostics(&loaded);
    loaded.candidate.map(|candidate| candidate.ruleset.ebpf).ok_or(Failure::Said)
}

fn probed(caps: &Caps, interfaces: Vec<Interface>) -> Probed {
    let engine = |what: Result<String, &String>| Engine {
        available: what.is_ok(),
        what: what.unwrap_or_else(|reason| reason.clone()),
    };
    let helpers = caps.nftables.as_ref().map(|nftables| {
        let helpers: Vec<String> = nftables.helpers.iter().map(ToString::to_string).collect();
        match helpers.is_empty() {
            true => "no conntrack helpers".to_owned(),
            false => format!("conntrack helpers {}", helpers.join(", ")),
        }
    });
    let attached = caps.ebpf.as_ref().map(|ebpf| {
        if ebpf.tcx { "TC by tcx links" } else { "TC by clsact, for want of tcx (Linux 6.6)" }.to_owned()
    });
    let ports = match caps.first_port {
        0 => "every port".to_owned(),
        first => format!("ports from {first} on"),
    };
    Probed { nftables: engine(helpers), ebpf: engine(attached), proxy: engine(Ok(ports)), interfaces }
}

fn print(probed: &Probed) {
    for (name, engine) in [("nftables", &probed.nftables), ("ebpf", &probed.ebpf), ("proxy", &probed.proxy)] {
        let can = if engine.available { "yes" } else { "no" };
        report::say(&format!("{name}: {can}, {}", engine.what));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["INTERFACE", "LINK", "DRIVER", "XDP", "TAKES XDP", "SERVED", "WHY"]);
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    for interface in &probed.interfaces {
        table.add_row([
            interface.name.clone(),
            interface.link.clone(),
            interface.driver.clone().unwrap_or_else(|| "-".to_owned()),
            word(interface.xdp),
            word(interface.takes_xdp),
            word(interface.served),
            interface.why.clone(),
        ]);
    }
    report::say("");
    report::say(&table.trim_fmt());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_says_what_it_can_or_why_not() {
        let found = probed(&Caps::all(), Vec::new());
        assert_eq!(found.nftables.what, "conntrack helpers ftp, tftp, sip");
        assert_eq!((found.ebpf.available, found.ebpf.what.as_str()), (true, "TC by tcx links"));
        assert_eq!(found.proxy.what, "every port");
        let poor = Caps { ebpf: Err("needs root".to_owned()), first_port: 1024, ..Caps::all() };
        let found = probed(&poor, Vec::new());
        assert_eq!((found.ebpf.available, found.ebpf.what.as_str()), (false, "needs root"));
        assert_eq!(found.proxy.what, "ports from 1024 on");
    }
}
