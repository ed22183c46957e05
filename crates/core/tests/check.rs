//! The conversations of the checks, on bytes as real servers send them (PostgreSQL 15, MariaDB 10.11, Redis 7.0,
//! nginx 1.22, aiosmtpd 1.4, dnsmasq 2.90) and on bytes that no server should send.
//!
//! Every case is also fed byte by byte: what a server means does not depend on how the network cuts it.

use std::sync::Arc;

use portway_core::check::{Conversation, End, Pattern, Step};
use portway_core::facts::Probe;
use portway_core::ruleset::{Check, CheckKind, Expect, HostName, Tls};
use proptest::prelude::*;

/// The first two bytes of a query.
const RANDOM: u64 = 0x3412;

fn probe(kind: &CheckKind) -> Probe {
    Probe {
        address: "10.0.0.1:80".parse().expect("an address"),
        check: Arc::new(Check::new(kind.clone())),
        host: HostName::new("app.example"),
    }
}

fn conversation(kind: &CheckKind) -> Conversation {
    let pattern = Pattern::of(kind).expect("a valid pattern");
    Conversation::new(&probe(kind), pattern.as_ref(), RANDOM).expect("a kind that says something")
}

/// What was sent, and the verdict, when the server says `answers`: one each time that the conversation waits, in
/// pieces of at most `piece` bytes, and then `end`.
fn played(kind: &CheckKind, answers: &[&[u8]], piece: usize, end: End) -> (Vec<Vec<u8>>, Step) {
    let mut conversation = conversation(kind);
    let mut pieces = answers.iter().flat_map(|answer| answer.chunks(piece));
    let mut sent = Vec::new();
    loop {
        match conversation.step() {
            Step::Send(bytes) => sent.push(bytes),
            Step::Wait => match pieces.next() {
                Some(piece) => conversation.feed(piece),
                None => conversation.end(end),
            },
            verdict => {
                assert_eq!(conversation.step(), verdict, "a verdict stays");
                sent.push(conversation.farewell().to_vec());
                return (sent, verdict);
            }
        }
    }
}

/// As [`played`], whole and byte by byte. What a reason quotes is what had come by then.
fn talk(kind: &CheckKind, answers: &[&[u8]]) -> (Vec<Vec<u8>>, Step) {
    let whole = played(kind, answers, Conversation::PIECE, End::Closed);
    let cut = played(kind, answers, 1, End::Closed);
    assert_eq!(is_good(&cut.1), is_good(&whole.1), "{answers:?}: {cut:?}, {whole:?}");
    whole
}

fn verdict(kind: &CheckKind, answers: &[&[u8]]) -> Step {
    talk(kind, answers).1
}

fn good(words: &str) -> Step {
    Step::Good(words.to_owned())
}

fn is_good(step: &Step) -> bool {
    matches!(step, Step::Good(_))
}

#[track_caller]
fn assert_bad(kind: &CheckKind, answers: &[&[u8]], reason: &str) {
    match verdict(kind, answers) {
        Step::Bad(found) => assert!(found.contains(reason), "{found:?} lacks {reason:?}"),
        step => panic!("{step:?} for {answers:?}, expected {reason:?}"),
    }
}

fn tcp(send: Option<&str>, expect: Option<Expect>) -> CheckKind {
    CheckKind::Tcp { send: send.map(|text| text.as_bytes().to_vec()), expect }
}

fn regex(text: &str) -> Option<Expect> {
    Some(Expect::Regex(text.to_owned()))
}

fn bytes(bytes: &[u8]) -> Option<Expect> {
    Some(Expect::Bytes(bytes.to_vec()))
}

#[test]
fn kinds_without_bytes_have_no_conversation() {
    let command = CheckKind::Command { words: vec!["/bin/true".into()] };
    for kind in [tcp(None, None), CheckKind::Tls(Tls::default()), command] {
        assert!(Conversation::new(&probe(&kind), None, RANDOM).is_none(), "{kind}");
    }
}

#[test]
fn tcp_sends_and_expects() {
    let (sent, step) = talk(&tcp(Some("hello\n"), bytes(b"\x00wor\xff")), &[b"...\x00wor", b"\xff..."]);
    assert_eq!((sent[0].as_slice(), step), (&b"hello\n"[..], good("the expected answer")));
    // Whoever expects nothing is content with having sent.
    assert_eq!(verdict(&tcp(Some("hello\n"), None), &[]), good("sent"));
    // The greeting of a server that speaks first.
    assert_eq!(
        verdict(&tcp(None, regex(r"^SSH-2\.0-")), &[b"SSH-2.0-OpenSSH_9.2\r\n"]),
        good("the expected answer")
    );
    assert_bad(
        &tcp(None, regex(r"^SSH-2\.0-")),
        &[b"HTTP/1.1 400 Bad Request\r\n"],
        "\"HTTP/1.1 400 Bad Request\"",
    );
    assert_bad(&tcp(None, bytes(b"x")), &[], "closed without an answer");
    assert_eq!(verdict(&tcp(None, regex(r"(?-u)\xfe")), &[b"\xff\xfe"]), good("the expected answer"));
}

#[test]
fn an_expectation_that_is_no_expression_is_refused() {
    assert!(Pattern::new(&Expect::Regex("(".into())).is_err());
    assert!(Pattern::new(&Expect::Regex(r"\w{1000}{1000}".into())).is_err());
}

#[test]
fn no_more_than_a_window_of_an_answer_is_looked_at() {
    let kind = tcp(None, bytes(b"needle"));
    let hay = vec![b'.'; 64 * 1024 - 6];
    assert_eq!(verdict(&kind, &[&hay, b"needle"]), good("the expected answer"));
    assert_bad(&kind, &[&hay, b".needle"], "not the expected answer");
    // Far more than that, so that looking anew at each byte would take minutes.
    let mut conversation = conversation(&tcp(None, regex("([a-z]+x)*end$")));
    for _ in 0..64 * 1024 {
        assert_eq!(conversation.step(), Step::Wait);
        conversation.feed(b"a");
    }
    conversation.feed(b"a");
    assert!(matches!(conversation.step(), Step::Bad(_)));
}

#[test]
fn time_that_is_up_is_the_last_look() {
    let kind = tcp(None, bytes(b"x"));
    let verdict = |answers: &[&[u8]]| played(&kind, answers, 1, End::TimeUp).1;
    assert_eq!(verdict(&[]), Step::Bad("no answer in time".into()));
    assert_eq!(verdict(&[b"abc"]), Step::Bad("not the expected answer: \"abc\"".into()));
    let kind = CheckKind::Smtp { hello: "portway".into() };
    assert_eq!(played(&kind, &[b"220-x\r\n"], 1, End::TimeUp).1, Step::Bad("no whole answer in time".into()));
}

fn http(status: &[(u16, u16)], body: Option<Expect>) -> CheckKind {
    CheckKind::Http {
        tls: None,
        method: "GET".into(),
        path: "/health?x=1".into(),
        host: None,
        status: status.to_vec(),
        body,
    }
}

/// nginx's answer, with a length.
const NGINX: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Thu, 26 Nov 2026 15:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nready\n";

#[test]
fn http_asks_and_judges_the_status() {
    let (sent, step) = talk(&http(&[(200, 399)], None), &[NGINX]);
    let request = "GET /health?x=1 HTTP/1.1\r\nHost: app.example\r\nUser-Agent: portway\r\nAccept: */*\r\n\
                   Connection: close\r\n\r\n";
    assert_eq!((String::from_utf8(sent[0].clone()).unwrap().as_str(), step), (request, good("HTTP 200")));
    let unavailable = b"HTTP/1.1 503 Service Temporarily Unavailable\r\nContent-Length: 0\r\n\r\n";
    assert_bad(&http(&[(200, 299), (301, 301)], None), &[unavailable], "HTTP 503, expected 200-299, 301");
    assert_eq!(verdict(&http(&[(503, 503)], None), &[unavailable]), good("HTTP 503"));
    // Interim responses come first, old versions and bare line feeds are understood.
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    assert_eq!(verdict(&http(&[(200, 200)], None), &[hints, hints, NGINX]), good("HTTP 200"));
    assert_eq!(verdict(&http(&[(200, 200)], None), &[b"HTTP/1.0 200 OK\n\n"]), good("HTTP 200"));
}

#[test]
fn http_says_which_host_is_meant() {
    let head = |probe: &Probe| {
        let mut conversation = Conversation::new(probe, None, RANDOM).unwrap();
        let Step::Send(request) = conversation.step() else { panic!("no request") };
        String::from_utf8(request).unwrap().lines().nth(1).unwrap().to_owned()
    };
    let mut named = probe(&http(&[(200, 200)], None));
    named.address.set_port(8080);
    assert_eq!(head(&named), "Host: app.example:8080");
    let mut bare = Probe { host: None, ..named.clone() };
    assert_eq!(head(&bare), "Host: 10.0.0.1:8080");
    bare.address = "[2001:db8::1]:80".parse().unwrap();
    assert_eq!(head(&bare), "Host: [2001:db8::1]");
    let mut kind = http(&[(200, 200)], None);
    let CheckKind::Http { host, tls, .. } = &mut kind else { unreachable!() };
    (*host, *tls) = (Some("other.example".into()), Some(Tls::default()));
    assert_eq!(head(&probe(&kind)), "Host: other.example");
}

#[test]
fn http_finds_the_end_of_the_body() {
    let ready = http(&[(200, 299)], regex("ready\n$"));
    assert_eq!(verdict(&ready, &[NGINX]), good("HTTP 200, the expected body"));
    let chunked: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;name=value\r\nrea\r\n",
        b"00003\r\ndy\n\r\n0\r\nTrailer: x\r\n\r\n",
    ];
    assert_eq!(verdict(&ready, chunked), good("HTTP 200, the expected body"));
    assert_eq!(
        verdict(&ready, &[b"HTTP/1.1 200 OK\r\n\r\nrea", b"dy\n"]),
        good("HTTP 200, the expected body")
    );
    let other = http(&[(200, 299)], bytes(b"other"));
    for answers in [&[NGINX][..], chunked, &[b"HTTP/1.1 200 OK\r\n\r\nready\n"]] {
        assert_bad(&other, answers, "not the expected body: \"ready\"");
    }
    assert_bad(&other, &[&NGINX[..NGINX.len() - 1]], "closed in the middle");
    assert_bad(&other, &[b"HTTP/1.1 204 No Content\r\n\r\n"], "not the expected body: \"\"");
    let mut head = other.clone();
    let CheckKind::Http { method, .. } = &mut head else { unreachable!() };
    *method = "HEAD".into();
    assert_bad(&head, &[&NGINX[..NGINX.len() - 6]], "not the expected body: \"\"");
    // A body that never ends is looked at as far as the window reaches.
    let endless = vec![b'.'; 80 * 1024];
    assert_bad(&other, &[b"HTTP/1.1 200 OK\r\n\r\n", &endless], "not the expected body");
    let late = [&endless[..60 * 1024], b"other"].concat();
    assert_eq!(
        verdict(&other, &[b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", &late]),
        good("HTTP 200, the expected body")
    );
}

#[test]
fn http_refuses_what_is_not_http() {
    let kind = http(&[(200, 599)], bytes(b"x"));
    assert_bad(&kind, &[b"SSH-2.0-OpenSSH_9.2\r\n\r\n"], "not HTTP");
    assert_bad(&kind, &[&[b'a'; 70 * 1024]], "more than 32768 bytes");
    let cases: [(&[u8], &str); 6] = [
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", "two different content-lengths"),
        (b"Content-Length: -1\r\n", "a wrong content-length: \"-1\""),
        (b"Content-Length: 99999999999999999999\r\n", "a wrong content-length"),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "a wrong chunk size: \"zz\""),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "a chunk longer than its size"),
        (b"Transfer-Encoding: chunked\r\n\r\n1;", "closed in the middle"),
    ];
    for (rest, reason) in cases {
        assert_bad(&kind, &[b"HTTP/1.1 200 OK\r\n", rest, b"\r\n"], reason);
    }
    let interim = [b"HTTP/1.1 100 Continue\r\n\r\n".as_slice(); 10];
    assert_bad(&kind, &interim, "interim");
    let many = b"A: b\r\n".repeat(200);
    assert_bad(&kind, &[b"HTTP/1.1 200 OK\r\n", &many, b"\r\n"], "not HTTP");
}

fn postgresql() -> CheckKind {
    CheckKind::Postgresql { user: "portway".into(), database: Some("postgres".into()) }
}

/// An ErrorResponse of PostgreSQL 15.
fn refusal(state: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{state}\0M{message}\0Fpostinit.c\0L948\0RInitPostgres\0\0");
    [b"E", &u32::try_from(fields.len() + 4).expect("short").to_be_bytes()[..], fields.as_bytes()].concat()
}

#[test]
fn postgresql_lets_in_or_asks_for_a_password() {
    let scram = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let (sent, step) = talk(&postgresql(), &[scram]);
    let start = b"\0\0\0\x41\0\x03\0\0user\0portway\0database\0postgres\0application_name\0portway\0\0";
    assert_eq!((sent, step), (vec![start.to_vec(), vec![]], good("asks for a password")));
    let inside: &[&[u8]] = &[
        b"R\0\0\0\x08\0\0\0\0",
        b"S\0\0\0\x17in_hot_standby\0off\0S\0\0\0\x19client_encoding\0UTF8\0",
        b"K\0\0\0\x0c\0\0n\xb8+7R\xa8Z\0\0\0\x05I",
    ];
    let (sent, step) = talk(&postgresql(), inside);
    assert_eq!((sent.last().unwrap().as_slice(), step), (&b"X\0\0\0\x04"[..], good("ready for a query")));
    // It is well only once it is ready: connections may run out behind the log-in.
    assert_bad(&postgresql(), &inside[..2], "closed in the middle");
}

#[test]
fn postgresql_says_by_its_sqlstate_how_it_is() {
    let well = [("28000", "no pg_hba.conf entry"), ("28P01", "password"), ("3D000", "no such database")];
    for (state, message) in well {
        assert_eq!(
            verdict(&postgresql(), &[&refusal(state, message)]),
            good(&format!("SQLSTATE {state}: {message}")),
            "{state}"
        );
    }
    let ill = [
        ("57P03", "the database system is starting up"),
        ("57P01", "terminating connection due to administrator command"),
        ("53300", "sorry, too many clients already"),
        ("XX000", "could not load pg_hba.conf"),
    ];
    for (state, message) in ill {
        assert_bad(&postgresql(), &[&refusal(state, message)], &format!("SQLSTATE {state}: {message}"));
        // PostgreSQL 15 reports full connection slots behind a log-in.
        let (sent, step) = talk(&postgresql(), &[b"R\0\0\0\x08\0\0\0\0", &refusal(state, message)]);
        assert_eq!(sent.last().unwrap(), b"", "{step:?}");
        assert!(matches!(step, Step::Bad(_)));
    }
    assert_bad(&postgresql(), &[b"Ecould not fork new process for connection\n\0"], "not PostgreSQL");
    assert_bad(&postgresql(), &[b"HTTP/1.1 400 Bad Request\r\n"], "not PostgreSQL");
    assert_bad(&postgresql(), &[b"E\0\0\0\x03"], "not PostgreSQL");
    assert_bad(&postgresql(), &[b"E\0\0\0\x04"], "SQLSTATE ");
    for endless in [&b"N\0\0\0\x05\0"[..], b"R\0\0\0\x08\0\0\0\0"] {
        assert_bad(&postgresql(), &[&endless.repeat(300)], "no end of messages");
    }
}

/// The greeting of MariaDB 10.11.
const MARIADB: &[u8] =
    b"\x64\0\0\0\x0a5.5.5-10.11.19-MariaDB-0+deb12u1\0\x03\0\0\0@H(/R1=|\0\xfe\xf7\x08\x02\0\xff\
    \x81\x15\0\0\0\0\0\0\x1d\0\0\0zrK`!\"%4sh/Q\0mysql_native_password\0";
const OK: &[u8] = b"\x07\0\0\x02\0\0\0\x02\0\0\0";

/// An ERR packet.
fn err(number: u8, code: u16, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 3).expect("short");
    [&[length, 0, 0, number, 0xff][..], &code.to_le_bytes(), text.as_bytes()].concat()
}

fn denied() -> Vec<u8> {
    err(2, 1045, "#28000Access denied for user 'x'@'y' (using password: NO)")
}

#[test]
fn mysql_with_a_user_must_log_in() {
    let kind = CheckKind::Mysql { user: Some("probe".into()) };
    let (sent, step) = talk(&kind, &[MARIADB, OK]);
    let mut response = b"\x3d\0\0\x01\x00\xa2\x08\0\0\0\0\x01\x2d".to_vec();
    response.extend([0; 23]);
    response.extend(b"probe\0\0mysql_native_password\0");
    assert_eq!(sent, [response, b"\x01\0\0\0\x01".to_vec()]);
    assert_eq!(step, good("logged in"));
    assert_bad(&kind, &[MARIADB, &denied()], "error 1045: Access denied for user");
    // Another method: an empty password there, too.
    let switch = b"\x1d\0\0\x02\xfemysql_clear_password\0abcdef\0";
    let (sent, step) = talk(&kind, &[MARIADB, switch, b"\x07\0\0\x04\0\0\0\x02\0\0\0"]);
    assert_eq!((sent[1].as_slice(), step), (&b"\0\0\0\x03"[..], good("logged in")));
    assert_eq!(
        verdict(&kind, &[MARIADB, b"\x02\0\0\x02\x01\x03", b"\x07\0\0\x03\0\0\0\x02\0\0\0"]),
        good("logged in")
    );
    assert_bad(&kind, &[MARIADB, b"\x02\0\0\x02\x01\x04"], "asks for a password");
    assert_bad(&kind, &[MARIADB, b"\x01\0\0\x02\xfe"], "old password");
}

#[test]
fn mysql_without_a_user_must_answer_a_log_in() {
    let kind = CheckKind::Mysql { user: None };
    let answers: [(&[u8], &str); 3] = [
        (OK, "logged in"),
        (&denied(), "error 1045: Access denied for user 'x'@'y' (using password: NO)"),
        (b"\x02\0\0\x02\x01\x04", "asks for a password"),
    ];
    for (answer, words) in answers {
        let (sent, step) = talk(&kind, &[MARIADB, answer]);
        assert!(sent[0].windows(9).any(|part| part == b"portway\0\0"), "{sent:?}");
        assert_eq!(step, good(words));
    }
    assert_bad(&kind, &[&err(0, 1040, "Too many connections")], "error 1040: Too many connections");
    assert_bad(
        &kind,
        &[&err(0, 1129, "Host '10.9.9.9' is blocked")],
        "error 1129: Host '10.9.9.9' is blocked",
    );
    assert_bad(
        &kind,
        &[MARIADB, &err(2, 1053, "#08S01Server shutdown in progress")],
        "1053: Server shutdown",
    );
    assert_bad(&kind, &[MARIADB], "closed in the middle");
    assert_bad(&kind, &[b"SSH-2.0-OpenSSH_9.2\r\n"], "not MySQL");
    assert_bad(&kind, &[b"\x04\0\0\0\x09abc"], "not MySQL's protocol 10");
    assert_bad(&kind, &[MARIADB, &b"\x02\0\0\x02\x01\x03".repeat(20)], "no end of packets");
}

#[test]
fn redis_answers_a_ping() {
    let open = CheckKind::Redis { password: None };
    let (sent, step) = talk(&open, &[b"+PONG\r\n"]);
    assert_eq!((sent[0].as_slice(), step), (&b"*1\r\n$4\r\nPING\r\n"[..], good("PONG")));
    assert_eq!(
        verdict(&open, &[b"-NOAUTH Authentication required.\r\n"]),
        good("NOAUTH Authentication required.")
    );
    let ill = [
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "DENIED Redis is running in protected mode",
    ];
    for text in ill {
        assert_bad(&open, &[format!("-{text}\r\n").as_bytes()], text.split(' ').next().unwrap());
    }
    assert_bad(&open, &[b"HTTP/1.1 400 Bad Request\r\n"], "not Redis");
    assert_bad(&open, &[b"+OK\r\n"], "not Redis");
    assert_bad(&open, &[&[b'+'; 5000]], "more than 4096 bytes");
}

#[test]
fn redis_with_a_password_must_accept_it() {
    let kind = CheckKind::Redis { password: Some("sécret\r\n".into()) };
    let (sent, step) = talk(&kind, &[b"+OK\r\n", b"+PONG\r\n"]);
    assert_eq!(
        (sent[0].as_slice(), step),
        ("*2\r\n$4\r\nAUTH\r\n$9\r\nsécret\r\n\r\n".as_bytes(), good("PONG"))
    );
    assert_bad(&kind, &[b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"], "WRONGPASS");
    assert_bad(&kind, &[b"+OK\r\n", b"-LOADING Redis is loading\r\n"], "LOADING");
    assert_bad(&kind, &[b"+OK\r\n", b"-NOAUTH Authentication required.\r\n"], "NOAUTH");
    let none = b"-ERR AUTH <password> called without any password configured for the default user. Are you sure?\r\n";
    assert_eq!(verdict(&kind, &[none, b"+PONG\r\n"]), good("PONG"));
}

#[test]
fn smtp_greets_and_answers() {
    let kind = CheckKind::Smtp { hello: "portway.example\r\nQUIT".into() };
    let (sent, step) = talk(
        &kind,
        &[b"220 localhost Python SMTP 1.4.3\r\n", b"250-localhost\r\n250-8BITMIME\r\n250 HELP\r\n"],
    );
    assert_eq!(sent, [b"EHLO portway.exampleQUIT\r\n".to_vec(), b"QUIT\r\n".to_vec()]);
    assert_eq!(step, good("answered EHLO"));
    assert_eq!(verdict(&kind, &[b"220-a\r\n220-b\r\n220 c\r\n", b"250\r\n"]), good("answered EHLO"));
    assert_bad(&kind, &[b"421 too busy\r\n"], "greeting \"421 too busy\"");
    assert_bad(&kind, &[b"220 a\r\n", b"250-a\r\n550 go away\r\n"], "answer to EHLO \"550 go away\"");
    assert_bad(&kind, &[b"220 a\r\n", b"250-a\r\n"], "closed in the middle");
    assert_bad(&kind, &[b"SSH-2.0-OpenSSH_9.2\r\n"], "not SMTP");
    assert_bad(&kind, &[b"22x hello\r\n"], "not SMTP");
    assert_bad(&kind, &[&b"220-a\r\n".repeat(200)], "not SMTP");
}

fn dns(name: Option<&str>) -> CheckKind {
    CheckKind::Dns { name: name.map(|name| HostName::new(name).expect("a name")) }
}

/// A datagram is not cut: no byte by byte here.
fn datagrams(kind: &CheckKind, answers: &[&[u8]]) -> (Vec<Vec<u8>>, Step) {
    played(kind, answers, Conversation::PIECE, End::TimeUp)
}

#[test]
fn dns_is_answered_without_an_error() {
    let question = b"\x03app\x07example\x00\0\x01\0\x01";
    // dnsmasq's answer; a resolver may give the name back in another case.
    let answer = b"\x12\x34\x85\x80\0\x01\0\x01\0\0\0\0\x03APP\x07example\x00\0\x01\0\x01\
                   \xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\0\0\x01";
    let (sent, step) = datagrams(&dns(Some("app.example")), &[answer]);
    assert_eq!(sent[0], [&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], question].concat());
    assert_eq!(step, good("answered NOERROR"));
    let refused = b"\x12\x34\x81\x85\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";
    assert_eq!(datagrams(&dns(None), &[refused]).1, Step::Bad("answered REFUSED".into()));
    // What does not belong to the query is passed over: another id, a query, another question, half a header.
    let strangers: [&[u8]; 4] = [
        b"\x12\x35\x81\x85\0\x01\0\0\0\0\0\0\0\0\x02\0\x01",
        b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\0\0\x02\0\x01",
        b"\x12\x34\x81\x85\0\x01\0\0\0\0\0\0\0\0\x01\0\x01",
        b"\x12\x34\x81",
    ];
    let answer = b"\x12\x34\x81\x80\0\x01\0\0\0\0\0\0\0\0\x02\0\x01".as_slice();
    for stranger in strangers {
        assert_eq!(datagrams(&dns(None), &[stranger, answer]).1, good("answered NOERROR"));
        assert_eq!(datagrams(&dns(None), &[stranger]).1, Step::Bad("no whole answer in time".into()));
    }
}

#[test]
fn udp_judges_the_first_datagram() {
    let kind = |expect| CheckKind::Udp { send: b"ping".to_vec(), expect };
    let (sent, step) = datagrams(&kind(bytes(b"pong")), &[b"a pong"]);
    assert_eq!((sent[0].as_slice(), step), (&b"ping"[..], good("the expected answer")));
    assert_eq!(
        datagrams(&kind(bytes(b"pong")), &[b"other", b"pong"]).1,
        Step::Bad("not the expected answer: \"other\"".into())
    );
    assert_eq!(datagrams(&kind(None), &[b"x"]).1, good("answered"));
    assert_eq!(datagrams(&kind(None), &[]).1, Step::Bad("no answer in time".into()));
}

#[test]
fn a_reason_is_printable_and_not_long() {
    let noise: Vec<u8> = (0..=255).cycle().skip(128).take(2000).filter(|byte| *byte != b'\n').collect();
    for kind in kinds() {
        let (_, step) = played(&kind, &[&noise], 4096, End::Closed);
        let (Step::Good(words) | Step::Bad(words)) = step else { panic!("{step:?}") };
        assert!(words.len() < 1000 && words.chars().all(|c| (' '..='~').contains(&c)), "{words:?}");
    }
}

fn kinds() -> Vec<CheckKind> {
    vec![
        tcp(Some("x"), regex("(a|b)+c$")),
        tcp(None, bytes(b"abc")),
        http(&[(200, 299)], regex("c$")),
        postgresql(),
        CheckKind::Mysql { user: None },
        CheckKind::Mysql { user: Some("u".into()) },
        CheckKind::Redis { password: None },
        CheckKind::Redis { password: Some("p".into()) },
        CheckKind::Smtp { hello: "portway".into() },
        dns(None),
        CheckKind::Udp { send: b"x".to_vec(), expect: bytes(b"a") },
    ]
}

/// Beginnings that lead deep into a protocol, so that noise is not refused at its first byte.
fn beginning() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n".to_vec()),
        Just(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x17".to_vec()),
        Just(b"E\0\0\0\x30".to_vec()),
        Just(MARIADB.to_vec()),
        Just([MARIADB, b"\x1d\0\0\x02\xfe"].concat()),
        Just(b"+OK\r\n-".to_vec()),
        Just(b"220 a\r\n250-".to_vec()),
        Just(b"\x12\x34\x81\x80\0\x01\0\0".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any bytes in any pieces: no panic, a verdict at the end, and for a stream one that does not depend on the
    /// pieces.
    #[test]
    fn any_bytes_lead_to_a_verdict(
        beginning in beginning(),
        times in prop_oneof![Just(1_usize), Just(1), Just(400)],
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0')], 0..400),
        piece in prop_oneof![1_usize..50, Just(Conversation::PIECE)],
    ) {
        let said = [beginning.repeat(times), noise].concat();
        for kind in kinds() {
            let (_, cut) = played(&kind, &[&said], piece, End::Closed);
            let (_, whole) = played(&kind, &[&said], Conversation::PIECE, End::Closed);
            prop_assert!(matches!(cut, Step::Good(_) | Step::Bad(_)));
            let stream = !matches!(kind, CheckKind::Udp { .. } | CheckKind::Dns { .. });
            // A pattern may be found early in the beginning of an answer that its whole does not match.
            let anchored = match &kind {
                CheckKind::Tcp { expect, .. } => matches!(expect, Some(Expect::Regex(_))),
                kind => matches!(kind, CheckKind::Http { .. }),
            };
            if stream && !anchored {
                prop_assert_eq!(is_good(&cut), is_good(&whole), "{}", kind);
            }
        }
    }
}
