//! HTTP through the forwarding: curl and nginx, large transfers, kept connections, HTTP/3.

use std::fs;

use crate::topology::{LAN4, LAN6};
use crate::{Engine, Namespace, Portway, Scratch, Topology, peer};

/// So many bytes each way between `client` and web servers on `server`, by port 8888 of both families, which `rules` lead to
/// the servers' addresses; the content arrives as it was sent.
pub(super) fn there_and_back(
    net: &Topology,
    client: &Namespace,
    server: &Namespace,
    on: [&str; 2],
    rules: &str,
    bytes: usize,
) {
    let files = Scratch::new();
    files.dir("up");
    let sum = peer::blob(&files.join("blob"), bytes);
    let _servers = on.map(|on| peer::nginx(server, on, files.path()));
    let _portway = Portway::start(&net.gateway, rules);
    let dir = files.path().display();
    for host in [LAN4.to_owned(), format!("[{LAN6}]")] {
        client.run(&format!("curl -sSfg --max-time 10 -o {dir}/got http://{host}:8888/blob"));
        assert_eq!(peer::sha256(&files.join("got")), sum, "the download from {host} arrived as sent");
        client.run(&format!("curl -sSfg --max-time 10 -T {dir}/blob http://{host}:8888/up/put"));
        assert_eq!(peer::sha256(&files.join("up/put")), sum, "the upload to {host} arrived as sent");
        fs::remove_file(files.join("up/put")).expect("just uploaded");
    }
}

/// curl gets a page, IPv4 and IPv6.
pub fn get(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    files.write("page", "a page\n");
    let _v4 = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _v6 = peer::nginx(net.server(), "[fd02::10]:81", files.path());
    let rules =
        engine.forward("0.0.0.0:8888", "10.2.0.10:80") + &engine.forward("[::]:8888", "[fd02::10]:81");
    let _portway = Portway::start(&net.gateway, &rules);
    for host in [LAN4.to_owned(), format!("[{LAN6}]")] {
        let page = net.client().run(&format!("curl -sSfg --max-time 10 http://{host}:8888/page"));
        assert_eq!(page, "a page\n");
    }
}

/// 200 MB down and 100 MB up arrive as they were sent.
pub fn transfer(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    files.dir("up");
    let down = peer::blob(&files.join("down"), 200_000_000);
    let up = peer::blob(&files.join("upload"), 100_000_000);
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8888", "10.2.0.10:80"));
    let dir = files.path().display();
    net.client().run(&format!("curl -sSf --max-time 60 -o {dir}/got http://{LAN4}:8888/down"));
    assert_eq!(peer::sha256(&files.join("got")), down, "the download arrived as sent");
    net.client().run(&format!("curl -sSf --max-time 60 -T {dir}/upload http://{LAN4}:8888/up/put"));
    assert_eq!(peer::sha256(&files.join("up/put")), up, "the upload arrived as sent");
}

/// A download that the client breaks off harms nothing; one at a slow reader's pace arrives whole.
pub fn slow_and_broken_off(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    let sum = peer::blob(&files.join("down"), 40_000_000);
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8888", "10.2.0.10:80"));
    let dir = files.path().display();
    let url = format!("http://{LAN4}:8888/down");
    let part = net
        .client()
        .shell(&format!("(curl -sS --max-time 20 {url} 2>/dev/null || true) | head -c 9999 | wc -c"));
    assert_eq!(part.trim(), "9999");
    net.client().run(&format!("curl -sSf --max-time 30 --limit-rate 12m -o {dir}/got {url}"));
    assert_eq!(peer::sha256(&files.join("got")), sum);
}

/// Many requests on few connections (ab -k), none lost.
pub fn keep_alive(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    files.write("page", "x".repeat(2000));
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8888", "10.2.0.10:80"));
    let report = net.client().run(&format!("ab -q -k -n 5000 -c 20 http://{LAN4}:8888/page"));
    assert!(report.contains("Complete requests:      5000"), "{report}");
    assert!(report.contains("Failed requests:        0"), "{report}");
    assert!(report.contains("Keep-Alive requests:    5000"), "{report}");
}

/// A new connection for every request, none lost.
pub fn short_connections(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    files.write("page", "short");
    let _nginx = peer::nginx(net.server(), "10.2.0.10:80", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("0.0.0.0:8888", "10.2.0.10:80"));
    let report = net.client().run(&format!("ab -q -n 5000 -c 50 http://{LAN4}:8888/page"));
    assert!(report.contains("Complete requests:      5000"), "{report}");
    assert!(report.contains("Failed requests:        0"), "{report}");
}

/// An HTTP/3 client and server: QUIC in UDP, with datagrams as large as the path allows.
pub fn http3(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    let sum = peer::blob(&files.join("page"), 3_000_000);
    let got = files.dir("got");
    let _server = peer::http3(net.server(), "10.2.0.10:4433", files.path());
    let _portway = Portway::start(&net.gateway, &engine.forward("udp/0.0.0.0:8443", "10.2.0.10:4433"));
    let url = format!("https://{LAN4}:8443/page");
    net.client().run(&format!(
        "timeout 20 gtlsclient --quiet --no-quic-dump --no-http-dump --exit-on-all-streams-close \
         --download {} {LAN4} 8443 {url}",
        got.display()
    ));
    assert_eq!(peer::sha256(&got.join("page")), sum);
}
