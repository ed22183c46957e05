//! Protocols that open further connections: FTP, TFTP and SIP, followed by the kernel's conntrack helpers.

use crate::topology::{LAN4, LAN6, SERVER4, WAN4};
use crate::{Engine, Portway, Scratch, Topology, peer};

/// lftp lists and fetches from vsftpd; `settings` choose the mode. vsftpd insists that the data connection
/// belongs to the address it talks to, so only a correct rewrite passes.
fn ftp(engine: Engine, listen: &str, backend: &str, host: &str, settings: &str) {
    let net = Topology::new();
    let files = Scratch::new();
    let root = files.dir("root");
    let sum = peer::blob(&root.join("file"), 3_000_000);
    let _vsftpd = peer::vsftpd(net.server(), 21, &root);
    let rule = engine.rule(&format!("listen = '{listen}'\nforward = '{backend}'\nhelper = 'ftp'"));
    let _portway = Portway::start(&net.gateway, &rule);
    let dir = files.path().display();
    let script = format!(
        "set net:max-retries 1; set net:timeout 5; set ftp:fix-pasv-address no; set ftp:ssl-allow no; \
         set ftp:use-feat no; {settings}; open ftp://{host}:2121; ls; get file -o {dir}/got"
    );
    let listing =
        crate::process::run(net.client().command("timeout").args(["30", "lftp", "--norc", "-c", &script]));
    assert!(listing.contains("file"), "{listing}");
    assert_eq!(peer::sha256(&files.join("got")), sum);
}

/// FTP, active: the server connects to the client (PORT).
pub fn ftp_active(engine: Engine) {
    ftp(engine, "0.0.0.0:2121", "10.2.0.10:21", LAN4, "set ftp:passive-mode off");
}

/// FTP, passive (PASV).
pub fn ftp_passive(engine: Engine) {
    ftp(engine, "0.0.0.0:2121", "10.2.0.10:21", LAN4, "set ftp:passive-mode on; set ftp:prefer-epsv no");
}

/// FTP, extended passive (EPSV, RFC 2428).
pub fn ftp_epsv(engine: Engine) {
    ftp(engine, "0.0.0.0:2121", "10.2.0.10:21", LAN4, "set ftp:passive-mode on; set ftp:prefer-epsv yes");
}

/// FTP over IPv6, extended passive.
pub fn ftp_epsv_v6(engine: Engine) {
    let host = format!("[{LAN6}]");
    ftp(engine, "[::]:2121", "[fd02::10]:21", &host, "set ftp:passive-mode on");
}

/// FTP over IPv6, active (EPRT).
pub fn ftp_active_v6(engine: Engine) {
    let host = format!("[{LAN6}]");
    ftp(engine, "[::]:2121", "[fd02::10]:21", &host, "set ftp:passive-mode off");
}

/// TFTP: the server answers from another port (RFC 1350, section 4).
pub fn tftp(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    let root = files.dir("root");
    let sum = peer::blob(&root.join("file"), 300_000);
    let _tftpd = peer::tftpd(net.server(), "10.2.0.10:69", &root);
    let rule = engine.rule("listen = 'udp/0.0.0.0:6969'\nforward = '10.2.0.10:69'\nhelper = 'tftp'");
    let _portway = Portway::start(&net.gateway, &rule);
    let dir = files.path().display();
    net.client().run(&format!("timeout 20 tftp -4 -m binary {LAN4} 6969 -c get file {dir}/got"));
    assert_eq!(peer::sha256(&files.join("got")), sum);
}

/// SIP over UDP: in an INVITE, Via, Contact and the SDP's media address become the gateway's, so that the
/// callee's media finds the way; the media then flows back to the caller.
pub fn sip(engine: Engine) {
    let net = Topology::new();
    let callee = net.server().bind("10.2.0.10:5060");
    let rule = engine.rule("listen = 'udp/10.1.0.1:5060'\nforward = '10.2.0.10:5060'\nhelper = 'sip'");
    let _portway = Portway::start(&net.gateway, &rule);
    let caller = net.client().bind("10.1.0.10:5060");
    let media = net.client().bind("10.1.0.10:4000");
    let sdp = "v=0\r\no=alice 1 1 IN IP4 10.1.0.10\r\ns=-\r\nc=IN IP4 10.1.0.10\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let invite = format!(
        "INVITE sip:bob@10.1.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.10:5060;branch=z9hG4bK1\r\n\
         From: <sip:alice@10.1.0.10>;tag=1\r\nTo: <sip:bob@10.1.0.1>\r\nCall-ID: 1@10.1.0.10\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:alice@10.1.0.10:5060>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    caller.send_to(invite.as_bytes(), "10.1.0.1:5060").expect("sent");
    let mut buffer = [0; 4096];
    let (length, from) = callee.recv_from(&mut buffer).expect("the INVITE arrives");
    let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert_eq!(from.ip().to_string(), WAN4);
    assert!(heard.starts_with(&format!("INVITE sip:bob@{SERVER4}")), "the request names the callee: {heard}");
    assert!(heard.contains(&format!("c=IN IP4 {WAN4}")), "the media address is the gateway's: {heard}");
    assert!(heard.contains(&format!("Contact: <sip:alice@{WAN4}")), "so is the contact: {heard}");
    let port = heard.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a media line");
    // The callee's first RTP packet goes where the SDP said, and reaches the caller's media port.
    let rtp = net.server().bind("10.2.0.10:4002");
    rtp.send_to(b"rtp", format!("{WAN4}:{port}")).expect("sent");
    let (length, _) = media.recv_from(&mut buffer).expect("media reaches the caller");
    assert_eq!(&buffer[..length], b"rtp");
}
