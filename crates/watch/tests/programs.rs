//! Checks against the real servers of Debian: well, refusing, stopped (SIGSTOP) and killed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portway_core::facts::{Lookup, Probe};
use portway_core::health::detection_time;
use portway_core::ruleset::{CheckKind, Dns, Expect, HostName, Tls};
use rustix::process::Signal;
use support::programs::{Directory, NOBODY, Server, as_nobody, find, run};
use support::*;

/// Real servers may be slow on a busy machine; what is tested here is what they say.
fn patient(address: SocketAddr, kind: CheckKind) -> Probe {
    with(probe(address, kind), |check| check.timeout = Duration::from_secs(2))
}

/// The server is stopped, found out, and comes back.
#[track_caller]
fn assert_freezing_is_found(server: &Server, probe: Probe) {
    let watching = Watching::start();
    let bare = with(Probe { host: None, ..probe.clone() }, |check| check.kind = tcp());
    watching.set_probes([probe.clone(), bare.clone()]);
    for _ in 0..2 {
        let (_, health, _) = watching.health();
        assert!(health.up, "{health:?}");
    }
    let begun = Instant::now();
    server.signal(Signal::STOP);
    let (which, health, at) = watching.health();
    server.signal(Signal::CONT);
    assert_eq!((which, health.up), (probe.clone(), false), "{health:?}");
    let stated = detection_time(&probe.check);
    assert!(at - begun <= stated + Duration::from_millis(250), "{:?}, stated {stated:?}", at - begun);
    let (which, health, _) = watching.health();
    assert_eq!((which, health.up), (probe, true), "{health:?}");
    // The kernel has connected for it all the time.
    let bare = &watching.watch.report().probes[&bare];
    assert_eq!((bare.passed, bare.outcome.as_str()), (Some(true), "connected"));
}

#[test]
fn postgresql() {
    let directory = Directory::new();
    let data = directory.owned("data", NOBODY);
    let password = directory.write("password", "secret\n");
    let initdb =
        ["--auth=scram-sha-256", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C"];
    run(as_nobody("initdb").args(initdb).arg("--pwfile").arg(password).arg("-D").arg(&data));
    fs::write(
        data.join("pg_hba.conf"),
        "host all postgres 127.0.0.1/32 trust\nhost all refused 127.0.0.1/32 reject\n\
         host all all 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    let address = free_port();
    let start = || {
        let mut command = as_nobody("postgres");
        command.arg("-D").arg(&data).args(["-p", &address.port().to_string(), "-h", "127.0.0.1"]);
        let settings = ["unix_socket_directories=", "max_connections=5", "shared_buffers=1MB", "fsync=off"];
        for setting in settings {
            command.args(["-c", setting]);
        }
        Server::listening(&mut command, &directory, address)
    };
    let server = start();
    let kind = |user: &str, database: Option<&str>| CheckKind::Postgresql {
        user: user.into(),
        database: database.map(str::to_owned),
    };
    // It may still be starting up, which is a failed check.
    let watching = Watching::start();
    watching.set_probes([patient(address, kind("portway", None))]);
    while !watching.health().1.up {}
    drop(watching);
    let ready = patient(address, kind("postgres", None));
    assert_up(patient(address, kind("portway", None)), "asks for a password");
    assert_up(ready.clone(), "ready for a query");
    assert_up(patient(address, kind("postgres", Some("nothing"))), "SQLSTATE 3D000");
    assert_up(patient(address, kind("refused", None)), "SQLSTATE 28000");
    let log = server.log();
    for complaint in ["unexpected EOF", "could not receive data", "invalid"] {
        assert!(!log.contains(complaint), "a check leaves a complaint: {log}");
    }
    assert_freezing_is_found(
        &server,
        with(ready.clone(), |check| check.timeout = Duration::from_millis(500)),
    );
    // Its connections are used up: a client would get the same answer.
    let held: Vec<_> = (0..5).map(|_| log_in(address)).collect();
    assert_down(ready, "SQLSTATE 53300");
    drop(held);
    drop(server);
    assert_down(patient(address, kind("portway", None)), "connect: Connection refused");
}

/// A connection that is logged in as `postgres` and stays.
fn log_in(address: SocketAddr) -> std::net::TcpStream {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let body = b"\0\x03\0\0user\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], body].concat()).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !answer.ends_with(b"Z\0\0\0\x05I") {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        answer.extend(&buffer[..count]);
    }
    stream
}

#[test]
fn mariadb() {
    let directory = Directory::new();
    let data = directory.owned("data", NOBODY);
    fs::create_dir(data.join("mysql")).unwrap();
    std::os::unix::fs::chown(data.join("mysql"), Some(NOBODY), Some(NOBODY)).unwrap();
    let arguments = |command: &mut Command| {
        command.args(["--no-defaults", "--innodb-buffer-pool-size=8M"]);
        command.arg(format!("--datadir={}", data.display()));
    };
    // The tables that a server needs, made without the client package's script.
    let tables = ["mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data"];
    let mut sql = "use mysql;\nset @auth_root_socket=NULL;\nset @current_hostname='localhost';\n\
                   set @skip_auth_anonymous=1;\n"
        .to_owned();
    find("mariadbd");
    for table in tables {
        sql += &fs::read_to_string(format!("/usr/share/mysql/{table}.sql")).unwrap();
    }
    sql += "flush privileges;\ncreate user probe@'%';\ncreate user closed@'%' identified by 'secret';\n";
    let sql = directory.write("tables.sql", &sql);
    let mut bootstrap = as_nobody("mariadbd");
    arguments(&mut bootstrap);
    run(bootstrap.arg("--bootstrap").stdin(Stdio::from(fs::File::open(sql).unwrap())));
    let address = free_port();
    let mut command = as_nobody("mariadbd");
    arguments(&mut command);
    command.args(["--bind-address=127.0.0.1", "--socket=", "--max-connections=10"]);
    command.arg(format!("--port={}", address.port())).arg(format!("--pid-file={}/pid", data.display()));
    let server = Server::listening(&mut command, &directory, address);
    let kind = |user: Option<&str>| CheckKind::Mysql { user: user.map(str::to_owned) };
    assert_up(patient(address, kind(None)), "error 1045: Access denied for user 'portway'");
    assert_up(patient(address, kind(Some("probe"))), "logged in");
    assert_down(patient(address, kind(Some("closed"))), "error 1045: Access denied for user 'closed'");
    let ready =
        with(patient(address, kind(Some("probe"))), |check| check.timeout = Duration::from_millis(500));
    assert_freezing_is_found(&server, ready);
}

#[test]
fn redis() {
    let directory = Directory::new();
    let start = |address: SocketAddr, more: &[&str]| {
        let mut command = as_nobody("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string()]).args(more);
        command.current_dir("/");
        Server::listening(&mut command, &directory, address)
    };
    let kind = |password: Option<&str>| CheckKind::Redis { password: password.map(str::to_owned) };
    let (open, closed, replica) = (free_port(), free_port(), free_port());
    let server = start(open, &[]);
    assert_up(patient(open, kind(None)), "PONG");
    assert_up(patient(open, kind(Some("unasked"))), "PONG");
    let ready = with(patient(open, kind(None)), |check| check.timeout = Duration::from_millis(500));
    assert_freezing_is_found(&server, ready);
    let _server = start(closed, &["--requirepass", "secret"]);
    assert_up(patient(closed, kind(None)), "NOAUTH");
    assert_up(patient(closed, kind(Some("secret"))), "PONG");
    assert_down(patient(closed, kind(Some("wrong"))), "WRONGPASS");
    let _server = start(replica, &["--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no"]);
    assert_down(patient(replica, kind(None)), "MASTERDOWN");
}

/// Certificates: an authority, what it has signed, and a stranger.
struct Certificates {
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    other_ca: PathBuf,
}

fn certificates(directory: &Directory) -> Certificates {
    let openssl =
        |arguments: &[&str]| run(Command::new(find("openssl")).args(arguments).current_dir(directory.path()));
    let own =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    for name in ["ca", "other"] {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        openssl(&[&own[..], &["-keyout", &key, "-out", &pem, "-subj", &subject]].concat());
    }
    let request =
        ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=server"];
    openssl(&[&request[..], &["-keyout", "server.key", "-out", "server.csr"]].concat());
    directory.write("names", "subjectAltName=DNS:app.example,IP:127.0.0.1\n");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "1",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ]);
    Certificates {
        ca: directory.join("ca.pem"),
        server: (directory.join("server.pem"), directory.join("server.key")),
        other_ca: directory.join("other.pem"),
    }
}

fn tls(name: Option<&str>, ca: Option<&Path>) -> Tls {
    Tls { server_name: name.and_then(HostName::new), ca: ca.map(Path::to_owned) }
}

fn https(tls: Tls, path: &str, body: Option<&str>) -> CheckKind {
    CheckKind::Http {
        tls: Some(tls),
        method: "GET".into(),
        path: path.into(),
        host: None,
        status: vec![(200, 299)],
        body: body.map(|text| Expect::Regex(text.into())),
    }
}

#[test]
fn nginx_with_and_without_tls() {
    let directory = Directory::new();
    let certificates = certificates(&directory);
    let (plain, secure, old) = (free_port(), free_port(), free_port());
    fs::create_dir(directory.join("www")).unwrap();
    directory.write("www/ready", "ready to serve\n");
    directory.write("www/large", &"x".repeat(200_000));
    let configuration = directory.write(
        "nginx.conf",
        &format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log stderr;\n\
             events {{ worker_connections 100; }}\n\
             http {{ access_log off; ssl_protocols TLSv1.2 TLSv1.3; root {0}/www; client_body_temp_path {0}/b; proxy_temp_path {0}/p;\n\
             fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
             ssl_certificate {1}; ssl_certificate_key {2};\n\
             server {{ listen {plain}; listen {secure} ssl; location /moved {{ return 301 /ready; }}\n\
             location /ill {{ return 503; }} location /host {{ return 200 $host; }} }}\n\
             server {{ listen {old} ssl; ssl_protocols TLSv1.2; }} }}\n",
            directory.path().display(),
            certificates.server.0.display(),
            certificates.server.1.display(),
        ),
    );
    let mut command = Command::new(find("nginx"));
    command.arg("-c").arg(configuration);
    let server = Server::listening(&mut command, &directory, plain);
    let http = |path: &str, status: &[(u16, u16)], body: Option<&str>| CheckKind::Http {
        tls: None,
        method: "GET".into(),
        path: path.into(),
        host: None,
        status: status.to_vec(),
        body: body.map(|text| Expect::Regex(text.into())),
    };
    assert_up(
        patient(plain, http("/ready", &[(200, 200)], Some("^ready to"))),
        "HTTP 200, the expected body",
    );
    assert_up(patient(plain, http("/moved", &[(200, 399)], None)), "HTTP 301");
    assert_up(patient(plain, http("/host", &[(200, 200)], Some("^127\\.0\\.0\\.1$"))), "HTTP 200");
    assert_down(patient(plain, http("/ill", &[(200, 399)], None)), "HTTP 503, expected 200-399");
    assert_down(patient(plain, http("/absent", &[(200, 399)], None)), "HTTP 404");
    assert_down(patient(plain, http("/large", &[(200, 399)], Some("y"))), "not the expected body");
    // A plain request where TLS is spoken, and the other way round.
    assert_down(patient(secure, http("/ready", &[(200, 399)], None)), "HTTP 400");
    assert_down(patient(plain, https(tls(None, None), "/ready", None)), "TLS handshake");

    // Anybody's certificate will do, a whole handshake is made.
    assert_up(patient(secure, https(tls(None, None), "/ready", Some("ready"))), "HTTP 200");
    assert_up(patient(secure, CheckKind::Tls(tls(None, None))), "handshake done, TLS 1.3");
    assert_up(patient(old, CheckKind::Tls(tls(None, None))), "handshake done, TLS 1.2");
    // With an authority: the name, or the address, must be in the certificate.
    let ca = Some(certificates.ca.as_path());
    for (name, port) in [(Some("app.example"), secure), (None, secure), (Some("app.example"), old)] {
        assert_up(patient(port, CheckKind::Tls(tls(name, ca))), "handshake done");
    }
    let named =
        Probe { host: HostName::new("app.example"), ..patient(secure, CheckKind::Tls(tls(None, ca))) };
    assert_up(named.clone(), "handshake done");
    assert_down(
        Probe { host: HostName::new("other.example"), ..named },
        "TLS handshake: invalid peer certificate",
    );
    assert_down(patient(secure, CheckKind::Tls(tls(Some("other.example"), ca))), "invalid peer certificate");
    let stranger = Some(certificates.other_ca.as_path());
    assert_down(patient(secure, CheckKind::Tls(tls(Some("app.example"), stranger))), "UnknownIssuer");
    let absent = directory.join("absent.pem");
    assert_down(patient(secure, CheckKind::Tls(tls(None, Some(&absent)))), "absent.pem: No such file");
    let key = certificates.server.1.as_path();
    assert_down(patient(secure, CheckKind::Tls(tls(None, Some(key)))), "no certificate in it");
    let ready = patient(secure, https(tls(None, None), "/ready", None));
    assert_freezing_is_found(&server, with(ready, |check| check.timeout = Duration::from_millis(500)));
}

#[test]
fn a_server_must_have_the_key_of_its_certificate() {
    use std::sync::Arc;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
    use tokio_rustls::rustls::sign::CertifiedKey;
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, version};

    #[derive(Debug)]
    struct Shown(Arc<CertifiedKey>);
    impl ResolvesServerCert for Shown {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    let directory = Directory::new();
    let certificates = certificates(&directory);
    let shown = CertificateDer::from_pem_file(&certificates.server.0).unwrap();
    let right = directory.join("server.key");
    let wrong = directory.join("other.key");
    for (key, up) in [(right, true), (wrong, false)] {
        for protocol in [&version::TLS12, &version::TLS13] {
            let key = PrivateKeyDer::from_pem_file(&key).unwrap();
            let key = ring::sign::any_supported_type(&key).unwrap();
            let resolver = Shown(Arc::new(CertifiedKey::new(vec![shown.clone()], key)));
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[protocol])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(resolver));
            let config = Arc::new(config);
            let address = server(move |mut stream| {
                let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
                _ = connection.complete_io(&mut stream);
            });
            let (found, reason) = verdict(patient(address, CheckKind::Tls(tls(None, None))));
            assert_eq!(found, up, "{protocol:?}: {reason}");
        }
    }
}

#[test]
fn smtp() {
    let directory = Directory::new();
    let address = free_port();
    let mut command = Command::new(find("python3"));
    command.args(["-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", &address.to_string()]);
    // The package's absence is told by its program, not by a traceback.
    find("aiosmtpd");
    let server = Server::listening(&mut command, &directory, address);
    let ready = patient(address, CheckKind::Smtp { hello: "portway.example".into() });
    assert_up(ready.clone(), "answered EHLO");
    assert_freezing_is_found(&server, with(ready, |check| check.timeout = Duration::from_millis(500)));
}

#[test]
fn dnsmasq() {
    let directory = Directory::new();
    let address = free_port();
    let hosts = directory.write("hosts", "10.0.0.1 app.example\nfd00::1 app.example\n");
    let mut command = Command::new(find("dnsmasq"));
    command.args(["-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--listen-address=127.0.0.1", "--local-ttl=60", "--user=root", "--local=/example/"]);
    command.args(["--srv-host=_pg._tcp.example,app.example,5432,10,60"]);
    command.arg(format!("--addn-hosts={}", hosts.display())).arg(format!("--port={}", address.port()));
    command.arg(format!("--pid-file={}", directory.join("pid").display()));
    let server = Server::listening(&mut command, &directory, address);
    let kind = |name: &str| CheckKind::Dns { name: HostName::new(name) };
    let ready = patient(address, kind("app.example"));
    assert_up(ready.clone(), "answered NOERROR");
    assert_down(patient(address, kind("absent.example")), "answered NXDOMAIN");
    assert_down(patient(address, CheckKind::Dns { name: None }), "answered REFUSED");
    let dns = Dns { servers: vec![address], ..Dns::default() };
    let watching = Watching::start();
    watching.set_lookups([Lookup::Addresses("app.example".into())], &dns);
    let addresses: Vec<_> = watching.answer().iter().map(|record| record.address).collect();
    assert_eq!(addresses, [ip("10.0.0.1"), ip("fd00::1")]);
    watching.set_lookups([Lookup::Service("_pg._tcp.example".into())], &dns);
    let records: Vec<_> =
        watching.answer().iter().map(|r| (r.address, r.port, r.priority, r.weight)).collect();
    assert_eq!(records, [(ip("10.0.0.1"), Some(5432), 10, 60), (ip("fd00::1"), Some(5432), 10, 60)]);
    assert_freezing_is_found(&server, with(ready, |check| check.timeout = Duration::from_millis(500)));
}
