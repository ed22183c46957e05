//! The system calls that rustix does not cover: a few socket options, and recvmmsg/sendmmsg with their
//! control messages. The only file of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// The largest datagram, and the largest train of datagrams that UDP_GRO delivers at once.
pub const DATAGRAM: usize = 65_536;
/// Datagrams (or trains) per system call.
pub const BATCH: usize = 32;
const CONTROL: usize = 16;

fn set_option<T>(fd: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of its size, and the kernel copies it before it returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// IP_BIND_ADDRESS_NO_PORT: bind() fixes the address only; connect() picks the port, which may then be shared
/// between different destinations. Works on IPv6 sockets as well.
pub fn bind_address_no_port(fd: impl AsFd) -> io::Result<()> {
    set_option(fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1i32)
}

/// SO_BINDTODEVICE.
pub fn bind_to_device(fd: impl AsFd, interface: &str) -> io::Result<()> {
    let mut name = [0u8; libc::IFNAMSIZ];
    let bytes = interface.as_bytes();
    let room = name.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(bytes);
    set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name)
}

/// IP_PKTINFO or IPV6_RECVPKTINFO: every datagram comes with the address it was sent to.
pub fn receive_destination(fd: impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        set_option(fd, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, &1i32)
    } else {
        set_option(fd, libc::SOL_IP, libc::IP_PKTINFO, &1i32)
    }
}

/// UDP_GRO: equal datagrams of one sender may be received as one train (Linux 5.0).
pub fn udp_gro(fd: impl AsFd) -> io::Result<()> {
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, &1i32)
}

/// A received datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes.
    pub len: usize,
    /// The sender, where the socket is not connected.
    pub peer: Option<SocketAddr>,
    /// The address it was sent to, where asked for.
    pub local: Option<IpAddr>,
    /// The interface it came in on, where asked for; else 0.
    pub interface: u32,
    /// The length of each datagram of a train; the last may be shorter.
    pub segment: Option<u16>,
    /// Whether bytes were cut off.
    pub truncated: bool,
}

/// Buffers for [`BATCH`] datagrams. 2 MiB of address space, of which only what was ever filled is resident.
pub struct Receiver {
    data: Vec<u8>,
    received: Vec<Received>,
}

impl Receiver {
    /// Empty buffers.
    pub fn new() -> Self {
        Self { data: vec![0; BATCH * DATAGRAM], received: Vec::with_capacity(BATCH) }
    }

    /// Receives up to [`BATCH`] datagrams without waiting and says how many.
    pub fn receive(&mut self, fd: impl AsFd) -> io::Result<usize> {
        self.received.clear();
        let mut names = [MaybeUninit::<libc::sockaddr_storage>::uninit(); BATCH];
        let mut controls = [[0u64; CONTROL]; BATCH];
        let base = self.data.as_mut_ptr();
        let mut vectors: [libc::iovec; BATCH] = std::array::from_fn(|i| libc::iovec {
            // The offset stays inside `data`, which is BATCH * DATAGRAM bytes long.
            iov_base: base.wrapping_add(i * DATAGRAM).cast(),
            iov_len: DATAGRAM,
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|i| {
            // SAFETY: all fields of mmsghdr are integers and pointers, for which zero is valid.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = names[i].as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_hdr.msg_iov = &raw mut vectors[i];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL]>();
            header
        });
        // SAFETY: every header points to its own name, vector, control buffer and data range, all of which
        // outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (header, name) in headers.iter().zip(&names).take(count) {
            let mut received = Received {
                len: (header.msg_len as usize).min(DATAGRAM),
                peer: decode_address(name, header.msg_hdr.msg_namelen),
                local: None,
                interface: 0,
                segment: None,
                truncated: header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
            };
            decode_control(&header.msg_hdr, &mut received);
            self.received.push(received);
        }
        Ok(count)
    }

    /// What the last call received.
    pub fn iter(&self) -> impl Iterator<Item = (&Received, &[u8])> {
        self.received.iter().enumerate().map(|(i, r)| (r, &self.data[i * DATAGRAM..i * DATAGRAM + r.len]))
    }
}

fn decode_address(name: &MaybeUninit<libc::sockaddr_storage>, len: u32) -> Option<SocketAddr> {
    if (len as usize) < size_of::<libc::sockaddr_in>() {
        return None;
    }
    // SAFETY: the kernel wrote at least a sockaddr_in, which begins with the family.
    let family = unsafe { (*name.as_ptr()).ss_family };
    if i32::from(family) == libc::AF_INET {
        // SAFETY: the family says sockaddr_in, and its length has been checked.
        let a = unsafe { *name.as_ptr().cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr));
        return Some(SocketAddrV4::new(ip, u16::from_be(a.sin_port)).into());
    }
    if i32::from(family) == libc::AF_INET6 && len as usize >= size_of::<libc::sockaddr_in6>() {
        // SAFETY: the family says sockaddr_in6, and its length has been checked.
        let a = unsafe { *name.as_ptr().cast::<libc::sockaddr_in6>() };
        let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
        return Some(SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id).into());
    }
    None
}

fn decode_control(header: &libc::msghdr, received: &mut Received) {
    // SAFETY: `header` is as the kernel left it, its control buffer is alive and aligned for cmsghdr.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so a whole cmsghdr inside the control buffer.
        let (kind, data) =
            unsafe { (((*message).cmsg_level, (*message).cmsg_type), libc::CMSG_DATA(message)) };
        match kind {
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel's payload for this type.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                received.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                received.interface = info.ipi_ifindex as u32;
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel's payload for this type.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                received.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                received.interface = info.ipi6_ifindex;
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel's payload for this type is an int.
                let size = unsafe { data.cast::<i32>().read_unaligned() };
                received.segment = u16::try_from(size).ok().filter(|s| *s > 0);
            }
            _ => {}
        }
        // SAFETY: `message` came from the same header.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
}

/// A datagram to send, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// The receiver, where the socket is not connected.
    pub to: Option<SocketAddr>,
    /// The local address and (for link-local addresses, else 0) interface to send from.
    pub from: Option<(IpAddr, u32)>,
    /// The length of each datagram of a train (UDP_SEGMENT, Linux 4.18).
    pub segment: Option<u16>,
}

fn encode_address(address: SocketAddr, name: &mut MaybeUninit<libc::sockaddr_storage>) -> u32 {
    match address {
        SocketAddr::V4(a) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*a.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than and aligned for every sockaddr.
            unsafe { name.as_mut_ptr().cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>() as u32
        }
        SocketAddr::V6(a) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            // SAFETY: sockaddr_storage is larger than and aligned for every sockaddr.
            unsafe { name.as_mut_ptr().cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>() as u32
        }
    }
}

/// Appends one control message at `used` bytes and returns the new length.
fn encode_control<T>(control: &mut [u64; CONTROL], used: usize, level: i32, kind: i32, value: T) -> usize {
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) =
        unsafe { (libc::CMSG_SPACE(size_of::<T>() as u32), libc::CMSG_LEN(size_of::<T>() as u32)) };
    let end = used + space as usize;
    assert!(end <= size_of_val(control), "invariant: pktinfo and segment size fit in the control buffer");
    let message = control.as_mut_ptr().cast::<u8>().wrapping_add(used).cast::<libc::cmsghdr>();
    // SAFETY: the assertion above keeps the message inside `control`; `used` is a sum of CMSG_SPACEs, which
    // are multiples of cmsghdr's alignment.
    unsafe {
        message.write(libc::cmsghdr { cmsg_len: len as usize, cmsg_level: level, cmsg_type: kind });
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
    }
    end
}

/// Sends up to [`BATCH`] datagrams without waiting and says how many were taken; an error is the first
/// datagram's.
pub fn send(fd: impl AsFd, datagrams: &[Datagram<'_>]) -> io::Result<usize> {
    let count = datagrams.len().min(BATCH);
    let mut names = [MaybeUninit::<libc::sockaddr_storage>::uninit(); BATCH];
    let mut controls = [[0u64; CONTROL]; BATCH];
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|i| {
        // SAFETY: all fields of mmsghdr are integers and pointers, for which zero is valid.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let Some(datagram) = datagrams.get(i) else { return header };
        vectors[i] =
            libc::iovec { iov_base: datagram.data.as_ptr().cast_mut().cast(), iov_len: datagram.data.len() };
        header.msg_hdr.msg_iov = &raw mut vectors[i];
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = datagram.to {
            header.msg_hdr.msg_namelen = encode_address(to, &mut names[i]);
            header.msg_hdr.msg_name = names[i].as_mut_ptr().cast();
        }
        let mut used = 0;
        match datagram.from {
            Some((IpAddr::V4(address), interface)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: interface as i32,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(address).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                used = encode_control(&mut controls[i], used, libc::SOL_IP, libc::IP_PKTINFO, info);
            }
            Some((IpAddr::V6(address), interface)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                    ipi6_ifindex: interface as _,
                };
                used = encode_control(&mut controls[i], used, libc::SOL_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if let Some(segment) = datagram.segment {
            used = encode_control(&mut controls[i], used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        if used > 0 {
            header.msg_hdr.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = used;
        }
        header
    });
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers point to names, vectors, control buffers and data that outlive the call;
    // the kernel only reads the data.
    let sent = unsafe { libc::sendmmsg(fd.as_fd().as_raw_fd(), headers.as_mut_ptr(), count as u32, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
