//! A DNS server that does as it is told: answers that change, fail or never come, and a count of who asked for what.
//!
//! Authoritative for everything, over UDP and TCP (RFC 1035). An answer too large for the asker's datagram is cut and
//! marked so, and the asker has to come back over TCP. Deliberately absent: name compression, DNSSEC, zones.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Namespace;

mod message;

use message::{Question, encode_name};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// How questions are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As the records say; a name without any does not exist (NXDOMAIN).
    #[default]
    Well,
    /// SERVFAIL, whatever is asked.
    ServFail,
    /// NXDOMAIN, whatever is asked.
    NoSuchName,
    /// Never.
    Silent,
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug)]
pub struct Srv {
    /// A higher number is for when all lower ones are down.
    pub priority: u16,
    /// The share among records of one priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host, a name with addresses of its own.
    pub host: &'static str,
}

/// All records of a name and a type: their time to live, in seconds, and the data of each.
type Records = (u32, Vec<Vec<u8>>);

/// What the server knows, and how it feels.
#[derive(Debug, Default)]
struct State {
    /// By name and type.
    records: BTreeMap<(String, u16), Records>,
    asked: BTreeMap<String, u64>,
    asked_by_tcp: u64,
    mood: Mood,
}

/// A running server, ended on drop.
#[derive(Debug)]
pub struct Dns {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

impl Dns {
    /// Starts it on an address, over UDP and TCP.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn start(ns: &Namespace, on: &str) -> Self {
        let (socket, listener) = (ns.bind(on), ns.listen(on));
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a positive time");
        let (state, stop) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let accepting = listener.try_clone().expect("a descriptor is free");
        let threads = vec![
            thread::spawn({
                let (state, stop) = (state.clone(), stop.clone());
                move || serve_udp(&socket, &state, &stop)
            }),
            thread::spawn({
                let (state, stop) = (state.clone(), stop.clone());
                move || {
                    while let Ok((stream, _)) = accepting.accept() {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let state = state.clone();
                        thread::spawn(move || serve_tcp(stream, &state));
                    }
                }
            }),
        ];
        Self { state, stop, listener, threads }
    }

    /// Gives a name these addresses, of both families, and no others. None at all: the name exists and has none.
    ///
    /// # Panics
    /// On a text that is no address.
    pub fn addresses(&self, name: &str, addresses: &[&str], ttl: u32) {
        let parsed: Vec<IpAddr> =
            addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let of = |v4: bool| parsed.iter().filter(move |address| address.is_ipv4() == v4);
        let data = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut state = self.state();
        state.records.insert((name.to_owned(), A), (ttl, of(true).map(data).collect()));
        state.records.insert((name.to_owned(), AAAA), (ttl, of(false).map(data).collect()));
    }

    /// Gives a service these records and no others.
    pub fn service(&self, name: &str, records: &[Srv], ttl: u32) {
        let data = |record: &Srv| {
            let numbers = [record.priority, record.weight, record.port];
            let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
            data.extend(encode_name(record.host));
            data
        };
        self.state().records.insert((name.to_owned(), SRV), (ttl, records.iter().map(data).collect()));
    }

    /// Forgets a name: it does not exist any more.
    pub fn forget(&self, name: &str) {
        self.state().records.retain(|(known, _), _| known != name);
    }

    /// How questions are answered from now on.
    pub fn feel(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// How often a name was asked for, whatever the type and the answer.
    pub fn asked(&self, name: &str) -> u64 {
        self.state().asked.get(name).copied().unwrap_or(0)
    }

    /// How many questions came over TCP.
    pub fn asked_by_tcp(&self) -> u64 {
        self.state().asked_by_tcp
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes accept(), which then fails with EINVAL (Linux).
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, state: &Mutex<State>, stop: &AtomicBool) {
    let mut query = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
        let answer = state.lock().expect("no holder panics").answer(&query[..length], false);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

/// Messages with two bytes of length before each (RFC 1035, section 4.2.2).
fn serve_tcp(mut stream: TcpStream, state: &Mutex<State>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        let Some(answer) = state.lock().expect("no holder panics").answer(&query, true) else { continue };
        let length = u16::try_from(answer.len()).expect("the lab's answers are small").to_be_bytes();
        if stream.write_all(&[&length[..], &answer].concat()).is_err() {
            return;
        }
    }
}

impl State {
    /// The answer to a query; none to one that makes no sense, and none out of a [`Mood::Silent`].
    fn answer(&mut self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let question = Question::read(query)?;
        *self.asked.entry(question.name.clone()).or_default() += 1;
        self.asked_by_tcp += u64::from(tcp);
        let exists = self.records.keys().any(|(name, _)| *name == question.name);
        let code = match self.mood {
            Mood::Silent => return None,
            Mood::ServFail => 2,
            Mood::NoSuchName => 3,
            Mood::Well if exists => 0,
            Mood::Well => 3,
        };
        let found = self.records.get(&(question.name.clone(), question.kind)).filter(|_| code == 0);
        let (ttl, records) = found.map_or((0, &[][..]), |(ttl, records)| (*ttl, records.as_slice()));
        let whole = question.answer(code, records, ttl, false);
        if tcp || whole.len() <= question.room {
            return Some(whole);
        }
        Some(question.answer(code, &[], ttl, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dig(ns: &Namespace, words: &str) -> String {
        ns.run(&format!("dig @127.0.0.1 -p 5353 +time=1 +tries=1 {words}"))
    }

    /// A server judged by a resolver that is not ours.
    #[test]
    fn dig_understands_every_answer() {
        let ns = Namespace::new("dns");
        let dns = Dns::start(&ns, "127.0.0.1:5353");
        dns.addresses("app.test", &["192.0.2.7", "192.0.2.8", "2001:db8::7"], 60);
        let records = [Srv { priority: 1, weight: 20, port: 5432, host: "app.test" }];
        dns.service("_pg._tcp.test", &records, 7);
        assert_eq!(dig(&ns, "+short app.test"), "192.0.2.7\n192.0.2.8\n");
        assert_eq!(dig(&ns, "+short +tcp APP.test AAAA"), "2001:db8::7\n");
        let srv = dig(&ns, "+noall +answer _pg._tcp.test SRV");
        assert_eq!(
            srv.split_whitespace().collect::<Vec<_>>(),
            ["_pg._tcp.test.", "7", "IN", "SRV", "1", "20", "5432", "app.test."]
        );
        assert!(dig(&ns, "+noall +comments none.test").contains("NXDOMAIN"));
        assert!(dig(&ns, "+noall +comments app.test SRV").contains("NOERROR"));
        dns.feel(Mood::ServFail);
        assert!(dig(&ns, "+noall +comments app.test").contains("SERVFAIL"));
        dns.feel(Mood::NoSuchName);
        assert!(dig(&ns, "+noall +comments app.test").contains("NXDOMAIN"));
        dns.feel(Mood::Well);
        dns.forget("app.test");
        assert!(dig(&ns, "+noall +comments app.test").contains("NXDOMAIN"));
        assert_eq!((dns.asked("app.test"), dns.asked_by_tcp()), (6, 1));
    }

    #[test]
    fn silence_and_the_way_over_tcp() {
        let ns = Namespace::new("dns");
        let dns = Dns::start(&ns, "127.0.0.1:5353");
        let many: Vec<String> = (1..=90).map(|i| format!("192.0.2.{i}")).collect();
        dns.addresses("many.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), 60);
        assert_eq!(dig(&ns, "+short +bufsize=1232 many.test").lines().count(), 90);
        assert_eq!(dns.asked_by_tcp(), 1, "1,458 bytes do not fit into a datagram of 1,232");
        assert_eq!(dig(&ns, "+short +bufsize=1500 many.test").lines().count(), 90);
        assert_eq!(dns.asked_by_tcp(), 1, "nor need they, into one of 1,500");
        dns.feel(Mood::Silent);
        let silent = crate::process::attempt(ns.command("dig").args([
            "@127.0.0.1",
            "-p",
            "5353",
            "+time=1",
            "+tries=1",
            "many.test",
        ]));
        assert!(silent.is_err_and(|said| said.contains("timed out") || said.contains("no servers")));
    }
}
