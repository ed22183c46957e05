//! The keys of one backend, and of what its real connections say of it.

use std::time::Duration;

use super::{Bounds, Kind, MOST, Section, also_called, key, required, too_large};
use crate::ruleset::Backend;

/// One backend with settings.
pub static BACKEND: Section = Section {
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
            too_large(
                key(
                    "weight",
                    Kind::Number(0, Backend::MOST_WEIGHT as u32),
                    "1",
                    "2",
                    "Its share of new connections, in proportion to the other weights. 0 gets none.",
                ),
                "scale all weights of the pool so that the largest is at most 256",
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

/// Passive checks.
pub static PASSIVE: Section = Section {
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
