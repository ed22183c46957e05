//! The choice by a hash of the client: the same client, the same backend, on every engine; what a change of the pool moves.

use std::net::{IpAddr, SocketAddr};

use crate::chance::assert_share;
use crate::client::{count, crowd, crowd4, crowd6, names, share, who_each};
use crate::farm::{Farm, Kind, POOL, POOL6, name, v4};
use crate::{Engine, Portway, Scratch, peer, process};

/// 3,000 clients, IPv4 and IPv6: each always meets the same backend, and the shares are those of the weights.
pub fn source_hash(engine: Engine) {
    const CLIENTS: u32 = 3000;
    let farm = Farm::new(Kind::Sign, 3);
    farm.net.crowd();
    let _twins = farm.with_v6();
    let weights = ["weight = 1", "weight = 2", "weight = 3"];
    let v6: Vec<String> = (0..).zip(weights).map(|(nth, keys)| Farm::backend_v6(nth, keys)).collect();
    let settings = "balance = 'source-hash'";
    let file = Farm::pool(engine, &weights, settings)
        + &engine.pool("[::]:8000", &v6, settings).replace("name = 'pool'", "name = 'v6'");
    let _portway = Portway::start(&farm.net.gateway, &file);
    for (to, address) in [(POOL, crowd4 as fn(u32) -> IpAddr), (POOL6, crowd6)] {
        let mut clients = crowd(CLIENTS, address);
        let mut first = who_each(farm.net.client(), &clients, to);
        for (backend, wanted) in [("a", 1.0 / 6.0), ("b", 2.0 / 6.0), ("c", 3.0 / 6.0)] {
            let found = share(&count(&first), backend);
            assert_share(&format!("{backend} by {to}"), found, wanted, CLIENTS as usize, 0.0);
        }
        clients.reverse();
        clients.truncate(500);
        first.reverse();
        let again = who_each(farm.net.client(), &clients, to);
        assert!(again == first[..500], "a client meets another backend when it comes back to {to}");
    }
}

/// Removing one of five backends moves a fifth of 2,000 clients, those of that backend, and of the others no more than
/// Maglev's table does: at most 2 % of all, chance included (the table of five moves 0.6 %, as `core`'s example says).
pub fn consistent_hash(engine: Engine) {
    const CLIENTS: u32 = 2000;
    let farm = Farm::new(Kind::Sign, 5);
    farm.net.crowd();
    let clients = crowd(CLIENTS, crowd4);
    let settings = "balance = 'consistent-hash'";
    let portway = Portway::start(&farm.net.gateway, &Farm::pool(engine, &[""; 5], settings));
    let before = who_each(farm.net.client(), &clients, POOL);
    for nth in 0..5 {
        let found = share(&count(&before), &name(nth));
        // A backend's share of the slots is within 1 % of its weight.
        assert_share(&name(nth), found, 0.2, CLIENTS as usize, 0.002);
    }
    let four: Vec<String> = [0, 1, 3, 4].map(|nth| Farm::backend(nth, "")).to_vec();
    portway.reload(&engine.pool("tcp+udp/0.0.0.0:8000", &four, settings));
    let after = who_each(farm.net.client(), &clients, POOL);
    let pairs = || before.iter().zip(&after);
    assert!(after.iter().all(|met| met != "c"), "c is gone");
    let moved = pairs().filter(|(before, after)| before != after).count() as f64 / f64::from(CLIENTS);
    let others = pairs().filter(|(before, after)| *before != "c" && before != after).count();
    let others = others as f64 / f64::from(CLIENTS);
    eprintln!("{engine}: {:.1} % of the clients moved, {:.1} % without need", moved * 100.0, others * 100.0);
    assert!(others <= 0.02, "{:.1} % moved that were not of the removed backend", others * 100.0);
    assert_share("moved", moved, 0.2, CLIENTS as usize, 0.02);
    // What left the removed backend is spread over all that stay.
    let heirs: Vec<String> =
        pairs().filter(|(before, _)| *before == "c").map(|(_, heir)| heir.clone()).collect();
    assert_eq!(names(&count(&heirs)), "abde");
    // Back again, everybody is where they were.
    portway.reload(&Farm::pool(engine, &[""; 5], settings));
    assert!(who_each(farm.net.client(), &clients, POOL) == before, "the same pool gives the same choice");
}

/// Every engine chooses the same backend for the same client: by address and by address and port, IPv4 and IPv6.
pub fn same_on_every_engine(_: Engine) {
    const ENGINES: [Engine; 3] = [Engine::Nftables, Engine::Ebpf, Engine::Proxy];
    let farm = Farm::new(Kind::Sign, 3);
    farm.net.crowd();
    let _twins = farm.with_v6();
    let keys = ["weight = 3", "", "weight = 2"];
    let v6: Vec<String> = (0..).zip(keys).map(|(nth, keys)| Farm::backend_v6(nth, keys)).collect();
    let file = |engine: Engine, settings: &str| {
        Farm::pool(engine, &keys, settings)
            + &engine.pool("[::]:8000", &v6, settings).replace("name = 'pool'", "name = 'v6'")
    };
    let mut portway = None;
    for balance in ["source-hash", "consistent-hash"] {
        for hash in ["source", "source-port"] {
            let settings = format!("balance = '{balance}'\nhash = '{hash}'");
            let mut met = ENGINES.map(|engine| {
                let file = file(engine, &settings);
                match &portway {
                    None => portway = Some(Portway::start(&farm.net.gateway, &file)),
                    Some(portway) => portway.reload(&file),
                }
                let one = |address: fn(u32) -> IpAddr, to| {
                    let client = |nth| (address(nth), 20_000 + nth as u16).into();
                    who_each(farm.net.client(), &(0..200).map(client).collect::<Vec<_>>(), to)
                };
                [one(crowd4, POOL), one(crowd6, POOL6)].concat()
            });
            for (engine, other) in ENGINES.iter().zip(&met) {
                assert!(*other == met[0], "{balance} by {hash}: {} and {engine} differ", ENGINES[0]);
            }
            met[0].sort();
            met[0].dedup();
            assert_eq!(met[0].concat(), "abc", "{balance} by {hash} uses every backend");
        }
    }
}

/// With `hash = "source-port"` the ports of one client are spread by the weights, and each comes back to its backend;
/// by its address alone the client meets one backend with all of them.
pub fn source_port(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 3);
    let keys = ["", "weight = 2", ""];
    let clients: Vec<SocketAddr> = (20_000..21_000).map(|port| ([10, 1, 0, 10], port).into()).collect();
    for balance in ["source-hash", "consistent-hash"] {
        let by = |hash| Farm::pool(engine, &keys, &format!("balance = '{balance}'\nhash = '{hash}'"));
        let portway = Portway::start(&farm.net.gateway, &by("source-port"));
        let first = who_each(farm.net.client(), &clients, POOL);
        for (backend, wanted) in [("a", 0.25), ("b", 0.5), ("c", 0.25)] {
            assert_share(backend, share(&count(&first), backend), wanted, clients.len(), 0.01);
        }
        assert!(
            who_each(farm.net.client(), &clients[..200], POOL) == first[..200],
            "a port meets another backend"
        );
        portway.reload(&by("source"));
        assert_eq!(
            count(&who_each(farm.net.client(), &clients[..200], POOL)).len(),
            1,
            "one client, one backend"
        );
    }
}

/// `hash = "sni"`: the server name decides, whoever asks; nginx speaks the TLS behind it.
pub fn sni(engine: Engine) {
    let farm = Farm::new(Kind::Sign, 3);
    farm.net.crowd();
    let files = Scratch::new();
    let (key, cert) = peer::certificate(&files, "*.test");
    let server = |nth: u8| {
        let (address, name) = (v4(nth), name(nth));
        format!("server {{ listen {address}:7443 ssl; return 200 \"{name}\\n\"; }}")
    };
    let nginx = format!(
        "worker_processes 1; events {{ worker_connections 1000; }} http {{ access_log off; \
         ssl_certificate {}; ssl_certificate_key {}; {} }}",
        cert.display(),
        key.display(),
        [0, 1, 2].map(server).concat()
    );
    let _nginx = peer::nginx_raw(farm.net.server(), &nginx, 7443);
    let backends = [0, 1, 2].map(|nth| Farm::backend(nth, "").replace(":7000", ":7443"));
    for balance in ["source-hash", "consistent-hash"] {
        let settings = format!("balance = '{balance}'\nhash = 'sni'");
        let _portway = Portway::start(&farm.net.gateway, &engine.pool("0.0.0.0:8000", &backends, &settings));
        let ask = |client: IpAddr, order: &mut dyn Iterator<Item = u32>| -> Vec<String> {
            let mut curl = farm.net.client().command("curl");
            curl.args(["-sSfk", "--max-time", "20", "--connect-to", &format!("::{POOL}")]);
            curl.args(["--interface", &client.to_string()]);
            curl.args(order.map(|nth| format!("https://name{nth}.test/")));
            process::run(&mut curl).lines().map(str::to_owned).collect()
        };
        let first = ask(crowd4(1), &mut (0..30));
        assert_eq!(names(&count(&first)), "abc", "thirty names use every backend");
        let mut second = ask(crowd4(2), &mut (0..30).rev());
        second.reverse();
        assert_eq!(second, first, "a name has its backend, whoever asks");
        // A client that speaks no TLS has no name; its address decides.
        let plain = |client| {
            let mut curl = farm.net.client().command("curl");
            curl.args(["-sS", "--max-time", "5", "--interface"]).arg(crowd4(client).to_string());
            process::run(curl.arg(format!("http://{POOL}/")))
        };
        assert!(plain(3).contains("400"), "nginx says that the request was plain");
    }
}
