//! Programs on packets that are made up (BPF_PROG_TEST_RUN): for tests and the benchmark, in no daemon.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::object::{Kind, Programs};
use crate::pins::Pins;
use crate::sys;

pub use crate::sys::Ran;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `tc_ethernet`.
    TcEthernet,
    /// `tc_ip`.
    TcIp,
    /// `xdp_ethernet`.
    XdpEthernet,
}

/// The programs on the maps that an engine has pinned for the calling thread's network namespace.
pub struct Trial(Programs);

impl Trial {
    /// Loads programs of their own on the maps of the engine that runs in this namespace.
    ///
    /// # Errors
    /// There are no maps, or the kernel's.
    pub fn new() -> io::Result<Self> {
        let maps = Pins::here()?.maps();
        if !maps.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::on(&maps)
    }

    fn on(maps: &Path) -> io::Result<Self> {
        let entries = crate::maps::Room::LEAST.entries();
        Programs::new(maps, &entries).map(Self).map_err(io::Error::other)
    }

    /// Runs a program on a packet; `context` is the beginning of its context, as far as it is not zero.
    ///
    /// # Errors
    /// The verifier's, and the kernel's.
    pub fn run(&mut self, program: Program, packet: &[u8], context: &[u8], repeat: u32) -> io::Result<Ran> {
        let kind = match program {
            Program::TcEthernet => Kind::Ethernet,
            Program::TcIp => Kind::Ip,
            Program::XdpEthernet => Kind::Xdp,
        };
        let program = self.0.get(kind).map_err(io::Error::other)?;
        sys::test_run(program.as_fd(), packet, context, repeat)
    }
}

/// Attaches a program of somebody else's to an interface by tcx: it lets everything pass, and goes with the descriptor.
///
/// # Errors
/// The kernel's.
pub fn bystander(interface: u32) -> io::Result<std::os::fd::OwnedFd> {
    /// `TCX_NEXT`
    const NEXT: i32 = -1;
    let program = sys::load_trivial(sys::program::SCHED_CLS, NEXT)?;
    sys::link_create(program.as_fd(), interface, sys::place::TCX_INGRESS, 0)
}

/// The same at XDP, where there is room for one only.
///
/// # Errors
/// The kernel's.
pub fn xdp_bystander(interface: u32) -> io::Result<std::os::fd::OwnedFd> {
    /// `XDP_PASS`
    const PASS: i32 = 2;
    let program = sys::load_trivial(sys::program::XDP, PASS)?;
    sys::link_create(program.as_fd(), interface, sys::place::XDP, sys::XDP_NATIVE)
}

/// What the maps of the engine that runs in this namespace have of an interface; nothing of one that is not served.
///
/// # Errors
/// The kernel's.
pub fn port(interface: u32) -> io::Result<Option<portway_datapath::abi::Port>> {
    let maps = crate::maps::Maps::open(&Pins::here()?.maps())?;
    match maps.interfaces.get(&interface)? {
        Some(number) => maps.ports.get(&number),
        None => Ok(None),
    }
}
