//! A DNS server of a few lines, over UDP and TCP on the same port, that answers as the test says.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// The data of a record.
#[derive(Clone, Debug)]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(&'static str),
    /// Priority, weight, port, target.
    Srv(u16, u16, u16, &'static str),
}

impl Data {
    pub fn a(text: &str) -> Self {
        Self::A(text.parse().unwrap())
    }

    pub fn aaaa(text: &str) -> Self {
        Self::Aaaa(text.parse().unwrap())
    }

    fn kind(&self) -> u16 {
        match self {
            Self::A(_) => 1,
            Self::Cname(_) => 5,
            Self::Aaaa(_) => 28,
            Self::Srv(..) => 33,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::A(address) => address.octets().to_vec(),
            Self::Aaaa(address) => address.octets().to_vec(),
            Self::Cname(name) => wire(name),
            Self::Srv(priority, weight, port, target) => {
                let numbers = [priority, weight, port].map(|number| number.to_be_bytes()).concat();
                [numbers, wire(target)].concat()
            }
        }
    }
}

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Says nothing.
    Silent,
    /// Answers every question with this code.
    Code(u8),
    /// Answers AAAA with this code, the rest well.
    CodeForAaaa(u8),
    /// Answers with bytes that are no message.
    Garbage,
}

pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;

struct State {
    zone: HashMap<&'static str, (u32, Vec<Data>)>,
    mood: Mood,
    asked: Vec<(String, u16, bool)>,
}

/// The server.
#[derive(Clone)]
pub struct DnsServer {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl DnsServer {
    pub fn start() -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let state = State { zone: HashMap::new(), mood: Mood::Well, asked: Vec::new() };
        let server = Self { address, state: Arc::new(Mutex::new(state)) };
        let over_udp = server.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = over_udp.answer(&buffer[..count], false) {
                    _ = udp.send_to(&answer, from);
                }
            }
        });
        let over_tcp = server.clone();
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                let server = over_tcp.clone();
                thread::spawn(move || server.converse(stream));
            }
        });
        server
    }

    /// What a name has from now on; nothing at all is NXDOMAIN.
    pub fn set(&self, name: &'static str, ttl: u32, data: impl IntoIterator<Item = Data>) {
        self.state.lock().unwrap().zone.insert(name, (ttl, data.into_iter().collect()));
    }

    pub fn remove(&self, name: &str) {
        self.state.lock().unwrap().zone.remove(name);
    }

    pub fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// The questions so far: name, type, whether over TCP.
    pub fn asked(&self) -> Vec<(String, u16, bool)> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How often a type of a name was asked for.
    pub fn count(&self, name: &str, kind: u16) -> usize {
        self.asked().iter().filter(|(asked, of, _)| asked == name && *of == kind).count()
    }

    fn converse(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut query).is_err() {
                return;
            }
            if let Some(answer) = self.answer(&query, true) {
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                _ = stream.write_all(&[&length[..], &answer].concat());
            }
        }
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, end) = name_at(query, 12)?;
        let question = query.get(12..end + 4)?;
        let kind = u16::from_be_bytes([query[end], query[end + 1]]);
        let mut state = self.state.lock().unwrap();
        state.asked.push((name.clone(), kind, tcp));
        let code = match state.mood {
            Mood::Silent => return None,
            Mood::Garbage => return Some(vec![query[0], query[1], 0xff, 0xff, 0xff]),
            Mood::Code(code) => Some(code),
            Mood::CodeForAaaa(code) if kind == 28 => Some(code),
            Mood::CodeForAaaa(_) | Mood::Well => None,
        };
        let mut records = Vec::new();
        let mut owner = name;
        let mut found = state.zone.contains_key(owner.as_str());
        while code.is_none()
            && let Some((ttl, data)) = state.zone.get(owner.as_str())
        {
            found = true;
            for data in data.iter().filter(|data| data.kind() == kind || matches!(data, Data::Cname(_))) {
                let bytes = data.bytes();
                let mut record = wire(&owner);
                record.extend([data.kind().to_be_bytes(), 1_u16.to_be_bytes()].concat());
                record.extend(ttl.to_be_bytes());
                record.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
                record.extend(bytes);
                records.push(record);
            }
            match data.first() {
                Some(Data::Cname(target)) => owner = (*target).to_owned(),
                _ => break,
            }
        }
        let code = code.unwrap_or(if found { 0 } else { NXDOMAIN });
        let all: usize = records.iter().map(Vec::len).sum();
        let truncated = !tcp && all > 400;
        if truncated {
            records.clear();
        }
        let mut answer = query[..2].to_vec();
        answer.extend([0x81 | u8::from(truncated) << 1, 0x80 | code, 0, 1]);
        answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(question);
        answer.extend(records.concat());
        Some(answer)
    }
}

/// A name in a query, and where it ends.
fn name_at(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut at = start;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join(".").to_lowercase(), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).into_owned());
        at += length;
    }
}

/// A name as it stands in a message.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
