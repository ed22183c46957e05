//! Sending datagrams and trains: what the kernel does not take is dropped and counted.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use crate::sys::{self, Datagram};

/// What became of some datagrams.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) dropped: u64,
    /// Whether the peer's host has refused an earlier datagram.
    pub(super) refused: bool,
}

/// Sends all datagrams, dropping and counting those that the kernel does not take.
pub(super) fn send(fd: &OwnedFd, mut datagrams: &[Datagram<'_>]) -> Sent {
    let mut sent = Sent::default();
    while let Some(first) = datagrams.first() {
        match sys::send(fd, datagrams) {
            Ok(count) => {
                sent.bytes += datagrams[..count].iter().map(|d| d.data.len() as u64).sum::<u64>();
                datagrams = &datagrams[count..];
                continue;
            }
            Err(error) => match (error.kind(), first.segment) {
                (ErrorKind::Interrupted, _) => continue,
                // The error belongs to an earlier datagram; asking for it has cleared it.
                (ErrorKind::ConnectionRefused, _) if !sent.refused => {
                    sent.refused = true;
                    continue;
                }
                (ErrorKind::WouldBlock, _) => {
                    sent.dropped += datagrams.len() as u64;
                    return sent;
                }
                // A train that this path does not take (no offload, smaller MTU): one by one.
                (_, Some(segment)) => {
                    for data in first.data.chunks(usize::from(segment)) {
                        match sys::send(fd, &[Datagram { data, segment: None, ..*first }]) {
                            Ok(_) => sent.bytes += data.len() as u64,
                            Err(_) => sent.dropped += 1,
                        }
                    }
                }
                (_, None) => sent.dropped += 1,
            },
        }
        datagrams = &datagrams[1..];
    }
    sent
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::time::Duration;

    use portway_core::address::{PortRange, Protocol};
    use portway_core::engine::Engine;
    use portway_core::plan::proxy::{Plan, PoolPlan, RulePlan, Settings, Socket, Source};
    use portway_core::ruleset::{RuleName, Scope, Timeouts};

    use super::*;

    /// Here and not with the other tests of UDP because sending a train takes this crate's own system calls.
    #[test]
    fn trains_arrive_as_the_datagrams_they_were() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let backend = server.local_addr().unwrap();
        // It answers each datagram, so its answers tell where one ended.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                server.send_to(&buffer[..length], from).unwrap();
            }
        });
        let listen = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket =
            Socket { protocol: Protocol::Udp, scope: Scope::Address(listen.ip()), port: listen.port() };
        let rule = RulePlan {
            sockets: [(socket, PortRange::single(listen.port()).unwrap())].into(),
            pool: PoolPlan::to(backend),
            source: Source::Kernel,
            timeouts: Timeouts::default(),
            max_connections: None,
        };
        let mut engine = crate::ProxyEngine::new(|message| eprintln!("{message}"));
        let rules = [(RuleName::new("rule").unwrap(), rule)].into();
        engine.prepare(&Plan { settings: Settings::default(), rules }).unwrap();
        engine.commit().unwrap();

        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(listen).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Every datagram differs from every other by its first bytes.
        let data: Vec<u8> = (0..41u8).flat_map(|i| vec![i; if i < 40 { 1200 } else { 77 }]).collect();
        for round in 0..8 {
            let train = Datagram { data: &data, to: None, from: None, segment: Some(1200) };
            assert_eq!(sys::send(&client, &[train]).unwrap(), 1);
            let mut wanted: BTreeSet<&[u8]> = data.chunks(1200).collect();
            let mut buffer = vec![0; 65_536];
            while !wanted.is_empty() {
                let length = client.recv(&mut buffer).unwrap_or_else(|e| panic!("round {round}: {e}"));
                assert!(wanted.remove(&buffer[..length]), "round {round}: {length} bytes that nobody sent");
            }
        }
        let snapshot = engine.observer().unwrap().observe().unwrap();
        assert_eq!(snapshot.gauges["udp_dropped"], 0);
        assert_eq!(snapshot.rules["rule"].bytes_in, 8 * data.len() as u64);
    }
}
