//! The keys of `[rule.pool.check]`, each with the types of check that it belongs to.

use std::time::Duration;

use super::{Bounds, Key, Kind, Section, also_called, key, words_also_called};
use crate::ruleset::CheckKind;

/// Checks that open a connection or send a datagram: all but the command.
const NETWORK: &[&str] =
    &["tcp", "http", "https", "tls", "postgresql", "mysql", "redis", "smtp", "dns", "udp"];
const ANSWERED: &[&str] = &["tcp", "http", "https", "udp"];
const HTTP: &[&str] = &["http", "https"];
const SECURE: &[&str] = &["https", "tls"];
const RAW: &[&str] = &["tcp", "udp"];

const fn only(types: &'static [&'static str], key: Key) -> Key {
    Key { types, ..key }
}

const fn within(least: Duration, most: Duration) -> Kind {
    Kind::Duration(Bounds { least, most, whole_seconds: false })
}

const DAY: Duration = Duration::from_secs(86_400);

/// How backends are checked.
pub static CHECK: Section = Section {
    header: "[rule.pool.check]",
    doc: "Active health checks: each backend, and each address of a name, is asked at regular times, and gets new \
          connections only while it answers. Usually written in one line: `check = { type = \"http\", path = \"/up\" }`; \
          a word alone, `check = \"tcp\"`, is the type with all defaults. See *Checks*.",
    keys: &[
        words_also_called(
            also_called(
                key(
                    "type",
                    Kind::Choice(&CheckKind::WORDS),
                    "\"tcp\"",
                    "\"http\"",
                    "What is asked. See *Checks*.",
                ),
                &["kind", "protocol", "mode"],
            ),
            &[
                ("httpchk", "http"),
                ("http_get", "http"),
                ("ssl_get", "https"),
                ("ssl", "tls"),
                ("ssl-hello-chk", "tls"),
                ("pgsql", "postgresql"),
                ("pgsql-check", "postgresql"),
                ("postgres", "postgresql"),
                ("mariadb", "mysql"),
                ("mysql-check", "mysql"),
                ("redis-check", "redis"),
                ("smtpchk", "smtp"),
                ("smtp_check", "smtp"),
                ("dns_check", "dns"),
                ("udp_check", "udp"),
                ("tcp-check", "tcp"),
                ("tcp_check", "tcp"),
                ("connect", "tcp"),
                ("exec", "command"),
                ("script", "command"),
                ("external", "command"),
                ("external-check", "command"),
                ("misc_check", "command"),
            ],
        ),
        also_called(
            key(
                "interval",
                within(Duration::from_millis(100), DAY),
                "\"2s\"",
                "\"5s\"",
                "From the start of one check to that of the next while the backend is up; with a little jitter, so that \
                 checks do not fall into step.",
            ),
            &["inter", "delay_loop", "delay", "every", "period"],
        ),
        also_called(
            key(
                "interval-down",
                within(Duration::from_millis(100), DAY),
                "`\"1s\"`, or `interval` where that is shorter",
                "\"500ms\"",
                "The same while it is down or on its way up or down; not longer than `interval`.",
            ),
            &["fastinter", "downinter", "delay_before_retry"],
        ),
        also_called(
            key(
                "timeout",
                within(Duration::from_millis(10), DAY),
                "`\"1s\"`, or `interval` where that is shorter",
                "\"500ms\"",
                "How long one check may take in all; not longer than `interval`.",
            ),
            &["connect_timeout", "timeout-check", "misc_timeout"],
        ),
        also_called(
            key("rise", Kind::Number(1, 100), "2", "1", "Good checks in a row that bring a backend up."),
            &["passes", "healthy", "healthy-threshold"],
        ),
        also_called(
            key("fall", Kind::Number(1, 100), "3", "2", "Failed checks in a row that take a backend down."),
            &["retry", "fails", "unhealthy", "unhealthy-threshold", "max-fails", "max_fails"],
        ),
        also_called(
            key(
                "address",
                Kind::Text,
                "the backend's",
                "\"10.0.0.9\"",
                "The address to check, for every backend of the pool; without a port and without brackets.",
            ),
            &["addr", "connect_ip"],
        ),
        also_called(
            key(
                "port",
                Kind::Number(1, 65_535),
                "the backend's",
                "8080",
                "The port to check. A backend that has the listener's port, or a range, is checked at its port for the \
                 first port of the first listener.",
            ),
            &["connect_port"],
        ),
        also_called(
            only(
                NETWORK,
                key(
                    "source",
                    Kind::Text,
                    "the first of the rule's `source` list, else this host's choice",
                    "\"10.0.0.254\"",
                    "The address to check from, one of this host's; used for backends of its family.",
                ),
            ),
            &["bindto", "src"],
        ),
        also_called(
            only(
                RAW,
                key(
                    "send",
                    Kind::Text,
                    "nothing; **required** for udp",
                    "\"PING\\r\\n\"",
                    "What is sent, at most 1024 bytes.",
                ),
            ),
            &["send-string", "tcp-send", "payload", "request"],
        ),
        only(RAW, key("send-hex", Kind::Text, "nothing", "\"00 0a ff\"", "The same in hexadecimal.")),
        also_called(
            only(
                ANSWERED,
                key(
                    "expect",
                    Kind::Text,
                    "any answer, for tcp none",
                    "\"PONG\"",
                    "What the answer must hold, anywhere; for http and https the body. At most 1024 bytes.",
                ),
            ),
            &["string", "rstring", "match", "response", "body", "contains"],
        ),
        only(ANSWERED, key("expect-hex", Kind::Text, "nothing", "\"ff 53\"", "The same in hexadecimal.")),
        also_called(
            only(
                ANSWERED,
                key(
                    "expect-regex",
                    Kind::Text,
                    "nothing",
                    "'^220 .*ESMTP'",
                    "A regular expression that the answer must match ([syntax](https://docs.rs/regex/latest/regex/#syntax)).",
                ),
            ),
            &["regex", "regexp", "pattern", "expect-re"],
        ),
        also_called(
            only(HTTP, key("method", Kind::Text, "\"GET\"", "\"HEAD\"", "The request's method.")),
            &["verb"],
        ),
        also_called(
            only(
                HTTP,
                key(
                    "path",
                    Kind::Text,
                    "\"/\"",
                    "\"/healthz\"",
                    "The request's path, with a query if need be.",
                ),
            ),
            &["uri", "url"],
        ),
        also_called(
            only(
                HTTP,
                key(
                    "host",
                    Kind::Text,
                    "the backend's name or address",
                    "\"www.example.com\"",
                    "The request's Host header.",
                ),
            ),
            &["hdr", "virtualhost", "vhost", "host-header", "authority"],
        ),
        also_called(
            only(
                HTTP,
                key(
                    "status",
                    Kind::Text,
                    "\"200-399\"",
                    "\"200-299, 301\"",
                    "The status codes that count as well: codes and ranges, separated by commas.",
                ),
            ),
            &["status_code", "codes", "code", "expect-status"],
        ),
        also_called(
            only(
                SECURE,
                key(
                    "server-name",
                    Kind::Text,
                    "the backend's name, none for an address",
                    "\"www.example.com\"",
                    "The server name to ask for (SNI).",
                ),
            ),
            &["sni", "check-sni", "servername"],
        ),
        also_called(
            only(
                SECURE,
                key(
                    "ca",
                    Kind::Text,
                    "the certificate is not verified",
                    "\"/etc/ssl/certs/ca-certificates.crt\"",
                    "A PEM file with the authorities that the certificate must come from.",
                ),
            ),
            &["ca-file", "cafile", "cacert", "verify"],
        ),
        also_called(
            only(
                &["postgresql", "mysql"],
                key(
                    "user",
                    Kind::Text,
                    "`\"portway\"` for postgresql; no log-in for mysql",
                    "\"monitor\"",
                    "The user to name. For mysql, one without a password.",
                ),
            ),
            &["username"],
        ),
        also_called(
            only(
                &["postgresql"],
                key("database", Kind::Text, "the user's", "\"app\"", "The database to name."),
            ),
            &["db", "dbname"],
        ),
        also_called(
            only(&["redis"], key("password", Kind::Text, "none", "\"secret\"", "Sent with AUTH first.")),
            &["auth", "pass"],
        ),
        also_called(
            only(
                &["smtp"],
                key("hello", Kind::Text, "\"portway\"", "\"relay.example.com\"", "The name to say in EHLO."),
            ),
            &["helo", "helo_name", "ehlo"],
        ),
        also_called(
            only(&["dns"], key("query", Kind::Text, "the root", "\"example.com\"", "The name to ask for.")),
            &["name", "domain", "question"],
        ),
        also_called(
            only(
                &["command"],
                key(
                    "command",
                    Kind::Texts,
                    "**required** for command",
                    "[\"/usr/local/bin/check-app\", \"--fast\"]",
                    "The program, by its whole path, and its arguments, run without a shell. It finds whom to look at in \
                     the environment: `PORTWAY_ADDRESS` and `PORTWAY_PORT`.",
                ),
            ),
            &["cmd", "exec", "script", "misc_path"],
        ),
    ],
};
