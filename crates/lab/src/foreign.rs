//! Programs on a host's interfaces that are not Portway's: the smallest ones that let every packet pass.
//!
//! They hang on links that live as long as [`Foreign`]. Deliberately absent: a compiler. Two instructions need none.

use std::os::fd::OwnedFd;

use crate::{Namespace, sys};

/// `BPF_PROG_TYPE_SCHED_CLS`, `BPF_PROG_TYPE_XDP` (include/uapi/linux/bpf.h).
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
/// `BPF_XDP`, `BPF_TCX_INGRESS`: where the links attach.
const AT_XDP: u32 = 37;
const AT_TCX_INGRESS: u32 = 46;
/// `TCX_NEXT` is -1, `XDP_PASS` 2.
const TCX_NEXT: i32 = -1;
const XDP_PASS: i32 = 2;

/// A program on an interface, until it is dropped.
#[derive(Debug)]
pub struct Foreign {
    _link: OwnedFd,
}

impl Foreign {
    /// At the XDP hook, which holds one program.
    ///
    /// # Panics
    /// When another program is there.
    pub fn xdp(ns: &Namespace, interface: &str) -> Self {
        Self::attach(ns, interface, XDP, AT_XDP, XDP_PASS)
    }

    /// At the TC hook (tcx), which holds several.
    ///
    /// # Panics
    /// On kernels before 6.6.
    pub fn tcx(ns: &Namespace, interface: &str) -> Self {
        Self::attach(ns, interface, SCHED_CLS, AT_TCX_INGRESS, TCX_NEXT)
    }

    fn attach(ns: &Namespace, interface: &str, prog_type: u32, at: u32, verdict: i32) -> Self {
        let link = ns.enter(|| {
            let index = std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{interface}"));
            let index =
                index.expect("the interface exists and has IPv6").split_whitespace().nth(1).map(str::parse);
            let index = index.and_then(Result::ok).expect("the file begins with ifIndex");
            // r0 = verdict; exit. (Documentation/bpf/standardization/instruction-set.rst)
            let program = [0xb7 | u64::from(verdict.cast_unsigned()) << 32, 0x95];
            sys::load_program(prog_type, &program).and_then(|program| sys::link(program, index, at))
        });
        let link = link.unwrap_or_else(|e| panic!("a program on {interface} of {}: {e}", ns.name()));
        Self { _link: link }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;
    use crate::traffic::{Server, tcp_works};

    #[test]
    fn they_let_everything_pass() {
        let net = Topology::new();
        let _server = Server::tcp_echo(&net.gateway, "10.1.0.1:8000");
        let shown = || net.gateway.run("ip -d -o link show lan");
        let _tcx = Foreign::tcx(&net.gateway, "lan");
        let xdp = Foreign::xdp(&net.gateway, "lan");
        assert!(shown().contains("prog/xdp"), "{}", shown());
        tcp_works(net.client(), "10.1.0.1:8000");
        drop(xdp);
        assert!(!shown().contains("prog/xdp"), "{}", shown());
    }
}
