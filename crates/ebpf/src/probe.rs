//! What eBPF can do on this host, found out by asking the kernel; and what each interface would get, and why.
//!
//! Leaves nothing behind.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use portway_core::caps::Ebpf;
use portway_core::engine::EngineError;
use portway_core::ruleset::EbpfSettings;
use serde::Serialize;

use crate::choice;
use crate::host::Host;
use crate::pins;
use crate::refusal::failure;
use crate::route::{Layer, Route};
use crate::serve::has_tcx;
use crate::sys;

/// The first kernel that the programs are made for: tcx, and a flow table that many processors change at once.
const KERNEL: (u32, u32) = (6, 6);

/// What eBPF offers in the network namespace of the calling thread.
///
/// # Errors
/// Why the engine cannot run here, in words for the user.
pub fn probe() -> Result<Ebpf, String> {
    if cfg!(target_endian = "big") {
        return Err("the programs are for little-endian processors".to_owned());
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let (major, minor) = KERNEL;
    if version(&release).is_some_and(|version| version < KERNEL) {
        return Err(format!("needs Linux {major}.{minor}; this is {release}"));
    }
    for kind in [sys::program::SCHED_CLS, sys::program::XDP] {
        sys::load_trivial(kind, 0).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => "needs root (CAP_BPF and CAP_NET_ADMIN)".to_owned(),
            _ => format!("the kernel takes no programs: {error}"),
        })?;
    }
    pins::cookie().map_err(|error| format!("the kernel does not tell network namespaces apart: {error}"))?;
    Ok(Ebpf { tcx: has_tcx() })
}

/// Major and minor of a release such as `6.12.48+deb13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The addresses of this host, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's.
pub fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    Ok(Route::open()?.addresses()?.into_iter().map(|(address, _)| address).collect())
}

/// What an interface can do, and what it would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The driver of the device, or what made the interface ("veth"), where known.
    pub driver: Option<String>,
    /// How its packets begin: `ethernet`, `ip`, or another kind.
    pub link: String,
    /// Whether programs can be attached by tcx; else by clsact.
    pub tcx: bool,
    /// Where programs would be attached: `tcx` or `clsact`, and `xdp`; nowhere where it would not be served.
    pub hooks: Vec<&'static str>,
    /// Whether the driver runs XDP itself.
    pub xdp: bool,
    /// Whether it takes frames that a program sent from another interface, as large as its MTU.
    pub takes_xdp: bool,
    /// Whether it would be served.
    pub served: bool,
    /// What it would get and why, or why nothing.
    pub why: String,
}

/// What the interfaces in the network namespace of the calling thread can do, and what they would get.
///
/// # Errors
/// They cannot be listed.
pub fn interfaces(settings: &EbpfSettings) -> Result<Vec<Interface>, EngineError> {
    let list = |error| failure("list the interfaces", &error);
    let mut route = Route::open().map_err(list)?;
    let (host, tcx) = (Host::look(&mut route).map_err(list)?, has_tcx());
    let report = |known: &choice::Known| {
        let (hooks, why) = match choice::choose(known, settings, tcx) {
            Ok((hooks, why)) => {
                let tc = if hooks.clsact { "clsact" } else { "tcx" };
                ([tc].into_iter().chain(hooks.xdp.then_some("xdp")).collect(), why)
            }
            Err(why) => (Vec::new(), why),
        };
        Interface {
            name: known.interface.name.clone(),
            driver: known.driver.clone().or_else(|| known.interface.made_by.clone()),
            link: match known.interface.layer {
                Layer::Ethernet => "ethernet".to_owned(),
                Layer::Ip => "ip".to_owned(),
                Layer::Loopback => "loopback".to_owned(),
                Layer::Other(kind) => format!("kind {kind}"),
            },
            tcx,
            xdp: known.features.runs() && known.features.redirects(),
            takes_xdp: known.features.takes(known.interface.mtu),
            served: !hooks.is_empty(),
            hooks,
            why,
        }
    };
    Ok(host.interfaces.values().map(report).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.12.48+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert_eq!(version("next"), None);
        assert!(version("6.1.0").unwrap_or_default() < KERNEL);
    }
}
