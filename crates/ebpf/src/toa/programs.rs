//! The programs: taken out of the object that is part of this program, given to the verifier, attached to a cgroup.

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, SockOps};
use aya::{Ebpf, EbpfLoader};
use portway_datapath::toa::names;

use super::kept::Kept;
use super::{Cgroup, Error};

/// What `ebpf/build` made of `ebpf/toa`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../object/toa.o");

const LOAD: &str = "load the programs (the kernel must be 6.6 or later, with CONFIG_CGROUP_BPF)";
const ATTACH: &str = "attach the programs to the cgroup";

/// A link shares the cgroup with other programs by itself, and takes no flag that says so (cgroup_bpf_link_attach in the
/// kernel's kernel/bpf/cgroup.c).
const SHARED: CgroupAttachMode = CgroupAttachMode::Single;

/// Loads the programs, on the maps that are kept where there are some.
pub(super) fn load(kept: &Kept) -> Result<Ebpf, Error> {
    // The networks are new each time: the programs before this go on believing theirs until they are replaced.
    EbpfLoader::new()
        .map_pin_path(names::CLIENTS, kept.path(names::CLIENTS))
        .map_pin_path(names::COUNTS, kept.path(names::COUNTS))
        .load(OBJECT)
        .map_err(Error::kernel("make the maps"))
}

/// Attaches all of them, beside what others have attached there. Dropped, the links detach them.
pub(super) fn attach(object: &mut Ebpf, cgroup: &Cgroup) -> Result<Vec<(&'static str, FdLink)>, Error> {
    let mut links = Vec::new();
    // The readers of socket storage first: what is written is then seen from the first connection on.
    for name in [names::PEER_V4, names::PEER_V6] {
        let program: &mut CgroupSockAddr = program(object, name)?;
        program.load().map_err(Error::kernel(LOAD))?;
        let link = program.attach(cgroup, SHARED).map_err(Error::kernel(ATTACH))?;
        let link = program.take_link(link).map_err(Error::kernel(ATTACH))?;
        links.push((name, link.try_into().map_err(Error::kernel(ATTACH))?));
    }
    let program: &mut SockOps = program(object, names::OPERATIONS)?;
    program.load().map_err(Error::kernel(LOAD))?;
    let link = program.attach(cgroup, SHARED).map_err(Error::kernel(ATTACH))?;
    let link = program.take_link(link).map_err(Error::kernel(ATTACH))?;
    links.push((names::OPERATIONS, link.try_into().map_err(Error::kernel(ATTACH))?));
    Ok(links)
}

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    object.program_mut(name).and_then(|program| <&mut P>::try_from(program).ok()).ok_or(Error::Object(name))
}
