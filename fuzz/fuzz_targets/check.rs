//! Any bytes in any pieces as what a server says to every health check: no panic, a verdict that stays, and words that
//! can be shown. The first bytes choose the sizes of the pieces.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use portway_core::check::{Conversation, End, Pattern, Step};
use portway_core::facts::Probe;
use portway_core::ruleset::{Check, CheckKind, Expect, HostName};

/// The id of a DNS query.
const RANDOM: u64 = 0x3412;
/// No conversation asks more often than this without having been fed: it would never end.
const STEPS: usize = 16;

static PROBES: LazyLock<Vec<(Probe, Option<Pattern>)>> = LazyLock::new(|| {
    let bytes = Some(Expect::Bytes(b"ab".to_vec()));
    let regex = Some(Expect::Regex("(a|b)+c$".to_owned()));
    let tcp = |expect| CheckKind::Tcp { send: Some(b"x".to_vec()), expect };
    let http = |method: &str, body| CheckKind::Http {
        tls: None,
        method: method.to_owned(),
        path: "/".to_owned(),
        host: None,
        status: vec![(200, 399)],
        body,
    };
    let kinds = vec![
        tcp(bytes.clone()),
        tcp(regex.clone()),
        tcp(None),
        http("GET", bytes.clone()),
        http("GET", regex.clone()),
        http("HEAD", bytes.clone()),
        http("GET", None),
        CheckKind::Postgresql { user: "portway".to_owned(), database: None },
        CheckKind::Mysql { user: None },
        CheckKind::Mysql { user: Some("probe".to_owned()) },
        CheckKind::Redis { password: None },
        CheckKind::Redis { password: Some("secret".to_owned()) },
        CheckKind::Smtp { hello: "portway".to_owned() },
        CheckKind::Dns { name: None },
        CheckKind::Dns { name: HostName::new("app.example") },
        CheckKind::Udp { send: b"x".to_vec(), expect: bytes },
        CheckKind::Udp { send: b"x".to_vec(), expect: None },
    ];
    kinds
        .into_iter()
        .map(|kind| {
            let pattern = Pattern::of(&kind).expect("a valid pattern");
            let address = "10.0.0.1:80".parse().expect("an address");
            (Probe { address, check: Arc::new(Check::new(kind)), host: None }, pattern)
        })
        .collect()
});

/// Asks until it waits or has a verdict; the verdict.
fn asked(conversation: &mut Conversation) -> Option<Step> {
    for _ in 0..STEPS {
        match conversation.step() {
            Step::Send(bytes) => assert!(bytes.len() < 1024),
            Step::Wait => return None,
            verdict => return Some(verdict),
        }
    }
    panic!("a conversation that never waits");
}

fuzz_target!(|data: &[u8]| {
    let Some((sizes, said)) = data.split_first_chunk::<4>() else { return };
    for (probe, pattern) in PROBES.iter() {
        let mut conversation = Conversation::new(probe, pattern.as_ref(), RANDOM).expect("it says something");
        let mut sizes = sizes.iter().map(|size| usize::from(*size).pow(2) + 1).cycle();
        let mut rest = said;
        let mut verdict = asked(&mut conversation);
        while verdict.is_none() && !rest.is_empty() {
            let size = sizes.next().expect("a cycle never ends").min(rest.len());
            let (piece, behind) = rest.split_at(size);
            conversation.feed(piece);
            rest = behind;
            verdict = asked(&mut conversation);
        }
        let verdict = verdict.or_else(|| {
            conversation.end(if said.len() % 2 == 0 { End::Closed } else { End::TimeUp });
            asked(&mut conversation)
        });
        match &verdict {
            Some(Step::Good(words) | Step::Bad(words)) => {
                assert!(words.len() < 1024 && words.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
            other => panic!("no verdict at the end: {other:?}"),
        }
        // It stays, whatever comes.
        conversation.feed(said);
        assert_eq!(Some(conversation.step()), verdict);
    }
});
