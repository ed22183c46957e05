use std::fs;
use std::path::PathBuf;

use super::*;

/// A resolver with files of its own, in a directory that is the test's.
fn resolver(test: &str, resolv_conf: Option<&str>, hosts: &str, dns: &Dns) -> (PathBuf, Arc<Resolver>) {
    let directory = std::env::temp_dir().join(format!("portway-watch-{test}-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let files = Files { resolv_conf: directory.join("resolv.conf"), hosts: directory.join("hosts") };
    if let Some(text) = resolv_conf {
        fs::write(&files.resolv_conf, text).expect("a file");
    }
    fs::write(&files.hosts, hosts).expect("a file");
    (directory, Arc::new(Resolver { files, ..Resolver::new(dns) }))
}

fn resolve(resolver: &Arc<Resolver>, name: &str) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let lookup = Lookup::Addresses(name.to_owned());
    runtime.block_on(async { resolver.resolve(&lookup, &mut Kept::default()).await.0 })
}

fn found(outcome: Outcome) -> Vec<String> {
    match outcome {
        Outcome::Answered { mut records, ttl } => {
            assert_eq!(ttl, HOSTS_TTL);
            records.sort();
            records.iter().map(|record| record.address.to_string()).collect()
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn hosts_are_known_without_a_server() {
    let text =
        "127.0.0.1 localhost\n10.0.0.1 db db.example # the database\n10.0.0.2 db\nfd00::1 six.example\n";
    // A search list does not keep a short name from being found; nobody listens at the server's address.
    let (directory, resolver) =
        resolver("hosts", Some("search a.example b.example\nnameserver 127.0.0.1\n"), text, &Dns::default());
    assert_eq!(found(resolve(&resolver, "db")), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(found(resolve(&resolver, "db.example")), ["10.0.0.1"]);
    assert_eq!(found(resolve(&resolver, "six.example")), ["fd00::1"]);
    // The file is read again when it has changed.
    fs::write(directory.join("hosts"), "10.0.0.33 db\n").expect("a file");
    assert_eq!(found(resolve(&resolver, "db")), ["10.0.0.33"]);
    fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn servers_are_the_systems_or_the_files() {
    let text =
        "nameserver 10.0.0.1\nnameserver fd00::1\nnameserver 10.0.0.3\noptions timeout:30 attempts:9\n";
    let (directory, resolver) = resolver("servers", Some(text), "", &Dns::default());
    let made = resolver.made();
    let servers = made.servers.expect("servers");
    assert_eq!((servers.len(), made.each), (3, Dns::default().timeout / 3));
    // The time is ours, whatever the file says.
    for server in servers.iter() {
        assert_eq!((server.options().timeout, server.options().cache_size), (made.each, 0));
    }
    fs::write(directory.join("resolv.conf"), "nameserver 10.0.0.9\n").expect("a file");
    assert_eq!(resolver.made().servers.expect("servers").len(), 1);
    let own = Dns { servers: vec!["10.0.0.53:5353".parse().expect("an address"); 2], ..Dns::default() };
    assert_eq!(Resolver::new(&own).made().servers.expect("servers").len(), 2);
    fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn a_system_without_servers_is_said_to_be() {
    let (directory, resolver) = resolver("absent", None, "10.0.0.1 db\n", &Dns::default());
    assert_eq!(found(resolve(&resolver, "db")), ["10.0.0.1"]);
    for text in [None, Some("# nothing\n")] {
        if let Some(text) = text {
            fs::write(directory.join("resolv.conf"), text).expect("a file");
        }
        match resolve(&resolver, "other.example") {
            Outcome::Failed(words) => assert!(words.contains("resolv.conf"), "{words}"),
            outcome => panic!("{outcome:?}"),
        }
    }
    fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn a_name_that_is_none_is_a_failure() {
    let resolver = Arc::new(Resolver::new(&Dns::default()));
    assert!(matches!(resolve(&resolver, &"x".repeat(70)), Outcome::Failed(_)));
}
