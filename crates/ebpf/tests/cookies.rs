//! SYN cookies: the answer's bytes at both hooks, and connections that a cookie has opened.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;

use portway_core::engine::Engine;
use portway_core::flow::FlowFilter;
use portway_datapath::abi::port_flags;
use portway_ebpf::EbpfEngine;
use portway_ebpf::trial::{Program, Trial};
use support::{Lab, apply, echo, index, plan, rule, wait_for};

/// `TC_ACT_REDIRECT`, `XDP_PASS`, `XDP_TX`, `XDP_REDIRECT`, and TCX_NEXT.
const REDIRECT: u32 = 7;
const PASS: u32 = 2;
const TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const NEXT: u32 = u32::MAX;

fn file(above: u32, attach: &str) -> String {
    let always = format!("syn-cookies = {above}\n");
    rule("web", "tcp/10.1.0.1:80", "10.2.0.2:8080")
        + &always
        + &rule("six", "tcp/[fd01::1]:80", "[fd02::2]:8080")
        + &always
        + &format!("[ebpf]\nattach = '{attach}'\n")
}

fn flows(engine: &mut EbpfEngine) -> u64 {
    engine.observer().unwrap().flows(&FlowFilter::default(), 10).unwrap().total
}

/// An interface's link address.
fn link(lab: &Lab, interface: &str) -> Vec<u8> {
    let line = lab.gateway.ip(&format!("-o link show dev {interface}"));
    let (_, rest) = line.split_once("link/ether ").unwrap();
    rest[..17].split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Has the client's end of its veth take what XDP sends, and waits until the engine knows.
fn take_frames(lab: &Lab) {
    lab.client.run("ethtool -K eth0 gro on");
    let lan = index(&lab.gateway, "lan");
    let flags = || lab.gateway.within(|| portway_ebpf::trial::port(lan)).unwrap().unwrap().flags;
    wait_for("the flag", || flags() & port_flags::XDP != 0);
}

const FROM: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// The sum of RFC 1071 over a TCP segment and its pseudo header: 0xffff if the checksum in it is right.
fn sum(ip: &[u8]) -> u16 {
    let (addresses, transport) =
        if ip[0] >> 4 == 4 { (&ip[12..20], &ip[20..]) } else { (&ip[8..40], &ip[40..]) };
    let words = addresses.chunks(2).chain(transport.chunks(2));
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = sum + 6 + transport.len() as u32;
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// A frame with a TCP segment to port 80.
fn frame(to: &[u8], ipv4: bool, numbers: (u32, u32), flags: u8, options: &[u8]) -> Vec<u8> {
    let length = 20 + options.len() as u8;
    let mut ip = if ipv4 {
        let mut ip = vec![0x45, 0, 0, 20 + length, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 1, 0, 1];
        let sum: u32 = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        ip
    } else {
        let address = |net: u8, last: u8| [0xfd, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        [&[0x60, 0, 0, 0, 0, length, 6, 64][..], &address(1, 2), &address(1, 1)].concat()
    };
    ip.extend([0x30, 0x39, 0, 80]);
    ip.extend(numbers.0.to_be_bytes());
    ip.extend(numbers.1.to_be_bytes());
    ip.extend([(length / 4) << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    ip.extend(options);
    let check = !sum(&ip);
    let at = if ipv4 { 36 } else { 56 };
    ip[at..at + 2].copy_from_slice(&check.to_be_bytes());
    [to, &FROM, if ipv4 { &[8, 0] } else { &[0x86, 0xdd] }, &ip].concat()
}

/// The beginning of a context that says which interface a packet of this length comes in by: `xdp_md` has that in its fourth
/// word, and where the packet ends in its second; `__sk_buff` has it in its eleventh.
fn context(program: Program, interface: u32, length: usize) -> Vec<u8> {
    let xdp = program == Program::XdpEthernet;
    let (size, at) = if xdp { (24, 12) } else { (192, 40) };
    let mut context = vec![0; size];
    context[at..at + 4].copy_from_slice(&interface.to_ne_bytes());
    if xdp {
        context[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
    }
    context
}

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Options of an ordinary client: segment size 1460, selective acknowledgements, timestamps, window scale.
const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

#[test]
fn a_syn_is_answered_by_a_cookie_and_leaves_no_trace() {
    let lab = Lab::new();
    lab.client.run("ping -c 1 10.1.0.1");
    lab.client.run("ping -c 1 fd01::1");
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&file(0, "xdp"))).unwrap();
    take_frames(&lab);
    let (lan, own) = (index(&lab.gateway, "lan"), link(&lab, "lan"));
    let mut trial = lab.gateway.within(|| Trial::new().unwrap());
    let mut cookies = Vec::new();
    for ipv4 in [true, false] {
        for program in [Program::TcEthernet, Program::XdpEthernet] {
            for options in [&OPTIONS[..], &[]] {
                let syn = frame(&own, ipv4, (0x1020_3040, 0), SYN, options);
                let ran = run(&lab, &mut trial, program, &syn, lan);
                let header = if ipv4 { 20 } else { 40 };
                if program == Program::XdpEthernet {
                    assert!([TX, XDP_REDIRECT].contains(&ran.0), "verdict {}", ran.0);
                    assert_eq!((&ran.1[..6], &ran.1[6..12]), (&FROM[..], &own[..]));
                } else {
                    assert_eq!(ran.0, REDIRECT);
                    assert_eq!(ran.1[6..12], own);
                }
                let ip = &ran.1[14..];
                assert_eq!(ip.len(), header + 24, "only one option");
                assert_eq!(sum(ip), 0xffff, "the checksum");
                let tcp = &ip[header..];
                assert_eq!(tcp[..4], [0, 80, 0x30, 0x39]);
                assert_eq!(tcp[8..12], 0x1020_3041_u32.to_be_bytes());
                assert_eq!(tcp[12..16], [6 << 4, SYN | ACK, 0, 0], "the window is shut");
                let size = match (options.is_empty(), ipv4) {
                    (false, true) => 1460_u16,
                    (false, false) => 1440,
                    (true, true) => 536,
                    (true, false) => 1220,
                };
                assert_eq!(tcp[20..], [&[2, 4][..], &size.to_be_bytes()].concat());
                if ipv4 {
                    let words = ip[..20].chunks(2);
                    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
                    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header's checksum");
                }
                cookies.push((ipv4, u32::from_be_bytes(tcp[4..8].try_into().unwrap())));
            }
        }
    }
    assert_eq!(flows(&mut engine), 0, "no record");

    // One that was not sent is left to the kernel, one that was begins a flow, and the packet becomes its SYN.
    let mut run = |frame: &[u8]| run(&lab, &mut trial, Program::TcEthernet, frame, lan);
    let numbers = |cookie: u32| (0x1020_3041_u32, cookie.wrapping_add(1));
    for (ipv4, cookie) in &cookies {
        let forged = frame(&own, *ipv4, numbers(cookie ^ 1 << 20), ACK, &[]);
        assert_eq!(run(&forged), (NEXT, forged), "untouched");
    }
    assert_eq!(flows(&mut engine), 0);
    for (ipv4, cookie) in cookies {
        let ran = run(&frame(&own, ipv4, numbers(cookie), ACK, &[1, 1, 1, 1]));
        assert_eq!(ran.0, REDIRECT);
        let header = if ipv4 { 20 } else { 40 };
        let ip = &ran.1[14..];
        assert_eq!((ip.len(), sum(ip)), (header + 24, 0xffff));
        let tcp = &ip[header..];
        assert_eq!(
            tcp[2..12],
            [&8080_u16.to_be_bytes()[..], &0x1020_3040_u32.to_be_bytes(), &[0; 4]].concat()
        );
        assert_eq!(tcp[12..16], [6 << 4, SYN, 0x20, 0], "with the client's window");
    }
    assert_eq!(flows(&mut engine), 2);
    drop(trial);
    lab.gateway.within(|| engine.clear()).unwrap();
}

/// Runs a program on a packet that came in by an interface.
fn run(lab: &Lab, trial: &mut Trial, program: Program, packet: &[u8], interface: u32) -> (u32, Vec<u8>) {
    let context = context(program, interface, packet.len());
    let ran = lab.gateway.within(|| trial.run(program, packet, &context, 1)).unwrap();
    (ran.result, ran.packet)
}

/// The frame of an IPv4 packet between two ends.
fn between(to: &[u8], protocol: u8, ends: ([u8; 4], [u8; 4]), rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 20 + rest.len() as u8, 0, 7, 0x40, 0, 64, protocol, 0, 0];
    ip.extend(ends.0);
    ip.extend(ends.1);
    let check = !words(&ip);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    [to, &FROM, &[8, 0], &ip, rest].concat()
}

/// The sum of RFC 1071.
fn words(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

const CLIENT: ([u8; 4], [u8; 2]) = ([10, 1, 0, 2], [0x30, 0x39]);
const LISTENER: ([u8; 4], [u8; 2]) = ([10, 1, 0, 1], [0, 80]);
const SOURCE: ([u8; 4], [u8; 2]) = ([10, 2, 0, 1], [0x30, 0x39]);
const BACKEND: ([u8; 4], [u8; 2]) = ([10, 2, 0, 2], [0x1f, 0x90]);

#[test]
fn errors_to_the_backend_quote_its_own_numbers() {
    let lab = Lab::new();
    for (host, to) in [(&lab.client, "10.1.0.1"), (&lab.server, "10.2.0.1")] {
        host.run(&format!("ping -c 1 {to}"));
    }
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&file(0, "tc"))).unwrap();
    let [lan, wan] = ["lan", "wan"].map(|name| (index(&lab.gateway, name), link(&lab, name)));
    let mut trial = lab.gateway.within(|| Trial::new().unwrap());
    let mut run = |frame: &[u8], port: u32| run(&lab, &mut trial, Program::TcEthernet, frame, port);
    let number = |ip: &[u8], at: usize| u32::from_be_bytes(ip[at..at + 4].try_into().unwrap());

    let (verdict, answer) = run(&frame(&lan.1, true, (100, 0), SYN, &OPTIONS), lan.0);
    assert_eq!(verdict, REDIRECT);
    let cookie = number(&answer, 38);
    let (verdict, syn) = run(&frame(&lan.1, true, (101, cookie.wrapping_add(1)), ACK, &[]), lan.0);
    assert_eq!(
        (verdict, &syn[26..38]),
        (REDIRECT, &[&SOURCE.0[..], &BACKEND.0, &SOURCE.1, &BACKEND.1].concat()[..])
    );

    // The backend's SYN-ACK, with a first number of its own.
    let first = 0x7654_3210_u32;
    let tcp = |ends: [[u8; 2]; 2], numbers: (u32, u32), flags: u8| {
        let (sequence, acknowledges) = (numbers.0.to_be_bytes(), numbers.1.to_be_bytes());
        [&ends[0][..], &ends[1], &sequence, &acknowledges, &[5 << 4, flags, 0x40, 0, 0, 0, 0, 0]].concat()
    };
    let whole = |from: ([u8; 4], [u8; 2]), to: ([u8; 4], [u8; 2]), numbers, flags| {
        let mut frame = between(&wan.1, 6, (from.0, to.0), &tcp([from.1, to.1], numbers, flags));
        let check = !sum(&frame[14..]);
        frame[50..52].copy_from_slice(&check.to_be_bytes());
        frame
    };
    let (verdict, ack) = run(&whole(BACKEND, SOURCE, (first, 101), SYN | ACK), wan.0);
    assert_eq!((verdict, sum(&ack[14..])), (REDIRECT, 0xffff));
    assert_eq!((number(&ack, 38), number(&ack, 42)), (101, first + 1), "the handshake's end");
    assert_eq!(ack[46..50], [5 << 4, ACK, 0x20, 0], "with the client's window");

    // Data of the backend, and a router on the way to the client that cannot pass it on.
    let (verdict, data) = run(&whole(BACKEND, SOURCE, (first + 1000, 101), ACK), wan.0);
    assert_eq!((verdict, sum(&data[14..])), (REDIRECT, 0xffff));
    assert_eq!((number(&data, 38), number(&data, 42)), (cookie.wrapping_add(1000), 101));
    assert_eq!(data[26..34], [LISTENER.0, CLIENT.0].concat()[..]);
    let mut icmp = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &data[14..]].concat();
    let check = !words(&icmp);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    let (verdict, error) = run(&between(&lan.1, 1, ([10, 1, 0, 9], LISTENER.0), &icmp), lan.0);
    assert_eq!((verdict, words(&error[34..])), (REDIRECT, 0xffff), "the checksum over it");
    let quoted = &error[42..];
    assert_eq!(quoted[12..24], [&BACKEND.0[..], &SOURCE.0, &BACKEND.1, &SOURCE.1].concat()[..]);
    assert_eq!(number(quoted, 24), first + 1000);
    drop(trial);
    lab.gateway.within(|| engine.clear()).unwrap();
}

#[test]
fn connections_are_opened_by_cookies_and_go_on() {
    for attach in ["tc", "xdp"] {
        let lab = Lab::new();
        lab.serve(8080);
        let (mut engine, log) = lab.engine();
        apply(&lab.gateway, &mut engine, &plan(&file(0, attach))).unwrap();
        if attach == "xdp" {
            // Checksums that are left to the hardware are not finished when XDP sends a packet on.
            lab.client.run("ethtool -K eth0 tx off");
            lab.server.run("ethtool -K eth0 tx off");
            take_frames(&lab);
        }
        let mut held = Vec::new();
        for to in ["10.1.0.1:80", "[fd01::1]:80"] {
            // A timer that somebody waits for is waited for every time; a busy machine is late now and then.
            let opened = (0..3).map(|_| {
                let start = std::time::Instant::now();
                let mut stream = lab.connect(to).unwrap();
                echo(&mut stream, "hello").unwrap();
                (start.elapsed(), stream)
            });
            let (took, mut stream) = opened.min_by_key(|(took, _)| *took).unwrap();
            assert!(took.as_millis() < 150, "somebody waited for a timer: {took:?}");
            let long = "x".repeat(3_000_000);
            std::thread::scope(|scope| {
                let mut other = stream.try_clone().unwrap();
                let long = &long;
                scope.spawn(move || other.write_all(long.as_bytes()).unwrap());
                let mut back = vec![0; long.len()];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, long.as_bytes());
            });
            held.push(stream);
        }
        let mut observer = engine.observer().unwrap();
        let found = observer.flows(&FlowFilter::default(), 10).unwrap();
        assert!(found.flows.iter().all(|flow| flow.state == "established"), "{found:?}");
        assert!(log.lock().unwrap().is_empty(), "{log:?}");
        lab.gateway.within(|| engine.clear()).unwrap();
    }
}

#[test]
fn a_server_may_speak_first_and_a_refusal_is_a_reset() {
    let lab = Lab::new();
    let greeter = lab.server.within(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let thread = std::thread::spawn(move || greeter.accept().unwrap().0.write_all(b"220 hello").unwrap());
    let (mut engine, _) = lab.engine();
    let mut text = file(0, "tc") + &rule("shut", "tcp/10.1.0.1:81", "10.2.0.2:9") + "syn-cookies = 0\n";
    text = text.replace("[ebpf]\nattach = 'tc'\n", "");
    apply(&lab.gateway, &mut engine, &plan(&text)).unwrap();
    let mut stream = lab.connect("10.1.0.1:80").unwrap();
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "220 hello");
    thread.join().unwrap();
    // The cookie connects, so that only a reset can tell; it may come before the call has returned.
    let error = lab.connect("10.1.0.1:81").and_then(|mut stream| stream.read(&mut [0; 1])).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    lab.gateway.within(|| engine.clear()).unwrap();
}

/// The client is connected and waits for the server to speak, so nothing but the daemon's sweep can ask the backend again.
#[test]
fn a_lost_syn_is_sent_again_though_the_client_is_silent() {
    for (to, wrong) in [("10.1.0.1:80", "10.2.0.2"), ("[fd01::1]:80", "fd02::2")] {
        let lab = Lab::new();
        let greeter = lab.server.within(|| TcpListener::bind("[::]:8080").unwrap());
        let (mut engine, log) = lab.engine();
        apply(&lab.gateway, &mut engine, &plan(&file(0, "tc"))).unwrap();
        let neighbour = |link: &str| {
            lab.gateway.ip(&format!("neighbour replace {wrong} lladdr {link} dev wan nud permanent"));
        };
        let right = lab.server.run("cat /sys/class/net/eth0/address");
        neighbour("02:09:09:09:09:09");
        let mut stream = lab.connect(to).unwrap();
        wait_for("the flow", || flows(&mut engine) == 1);
        // Longer than the SYN that the client's acknowledgement became is under way.
        std::thread::sleep(std::time::Duration::from_millis(100));
        neighbour(right.trim());
        stream.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
        let thread = std::thread::spawn(move || greeter.accept().unwrap().0.write_all(b"220 hello").unwrap());
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).unwrap();
        assert_eq!(greeting, "220 hello");
        thread.join().unwrap();
        assert!(log.lock().unwrap().is_empty(), "{log:?}");
        lab.gateway.within(|| engine.clear()).unwrap();
    }
}

#[test]
fn below_the_rate_there_are_none() {
    let lab = Lab::new();
    lab.serve(8080);
    let (mut engine, _) = lab.engine();
    apply(&lab.gateway, &mut engine, &plan(&file(1000, "xdp"))).unwrap();
    let own = link(&lab, "lan");
    let mut trial = lab.gateway.within(|| Trial::new().unwrap());
    let syn = frame(&own, true, (1, 0), SYN, &OPTIONS);
    let ran = run(&lab, &mut trial, Program::XdpEthernet, &syn, index(&lab.gateway, "lan"));
    assert_eq!(ran, (PASS, syn), "left to TC");
    let mut stream = lab.connect("10.1.0.1:80").unwrap();
    echo(&mut stream, "x").unwrap();
    assert_eq!(flows(&mut engine), 1);
    drop(trial);
    lab.gateway.within(|| engine.clear()).unwrap();
}
