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

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a driver can say of XDP: basic, redirect, being redirected to, in several buffers both ways.
    const ALL: u64 = 0b110_0111;
    /// The same of single buffers.
    const SINGLE: u64 = 0b000_0111;

    fn known(device: Option<(&str, &str)>, driver: Option<&str>, features: u64) -> Known {
        let interface = Interface {
            index: 7,
            name: "wan".to_owned(),
            layer: Layer::Ethernet,
            up: true,
            mtu: 1500,
            address: [2, 0, 0, 0, 0, 1],
            master: None,
            made_by: None,
            device: device.map(|(bus, name)| (bus.to_owned(), name.to_owned())),
        };
        Known { interface, features: Features::of(features), driver: driver.map(str::to_owned) }
    }

    /// Hooks as `tcx`, `clsact+xdp`, and why.
    fn chosen(known: &Known, attach: Attach, tcx: bool) -> (String, String) {
        let settings = EbpfSettings { attach, ..EbpfSettings::default() };
        match choose(known, &settings, tcx) {
            Err(why) => ("none".to_owned(), why),
            Ok((hooks, why)) => {
                let tc = if hooks.clsact { "clsact" } else { "tcx" };
                (if hooks.xdp { format!("{tc}+xdp") } else { tc.to_owned() }, why)
            }
        }
    }

    #[test]
    fn auto_takes_xdp_on_hardware_only_and_where_its_driver_has_all_of_it() {
        const PCI: Option<(&str, &str)> = Some(("pci", "0000:01:00.0"));
        for (device, driver, features, hooks, why) in [
            (PCI, Some("ixgbe"), ALL, "tcx+xdp", "a physical device"),
            (PCI, Some("mlx5_core"), ALL, "tcx+xdp", "a physical device"),
            (Some(("platform", "eth")), Some("mvneta"), ALL, "tcx+xdp", "a physical device"),
            (PCI, Some("ixgbe"), SINGLE, "tcx", "one buffer only"),
            (PCI, Some("r8169"), 0, "tcx", "none of its own"),
            // Runs programs, but not to other interfaces.
            (PCI, Some("some"), 1, "tcx", "none of its own"),
            // Clouds.
            (PCI, Some("ena"), ALL, "tcx", "a virtual device"),
            (PCI, Some("gve"), ALL, "tcx", "a virtual device"),
            (PCI, Some("vmxnet3"), ALL, "tcx", "a virtual device"),
            (Some(("virtio", "virtio1")), Some("virtio_net"), ALL, "tcx", "a virtual device"),
            // What no bus has, and what no driver has.
            (None, None, ALL, "tcx", "a virtual device"),
            (PCI, None, ALL, "tcx", "a virtual device"),
        ] {
            let (got, words) = chosen(&known(device, driver, features), Attach::Auto, true);
            assert_eq!(got, hooks, "{driver:?} on {device:?}: {words}");
            assert!(words.contains(why), "{driver:?} on {device:?}: {words}");
        }
    }

    #[test]
    fn the_file_has_its_way_as_far_as_the_driver_can() {
        let veth = known(None, None, ALL);
        assert_eq!(chosen(&veth, Attach::Xdp, true).0, "tcx+xdp");
        assert_eq!(chosen(&known(None, None, SINGLE), Attach::Xdp, true).0, "tcx");
        let card = known(Some(("pci", "0000:01:00.0")), Some("ixgbe"), ALL);
        assert_eq!(chosen(&card, Attach::Tc, true).0, "tcx");
        assert_eq!(
            chosen(&card, Attach::Clsact, true),
            ("clsact".to_owned(), "clsact, as the file says; no XDP, as the file says".to_owned())
        );
    }

    #[test]
    fn without_tcx_it_is_clsact() {
        let card = known(Some(("pci", "0000:01:00.0")), Some("ixgbe"), ALL);
        let veth = known(None, None, ALL);
        for (known, attach, hooks) in [
            (&card, Attach::Auto, "clsact+xdp"),
            (&card, Attach::Tc, "clsact"),
            (&veth, Attach::Auto, "clsact"),
            (&veth, Attach::Xdp, "clsact+xdp"),
        ] {
            let (got, why) = chosen(known, attach, false);
            assert!(got == hooks && why.contains("no tcx (Linux 6.6)"), "{attach:?}: {got}, {why}");
        }
    }

    #[test]
    fn what_is_not_served_says_why() {
        let veth = known(None, None, ALL);
        let with = |change: fn(&mut Interface)| {
            let mut known = veth.clone();
            change(&mut known.interface);
            chosen(&known, Attach::Auto, true)
        };
        for (change, hooks, why) in [
            ((|i| i.layer = Layer::Loopback) as fn(&mut Interface), "none", "never leaves this host"),
            (|i| i.layer = Layer::Other(778), "none", "ARPHRD 778"),
            (|i| i.master = Some(3), "none", "a port of interface 3"),
            (|i| i.up = false, "none", "down"),
            (|i| i.layer = Layer::Ip, "tcx", "no XDP without Ethernet headers"),
        ] {
            let (got, words) = with(change);
            assert!(got == hooks && words.contains(why), "{got}: {words}");
        }
        let settings = EbpfSettings {
            interfaces: vec![portway_core::address::InterfaceName::new("lan").unwrap()],
            ..EbpfSettings::default()
        };
        assert_eq!(choose(&veth, &settings, true).unwrap_err(), "not one of `interfaces`");
    }
}
