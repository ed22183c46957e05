//! A walk: the program of `ebpf/src/bin/walk.rs` in front of one of the engine's, run by `BPF_PROG_TEST_RUN`.
//!
//! The engine's program is the very one that is attached, with the maps of the running daemon. Deliberately absent: what
//! the figures mean.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, MapData, MapInfo, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, TestRun, TestRunOptions, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};

use crate::flows::Step;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../object/walk.o");

/// Where the measured program hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// At TC.
    Tc,
    /// In the driver.
    Xdp,
}

impl Hook {
    /// The engine's program, and the walk's for it: that goes in front, the target that does nothing, and the one that only
    /// asks for the route.
    const fn programs(self) -> [&'static str; 4] {
        match self {
            Self::Tc => ["tc_ethernet", "tc_walk", "tc_nothing", "tc_asks"],
            Self::Xdp => ["xdp_ethernet", "xdp_walk", "xdp_nothing", "xdp_asks"],
        }
    }

    /// What a program returns that sends a packet on its way: `TC_ACT_REDIRECT`, `XDP_REDIRECT` (`XDP_TX` is for the
    /// same interface, which no flow here leaves by).
    const fn sent(self) -> u32 {
        match self {
            Self::Tc => 7,
            Self::Xdp => 4,
        }
    }

    /// What it returns when it drops one: `TC_ACT_SHOT`, `XDP_DROP`.
    pub const fn dropped(self) -> u32 {
        match self {
            Self::Tc => 2,
            Self::Xdp => 1,
        }
    }
}

/// Who comes behind the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A program that does nothing.
    Nothing,
    /// One that asks the kernel for the route and the next hop, and does nothing else.
    Question,
    /// The engine's.
    Engine,
}

/// One interface of the gateway, and the next hop's view of it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its index.
    pub interface: u32,
    /// Its link address.
    pub link: [u8; 6],
    /// Where to packets that arrive there leave.
    pub to: Ipv4Addr,
}

/// Bytes of a packet: headers, and what fills the shortest frame.
const FRAME: usize = 60;
/// Of these, what IP counts.
pub const PACKET: u64 = FRAME as u64 - 14;

/// The walk, loaded in front of a running engine.
pub struct Walk {
    hook: Hook,
    programs: Ebpf,
    walk: Array<MapData, [u32; 10]>,
    steps: Array<MapData, Step>,
    target: ProgramArray<MapData>,
    engine: ProgramFd,
    count: u32,
}

impl Walk {
    /// Loads it, with room for so many steps, beside the engine whose maps are pinned there.
    ///
    /// # Panics
    /// When the kernel refuses, or no such engine runs.
    pub fn load(hook: Hook, pins: &Path, room: u32) -> Self {
        let config = pins.join("config");
        let [engine, walk, nothing, asks] = hook.programs();
        let id = MapInfo::from_pin(&config).unwrap_or_else(|e| panic!("{}: {e}", config.display())).id();
        let engine =
            newest(engine, id).unwrap_or_else(|| panic!("no {engine} is loaded with that configuration"));
        let mut programs = EbpfLoader::new()
            .map_max_entries("steps", room)
            .map_pin_path("config", &*config)
            .load(OBJECT)
            .unwrap_or_else(|e| panic!("load the walk: {e}"));
        for name in [walk, nothing, asks] {
            let program = programs.program_mut(name).expect("the object has it");
            let loaded = match hook {
                Hook::Tc => <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load),
                Hook::Xdp => <&mut Xdp>::try_from(program).and_then(Xdp::load),
            };
            loaded.unwrap_or_else(|e| panic!("load {name}: {e}"));
        }
        let mut take = |name| programs.take_map(name).expect("the object has it");
        let (walk, steps, target) = (take("walk"), take("steps"), take("target"));
        Self {
            hook,
            walk: walk.try_into().expect("an array of that size"),
            steps: steps.try_into().expect("an array of that size"),
            target: target.try_into().expect("an array of programs"),
            engine: engine.fd().unwrap_or_else(|e| panic!("a descriptor of the engine's program: {e}")),
            programs,
            count: 0,
        }
    }

    /// The steps from now on.
    ///
    /// # Panics
    /// When there are more than room was made for.
    pub fn steps(&mut self, steps: impl ExactSizeIterator<Item = Step>) {
        self.count = u32::try_from(steps.len()).expect("room for them");
        for (index, step) in (0..).zip(steps) {
            self.steps.set(index, step, 0).unwrap_or_else(|e| panic!("step {index}: {e}"));
        }
    }

    /// Walks so many rounds, and says how long a packet took. With `ask`, the engine asks for its route with every packet.
    ///
    /// # Panics
    /// When the last packet was not treated as `verdict` says, which stands for what the engine must return.
    pub fn run(
        &mut self,
        behind: Behind,
        at: Arrival,
        rounds: u32,
        ask: bool,
        verdict: Option<u32>,
    ) -> Duration {
        let [engine, walk, nothing, asks] = self.hook.programs();
        let (target, wanted) = match behind {
            Behind::Engine => (&self.engine, Some(verdict.unwrap_or(self.hook.sent()))),
            Behind::Question => (fd(&self.programs, self.hook, asks), Some(self.hook.sent())),
            Behind::Nothing => (fd(&self.programs, self.hook, nothing), None),
        };
        self.target.set(0, target, 0).unwrap_or_else(|e| panic!("{behind:?} behind {walk}: {e}"));
        let link = [
            [at.link[0], at.link[1], at.link[2], at.link[3]],
            [at.link[4], at.link[5], 2, 0],
            [0, 0, 0, 9],
            [8, 0, 0, 0],
        ];
        let [a, b, c, d] = link.map(u32::from_ne_bytes);
        let to = u32::from_ne_bytes(at.to.octets());
        let state = [0, self.count, u32::from(ask), at.interface, to, 0, a, b, c, d];
        self.walk.set(0, state, 0).expect("the array has one element");
        let (packet, context) = (frame(at), self.hook_context(at.interface));
        let mut after = packet;
        let options = TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut after),
            ctx_in: Some(&context),
            repeat: rounds * self.count,
            ..TestRunOptions::default()
        };
        let program = self.programs.program(walk).expect("loaded above");
        let ran = match self.hook {
            Hook::Tc => <&SchedClassifier>::try_from(program).and_then(|program| program.test_run(options)),
            Hook::Xdp => <&Xdp>::try_from(program).and_then(|program| program.test_run(options)),
        };
        let ran = ran.unwrap_or_else(|e| panic!("run {walk} before {engine}: {e}"));
        if let Some(wanted) = wanted {
            assert_eq!(
                ran.return_value, wanted,
                "{behind:?} behind {walk} has not done what it should with {after:02x?}"
            );
        }
        ran.duration
    }

    /// The program's context (`struct __sk_buff`, `struct xdp_md`), as far as it is not zero: the interface of arrival.
    fn hook_context(&self, interface: u32) -> Vec<u8> {
        let mut words = match self.hook {
            // ingress_ifindex and ifindex are words 9 and 10.
            Hook::Tc => [0; 48].to_vec(),
            // data_end is word 1, ingress_ifindex word 3.
            Hook::Xdp => vec![0, FRAME as u32, 0, interface, 0, 0],
        };
        if self.hook == Hook::Tc {
            words[10] = interface;
        }
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }
}

/// The frame that the walk writes its headers into: what no step changes, and for whom it is, which the kernel looks at
/// once before the run.
fn frame(at: Arrival) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&at.link);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, PACKET as u8, 0, 1, 0x40, 0, 64, 6]);
    // The window, and how long TCP's header is.
    frame[46] = 0x50;
    frame[48..50].copy_from_slice(&[0xff, 0xff]);
    frame
}

/// The program of that name that was loaded last with that map.
fn newest(name: &str, map: u32) -> Option<ProgramInfo> {
    let loaded = loaded_programs().flatten().filter(|info| info.name_as_str() == Some(name));
    let ours = loaded.filter(|info| matches!(info.map_ids(), Ok(Some(maps)) if maps.contains(&map)));
    ours.max_by_key(ProgramInfo::id)
}

fn fd<'p>(programs: &'p Ebpf, hook: Hook, name: &str) -> &'p ProgramFd {
    let program = programs.program(name).expect("loaded above");
    let fd = match hook {
        Hook::Tc => <&SchedClassifier>::try_from(program).and_then(|program| program.fd()),
        Hook::Xdp => <&Xdp>::try_from(program).and_then(|program| program.fd()),
    };
    fd.unwrap_or_else(|e| panic!("{name} was loaded: {e}"))
}
