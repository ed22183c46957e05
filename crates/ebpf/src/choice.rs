//! Which hooks an interface gets, and why: pure, from what the interface is, what its driver can do and what the file says.

use std::path::Path;

use portway_core::ruleset::{Attach, EbpfSettings};

use crate::attach::Hooks;
use crate::netdev::Features;
use crate::object::Kind;
use crate::route::{Interface, Layer};

/// Drivers of virtual machines' devices that sit on PCI: their hosts hand over large packets and unfinished checksums, which
/// XDP cannot have.
const VIRTUAL: [&str; 6] = ["ena", "gve", "mana", "virtio-pci", "virtio_net", "vmxnet3"];

/// What is known of an interface.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it is.
    pub interface: Interface,
    /// What its driver can do with XDP.
    pub features: Features,
    /// The driver of the device that it is on.
    pub driver: Option<String>,
}

impl Known {
    /// With the driver's name, which sysfs has.
    pub fn new(interface: Interface, features: Features) -> Self {
        let driver = interface.device.as_ref().and_then(|(bus, name)| {
            let driver = Path::new("/sys/bus").join(bus).join("devices").join(name).join("driver");
            Some(std::fs::read_link(driver).ok()?.file_name()?.to_str()?.to_owned())
        });
        Self { interface, features, driver }
    }

    /// Whether it is a device of this machine's hardware.
    fn is_physical(&self) -> bool {
        let on_bus = self.interface.device.as_ref().is_some_and(|(bus, _)| bus != "virtio");
        on_bus && self.driver.as_deref().is_some_and(|driver| !VIRTUAL.contains(&driver))
    }
}

/// The hooks of an interface and why these; or why none.
///
/// # Errors
/// Why the interface is not served.
pub fn choose(known: &Known, settings: &EbpfSettings, tcx: bool) -> Result<(Hooks, String), String> {
    let Known { interface, features, .. } = known;
    let kind = match interface.layer {
        Layer::Loopback => {
            return Err("the loopback device: what is sent there never leaves this host".to_owned());
        }
        Layer::Other(kind) => {
            return Err(format!("its frames are of a kind that is not read here (ARPHRD {kind})"));
        }
        Layer::Ethernet => Kind::Ethernet,
        Layer::Ip => Kind::Ip,
    };
    let named = |name: &portway_core::address::InterfaceName| name.as_str() == interface.name;
    if !settings.interfaces.is_empty() && !settings.interfaces.iter().any(named) {
        return Err("not one of `interfaces`".to_owned());
    }
    if let Some(master) = interface.master {
        return Err(format!("a port of interface {master}, which is served instead"));
    }
    if !interface.up {
        return Err("down".to_owned());
    }
    let clsact = settings.attach == Attach::Clsact || !tcx;
    let tc = match (settings.attach, tcx) {
        (Attach::Clsact, _) => "clsact, as the file says",
        (_, false) => "clsact: this kernel has no tcx (Linux 6.6)",
        (_, true) => "tcx",
    };
    let native = features.runs() && features.redirects();
    let (xdp, why) = match settings.attach {
        Attach::Tc | Attach::Clsact => (false, "no XDP, as the file says"),
        _ if kind == Kind::Ip => (false, "no XDP without Ethernet headers"),
        _ if !native => (false, "no XDP: the driver has none of its own"),
        _ if !features.fragments() => (false, "no XDP: the driver gives it packets of one buffer only"),
        Attach::Xdp => (true, "XDP, as the file says"),
        Attach::Auto if known.is_physical() => (true, "XDP: a physical device whose driver has it"),
        Attach::Auto => {
            (false, "no XDP: of a virtual device it would take away segmentation and checksum offload")
        }
    };
    Ok((Hooks { kind, clsact, xdp }, format!("{tc}; {why}")))
}
