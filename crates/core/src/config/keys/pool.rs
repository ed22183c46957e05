//! The keys of `[rule.pool]`: policy, backends, passive checks.

use std::time::Duration;

use super::check::CHECK;
use super::{Bounds, CLOCK, Kind, MOST, Section, also_called, key, required, words, words_also_called};
use crate::ruleset::{Backend, Balance, HashKey};

const BALANCE: [&str; 6] = words(&Balance::WORDS);
const HASH: [&str; 3] = words(&HashKey::WORDS);

/// One backend and how it is used, or several.
pub static POOL: Section = Section {
    header: "[rule.pool]",
    doc: "How new connections and flows are spread over several backends, and what happens when some of them fail. \
          The backends stand in `forward`, or, where they have settings of their own, in `backends` here. All of it \
          may be left out. See *Pools*.",
    keys: &[
        words_also_called(
            also_called(
                key(
                    "balance",
                    Kind::Choice(&BALANCE),
                    "\"round-robin\"",
                    "\"least-connections\"",
                    "How a backend is chosen. See *Pools*. `least-connections` and `random` are `proxy` only.",
                ),
                &[
                    "lb_algo",
                    "lvs_sched",
                    "algorithm",
                    "policy",
                    "strategy",
                    "lb",
                    "ip_hash",
                    "least_conn",
                    "leastconn",
                    "roundrobin",
                    "scheduler",
                ],
            ),
            &[
                ("leastconn", "least-connections"),
                ("least_conn", "least-connections"),
                ("least-conn", "least-connections"),
                ("lc", "least-connections"),
                ("wlc", "least-connections"),
                ("roundrobin", "round-robin"),
                ("static-rr", "round-robin"),
                ("rr", "round-robin"),
                ("wrr", "round-robin"),
                ("weighted", "round-robin"),
                ("source", "source-hash"),
                ("ip_hash", "source-hash"),
                ("ip-hash", "source-hash"),
                ("iphash", "source-hash"),
                ("hash", "source-hash"),
                ("sh", "source-hash"),
                ("maglev", "consistent-hash"),
                ("mh", "consistent-hash"),
                ("consistent", "consistent-hash"),
                ("ketama", "consistent-hash"),
                ("failover", "first"),
                ("active-backup", "first"),
                ("two", "random"),
            ],
        ),
        words_also_called(
            also_called(
                key(
                    "hash",
                    Kind::Choice(&HASH),
                    "\"source\"",
                    "\"source-port\"",
                    "What is hashed by `balance = \"source-hash\"` and `\"consistent-hash\"`: the client's address; its \
                     address and port; or the server name of a TLS connection (`proxy` only), and the address where \
                     there is none.",
                ),
                &["hash-type", "hash-key"],
            ),
            &[
                ("src", "source"),
                ("ip", "source"),
                ("address", "source"),
                ("src-port", "source-port"),
                ("port", "source-port"),
                ("req.ssl_sni", "sni"),
                ("ssl_preread_server_name", "sni"),
                ("server-name", "sni"),
            ],
        ),
        also_called(
            key(
                "backends",
                Kind::Entries("address", &BACKEND),
                "those of `forward`",
                "[\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 2 }]",
                "Where traffic goes: at most 256, each as in `forward`, or a table with its settings. Instead of \
                 `forward`, never besides it.",
            ),
            &["servers", "server", "members", "real_server", "targets", "upstream", "upstreams", "forward"],
        ),
        also_called(
            key(
                "persist",
                Kind::Duration(Bounds { least: Duration::from_secs(1), most: MOST, whole_seconds: false }),
                "no",
                "\"10m\"",
                "A client (by its address) comes back to its backend for this long after its last new connection, \
                 while that backend takes new ones.",
            ),
            &["sticky", "stick", "stick-table", "persistence", "persistence_timeout", "affinity"],
        ),
        also_called(
            key(
                "slow-start",
                CLOCK,
                "no",
                "\"30s\"",
                "A backend that comes back gets its weight little by little over this time. Needs a `check`.",
            ),
            &["slowstart", "warmup", "ramp-up"],
        ),
        words_also_called(
            also_called(
                key(
                    "on-down",
                    Kind::Choice(&["keep", "drain", "reset"]),
                    "\"keep\"",
                    "\"reset\"",
                    "What happens to the TCP connections of a backend that goes down: `keep` lets them live as long as \
                     their ends do, `drain` gives them `drain-timeout`, `reset` ends them at once. UDP flows are let \
                     go at once in every case, so that their clients reach another backend.",
                ),
                &["on-marked-down", "onerror"],
            ),
            &[
                ("shutdown-sessions", "reset"),
                ("kill", "reset"),
                ("close", "reset"),
                ("nothing", "keep"),
                ("none", "keep"),
            ],
        ),
        also_called(
            key(
                "drain-timeout",
                CLOCK,
                "\"30s\"",
                "\"5m\"",
                "With `on-down = \"drain\"`: how long connections may go on before they are reset.",
            ),
            &["grace", "shutdown-timeout", "delay-remove"],
        ),
        also_called(
            key(
                "when-empty",
                Kind::Text,
                "\"refuse\"",
                "\"10.0.0.9:80\"",
                "What new traffic meets while no backend is live: `\"refuse\"`, a TCP reset or an ICMP port \
                 unreachable; `\"drop\"`, silence, so that TCP clients wait and are served when a backend is back; or \
                 the address of another backend, which is neither checked nor part of the pool.",
            ),
            &["sorry_server", "sorry-server", "sorry", "fallback", "default-server", "default_backend"],
        ),
        also_called(
            key(
                "retries",
                Kind::Number(0, 10),
                "2 on the proxy",
                "3",
                "How many other backends are tried when a connection cannot be made, before the client learns of it. \
                 A rule that sets it needs the `proxy` engine.",
            ),
            &["retry", "redispatch", "proxy_next_upstream", "proxy_next_upstream_tries"],
        ),
        also_called(
            key(
                "init",
                Kind::Choice(&["last-known", "wait", "none"]),
                "\"last-known\"",
                "\"none\"",
                "What holds for backends that are names until their first answer; nothing waits for a resolver at \
                 the start. `last-known`: the answer of an earlier run, without one as `wait`. `wait`: clients wait, \
                 as with `when-empty = \"drop\"`. `none`: those backends are not there, and `when-empty` holds.",
            ),
            &["init-addr"],
        ),
        also_called(
            key(
                "passive",
                Kind::Table(&PASSIVE),
                "no",
                "{ max-fails = 3 }",
                "What real connections say of a backend.",
            ),
            &["observe", "outlier", "outlier-detection", "outlier_detection", "error-limit"],
        ),
        also_called(
            key(
                "check",
                Kind::Short("type", &CHECK),
                "no",
                "\"tcp\"",
                "How backends are asked whether they live.",
            ),
            &[
                "health-check",
                "healthcheck",
                "health_check",
                "health",
                "httpchk",
                "option",
                "monitor",
                "tcp_check",
                "http_get",
                "checks",
            ],
        ),
    ],
};

static BACKEND: Section = Section {
    header: "[[rule.pool.backends]]",
    doc: "One backend with settings of its own. Usually written in the list: \
          `backends = [{ address = \"10.0.0.1:80\", weight = 2 }]`.",
    keys: &[
        also_called(
            required(key("address", Kind::Text, "", "\"10.0.0.1:80\"", "Where it is. See *Backends*.")),
            &[
                "host", "server", "ip", "addr", "to", "target", "url", "endpoint", "port", "forward",
                "backend",
            ],
        ),
        also_called(
            key(
                "name",
                Kind::Text,
                "the backend as written",
                "\"blue\"",
                "What `portway status`, `drain` and the others call it. Unique in its pool, 1 to 270 printable ASCII \
                 characters without white space, quotes and backslashes.",
            ),
            &["id", "label", "title", "cookie"],
        ),
        also_called(
            key(
                "weight",
                Kind::Number(0, Backend::MOST_WEIGHT as u32),
                "1",
                "2",
                "Its share of new connections, in proportion to the other weights. 0 gets none.",
            ),
            &["w", "share", "priority", "ratio"],
        ),
        also_called(
            key(
                "backup",
                Kind::Flag,
                "false",
                "true",
                "Used only while no backend that is not a backup is live.",
            ),
            &["standby", "spare", "reserve"],
        ),
        also_called(
            key(
                "max-connections",
                Kind::Number(1, 10_000_000),
                "no limit of its own",
                "100",
                "The most connections and flows of this backend at a time; further ones go to the others. `proxy` \
                 only.",
            ),
            &["maxconn", "max_conns", "limit", "u_threshold"],
        ),
        also_called(
            key(
                "resolve",
                Kind::Choice(&["all", "first"]),
                "\"all\"",
                "\"first\"",
                "For a name: whether all of its addresses are used, each with the backend's weight, or the lowest one \
                 only.",
            ),
            &["resolver", "resolvers", "resolve-prefer"],
        ),
    ],
};

static PASSIVE: Section = Section {
    header: "[rule.pool.passive]",
    doc: "Passive checks: a backend whose connections fail (no connection, or a reset before its first byte) is left \
          out for a while. `passive = {}` takes the defaults. `proxy` only.",
    keys: &[
        also_called(
            key(
                "max-fails",
                Kind::Number(1, 1000),
                "3",
                "5",
                "Failures within `fail-timeout` that eject a backend.",
            ),
            &["fails", "failures", "fall", "consecutive-errors", "error-limit"],
        ),
        also_called(
            key(
                "fail-timeout",
                Kind::Duration(Bounds {
                    least: Duration::from_millis(100),
                    most: MOST,
                    whole_seconds: false,
                }),
                "\"10s\"",
                "\"30s\"",
                "The time in which failures count, and how long the first ejection lasts. Each further one in a row \
                 lasts twice as long as the one before, up to 32 times this.",
            ),
            &["window", "interval", "timeout", "base-ejection-time"],
        ),
        also_called(
            key(
                "max-ejected",
                Kind::Number(0, 100),
                "50",
                "30",
                "The most of the pool that may be ejected at a time, in percent of its backends. One always may, \
                 unless it is the last.",
            ),
            &["max-ejection-percent", "percent", "limit"],
        ),
    ],
};
