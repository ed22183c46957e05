//! Programs on interfaces: attached, replaced between two packets, found again after a restart, detached.
//!
//! What is attached is pinned, so it stays when the daemon ends, and the pins are the only record of it:
//! `<index>-tcx` and `<index>-xdp` are links. A clsact filter is no object that could be pinned; `<index>-clsact` is the
//! program that it runs, and `<index>-qdisc` says that the queueing discipline is ours too. Deliberately absent: which
//! interfaces, and what is chosen for them ([`crate::choice`]).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use crate::object::{Kind, Programs};
use crate::pins::Pins;
use crate::route::Route;
use crate::sys;

/// Where programs hang on one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// The program for TC.
    pub kind: Kind,
    /// Whether TC by the clsact queueing discipline rather than by a tcx link.
    pub clsact: bool,
    /// Whether XDP as well.
    pub xdp: bool,
}

/// Something that was to be done and what came back.
#[derive(Debug)]
pub struct Failed {
    /// What was being done.
    pub doing: String,
    /// What came back.
    pub reason: String,
}

impl Failed {
    /// With the kernel's words.
    pub fn new(doing: impl Into<String>, error: impl ToString) -> Self {
        Self { doing: doing.into(), reason: error.to_string() }
    }
}

/// What hangs where, by what is pinned.
pub struct Attachments {
    links: PathBuf,
    route: Route,
}

impl Attachments {
    /// Those of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self { links: pins.links(), route: Route::open()? })
    }

    /// The indices of the interfaces that something hangs on, or did until they went.
    pub fn interfaces(&self) -> BTreeSet<u32> {
        let index = |name: &String| name.split('-').next().and_then(|index| index.parse().ok());
        Pins::names(&self.links).iter().filter_map(index).collect()
    }

    /// Whether an XDP program hangs on an interface.
    pub fn has_xdp(&self, interface: u32) -> bool {
        self.pin(interface, "xdp").exists()
    }

    /// Whether a TC program hangs on an interface: a link that still leads there, or our filter.
    pub fn has_tc(&self, interface: u32) -> bool {
        if self.pin(interface, "clsact").exists() {
            return true;
        }
        let link = sys::get(&self.pin(interface, "tcx"));
        link.and_then(|link| sys::link_info(link.as_fd())).is_ok_and(|(_, attached)| attached == interface)
    }

    fn pin(&self, interface: u32, place: &str) -> PathBuf {
        self.links.join(format!("{interface}-{place}"))
    }

    /// Attaches the programs to an interface, or puts them in the place of those of an earlier daemon; then takes away what
    /// hangs elsewhere on it.
    ///
    /// # Errors
    /// What failed; what hung there before still does.
    pub fn attach(&mut self, interface: u32, hooks: Hooks, programs: &mut Programs) -> Result<(), Failed> {
        let load = |error| Failed::new("load a program", error);
        let program = programs.get(hooks.kind).map_err(load)?;
        if hooks.clsact {
            let set = self.set_clsact(interface, program);
            set.map_err(|error| Failed::new(format!("attach to interface {interface} by clsact"), error))?;
        } else {
            let set = self.set_link(interface, "tcx", program, sys::place::TCX_INGRESS, 0);
            set.map_err(|error| Failed::new(format!("attach to interface {interface} by tcx"), error))?;
        }
        if hooks.xdp {
            let program = programs.get(Kind::Xdp).map_err(load)?;
            let set = self.set_link(interface, "xdp", program, sys::place::XDP, sys::XDP_NATIVE);
            set.map_err(|error| Failed::new(format!("attach to interface {interface} by XDP"), error))?;
        } else {
            self.remove_link(interface, "xdp");
        }
        if hooks.clsact {
            self.remove_link(interface, "tcx");
        } else {
            self.remove_clsact(interface);
        }
        Ok(())
    }

    /// Takes everything away from an interface, which may have gone.
    pub fn detach(&mut self, interface: u32) {
        self.remove_link(interface, "xdp");
        self.remove_link(interface, "tcx");
        self.remove_clsact(interface);
    }

    fn set_link(
        &self,
        interface: u32,
        place: &str,
        program: BorrowedFd<'_>,
        attach: u32,
        flags: u32,
    ) -> io::Result<()> {
        let pin = self.pin(interface, place);
        if let Ok(link) = sys::get(&pin) {
            // An index is not used twice, but a link whose interface went has nothing to update.
            if sys::link_info(link.as_fd()).is_ok_and(|(_, attached)| attached == interface) {
                return sys::link_update(link.as_fd(), program);
            }
            fs::remove_file(&pin)?;
        }
        let link = sys::link_create(program, interface, attach, flags)?;
        sys::pin(link.as_fd(), &pin)
    }

    fn remove_link(&self, interface: u32, place: &str) {
        let pin = self.pin(interface, place);
        if let Ok(link) = sys::get(&pin) {
            // Unpinned only, it would go a moment later. That it went with its interface is no error.
            let _ = sys::link_detach(link.as_fd());
            let _ = fs::remove_file(&pin);
        }
    }

    fn set_clsact(&mut self, interface: u32, program: BorrowedFd<'_>) -> io::Result<()> {
        if !self.route.has_clsact(interface)? {
            self.route.add_clsact(interface)?;
            self.replace_pin(interface, "qdisc", program)?;
        } else if self.pin(interface, "qdisc").exists() {
            // Or it would keep the former program for ever.
            self.replace_pin(interface, "qdisc", program)?;
        }
        self.route.set_filter(interface, program)?;
        self.replace_pin(interface, "clsact", program)
    }

    fn replace_pin(&self, interface: u32, place: &str, program: BorrowedFd<'_>) -> io::Result<()> {
        let pin = self.pin(interface, place);
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sys::pin(program, &pin)
    }

    fn remove_clsact(&mut self, interface: u32) {
        let (filter, qdisc) = (self.pin(interface, "clsact"), self.pin(interface, "qdisc"));
        if filter.exists() {
            let _ = self.route.delete_filter(interface);
            let _ = fs::remove_file(&filter);
        }
        if qdisc.exists() {
            // Others may have put their filters there since.
            if self.route.filters(interface).is_ok_and(|count| count == 0) {
                let _ = self.route.delete_clsact(interface);
            }
            let _ = fs::remove_file(&qdisc);
        }
    }
}
