//! Every type of health check against a real server that answers as it should, is gone, or answers something else.
//!
//! PostgreSQL and MySQL are not here: their checks are tested beside their code.

use std::thread;
use std::time::{Duration, Instant};

use crate::farm::v4;
use crate::netns::PATIENCE;
use crate::{Engine, Portway, Process, Scratch, Topology, peer};

/// A rule with one backend and this check, by a listener of its own.
fn checked(engine: Engine, nth: usize, port: u16, check: &str) -> String {
    let backend = format!("{{ address = '{}:{port}', name = 'a' }}", v4(0));
    let keys = "interval = '500ms', interval-down = '200ms', timeout = '500ms', rise = 1, fall = 1";
    let rule = engine.pool(
        &format!("tcp+udp/0.0.0.0:{}", 8100 + nth),
        &[backend],
        &format!("check = {{ {check}, {keys} }}"),
    );
    rule.replace("name = 'pool'", &format!("name = 'r{nth}'"))
}

/// The programs behind [`every_type`].
struct Servers {
    processes: Vec<Process>,
    nginx_cert: String,
    openssl_cert: String,
}

fn servers(net: &Topology) -> Servers {
    let host = net.server();
    let (nginx, nginx_cert) = peer::nginx_named(host, &v4(0), "a");
    let (openssl, openssl_cert) = peer::openssl(host, 7444);
    let dnsmasq = peer::dnsmasq(host, 53, "192.0.2.7", "2001:db8::7");
    let redis = [peer::redis(host, 6379), peer::redis_locked(host, 6380, "sesame")];
    let [nginx_cert, openssl_cert] = [nginx_cert, openssl_cert].map(|path| path.display().to_string());
    let processes = redis.into_iter().chain([nginx, openssl, dnsmasq]).collect();
    Servers { processes, nginx_cert, openssl_cert }
}

/// A DNS query for portway.test, as raw bytes (RFC 1035, section 4.1).
const QUERY: &str = "12340100000100000000000007706f727477617904746573740000010001";

/// Every type of check finds a real server up, and down when it is killed.
pub fn every_type(engine: Engine) {
    let net = Topology::new();
    let files = Scratch::new();
    let script = files.write(
        "look",
        "#!/bin/sh\nexec curl -sfm 1 http://$PORTWAY_ADDRESS:$PORTWAY_PORT/well -H 'Host: lab.test'\n",
    );
    executable(&script);
    let programs = servers(&net);
    let (nginx_ca, openssl_ca) = (&programs.nginx_cert, &programs.openssl_cert);
    let checks: Vec<(u16, String)> = vec![
        (7000, "type = 'tcp'".to_owned()),
        (7000, "type = 'tcp', expect = 'a'".to_owned()),
        (6379, "type = 'tcp', send = \"PING\\r\\n\", expect = '+PONG'".to_owned()),
        (6379, "type = 'tcp', send-hex = '50494e470d0a', expect-hex = '2b504f4e47'".to_owned()),
        (6379, "type = 'tcp', send = \"INFO\\r\\n\", expect-regex = 'redis_version:[0-9]+'".to_owned()),
        (7080, "type = 'http', path = '/well', host = 'lab.test'".to_owned()),
        (
            7080,
            "type = 'http', path = '/well', host = 'lab.test', method = 'HEAD', status = '200'".to_owned(),
        ),
        (7080, "type = 'http', path = '/nothing', host = 'lab.test', status = '200-299, 404'".to_owned()),
        (
            7443,
            format!(
                "type = 'https', path = '/well', host = 'lab.test', server-name = 'lab.test', ca = '{nginx_ca}', expect = 'a is well'"
            ),
        ),
        (7444, format!("type = 'tls', server-name = 'lab.test', ca = '{openssl_ca}'")),
        (7444, "type = 'tls'".to_owned()),
        (6379, "type = 'redis'".to_owned()),
        (6380, "type = 'redis', password = 'sesame'".to_owned()),
        (7025, "type = 'smtp'".to_owned()),
        (53, "type = 'dns', query = 'portway.test'".to_owned()),
        (53, format!("type = 'udp', send-hex = '{QUERY}', expect-hex = 'c0000207'")),
        (7080, format!("type = 'command', command = ['{}']", script.display())),
    ];
    let file: String =
        checks.iter().enumerate().map(|(nth, (port, check))| checked(engine, nth, *port, check)).collect();
    let portway = Portway::start(&net.gateway, &file);
    all_become(&portway, &checks, "up");
    drop(programs.processes);
    all_become(&portway, &checks, "down");
}

/// Waits until every check has come to this verdict, and says of those that did not why.
fn all_become(portway: &Portway, checks: &[(u16, String)], wanted: &str) {
    let start = Instant::now();
    loop {
        let status = portway.status();
        let backends = status["rules"].as_array().into_iter().flatten().map(|rule| &rule["backends"][0]);
        let others: Vec<_> =
            checks.iter().zip(backends).filter(|(_, found)| found["state"] != wanted).collect();
        if others.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "not {wanted}: {others:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
}

/// A server that answers, but not as it should, is down, and the reason says what was wrong.
pub fn wrong_answers(engine: Engine) {
    let net = Topology::new();
    let programs = servers(&net);
    let (nginx_ca, openssl_ca) = (&programs.nginx_cert, &programs.openssl_cert);
    // A time of its own, to be told from other tests' and runs'.
    let long = format!("60.{}", std::process::id());
    let checks: Vec<(u16, String)> = vec![
        (7999, "type = 'tcp'".to_owned()),
        (7000, "type = 'tcp', expect = 'b'".to_owned()),
        (6379, "type = 'tcp', send = \"PING\\r\\n\", expect-regex = '^PONG'".to_owned()),
        (7080, "type = 'http', path = '/nothing', host = 'lab.test'".to_owned()),
        (7080, "type = 'http', path = '/well', host = 'other.test'".to_owned()),
        (7080, "type = 'http', path = '/well', host = 'lab.test', expect = 'ill'".to_owned()),
        (7080, "type = 'http', path = '/well', host = 'lab.test', status = '201-299'".to_owned()),
        (
            7443,
            format!(
                "type = 'https', path = '/well', host = 'lab.test', server-name = 'lab.test', ca = '{openssl_ca}'"
            ),
        ),
        (7443, format!("type = 'tls', server-name = 'other.test', ca = '{nginx_ca}'")),
        (7080, "type = 'tls'".to_owned()),
        (7080, "type = 'redis'".to_owned()),
        (6380, "type = 'redis', password = 'mustard'".to_owned()),
        (6379, "type = 'smtp'".to_owned()),
        (54, "type = 'dns', query = 'portway.test'".to_owned()),
        (53, "type = 'udp', send-hex = '00', expect-hex = 'c0000207'".to_owned()),
        (6379, "type = 'command', command = ['/bin/false']".to_owned()),
        (6379, format!("type = 'command', command = ['/bin/sleep', '{long}']")),
        (6379, "type = 'command', command = ['/no/such/program']".to_owned()),
    ];
    let file: String =
        checks.iter().enumerate().map(|(nth, (port, check))| checked(engine, nth, *port, check)).collect();
    let mut portway = Portway::start(&net.gateway, &file);
    all_become(&portway, &checks, "down");
    for (nth, (_, check)) in checks.iter().enumerate() {
        let found = portway.backend(&format!("r{nth}"), "a");
        assert!(found["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{check}: {found:#}");
    }
    // The command that does not end is ended: by its time limit, and with the daemon.
    portway.stop();
    let left = net.gateway.shell(&format!("pgrep -c -f '^/bin/sleep {long}$' || true"));
    assert_eq!(left.trim(), "0", "commands are left running");
}
