//! `docs/configuration.md`, written from the table of known keys. A test compares the committed page with
//! this; `UPDATE=1 cargo test -p portway-core --test reference` rewrites it.
//!
//! Deliberately absent: a tutorial. The examples are that.

use std::fmt::Write as _;

use super::keys::{FILE, Key, Kind, Section};
use super::value::format_duration;

const HEAD: &str = "\
# Configuration

<!-- Written from the code: UPDATE=1 cargo test -p portway-core --test reference -->

Portway reads one [TOML](https://toml.io) file. This page lists every key. `portway check -c FILE` names every
mistake of a file at once, `portway plan -c FILE` prints what it would do. Commented files to start from are in
[examples/](../examples).

";

const ENDPOINTS: &str = r#"## Listeners

A listener is written `[PROTOCOL/][WHERE:]PORTS`.

| part | written | meaning |
|---|---|---|
| protocol | nothing, or `tcp/` | TCP |
| | `udp/` | UDP |
| | `tcp+udp/` | both |
| where | `192.168.1.11:`, `[2001:db8::1]:` | one address |
| | `0.0.0.0:`, `[::]:` | every IPv4, every IPv6 address of this host |
| | nothing, or `:` | every address of this host, in the backend's family |
| | `eth0:` | traffic that arrives on this interface, in the backend's family |
| ports | `8888` | one port |
| | `8000-8099` | a range, both ends included |

Examples: `"0.0.0.0:8888"`, `"udp/[::]:53"`, `"tcp+udp/192.0.2.1:5060"`, `"eth0:443"`, `"8000-8099"`.

* An IPv6 address stands in brackets. `[::]` is IPv6 only: for both families write two listeners.
* A listener answers for traffic to this host, never for traffic that is routed through it to others.
* An interface listener is for traffic that *arrives* there. The host's own traffic arrives on `lo`.
* Where two rules could take the same traffic, the more specific one does: an address before an interface, an
  interface before every address. Two listeners that are equally specific and share a port are an error.

## Backends

A backend is written `ADDRESS[:PORTS]`. There is one backend per rule in this version, and it is an address: names
are not supported yet.

| written | a connection to listener port *p* goes to |
|---|---|
| `192.168.1.100:80`, `[fd00::1]:80` | port 80, whatever *p* is |
| `192.168.1.100`, `[fd00::1]` | port *p* |
| `192.168.1.100:9000-9099` | the port as far into this range as *p* is into the listener's; both are equally long |

The backend may be this host (`127.0.0.1:80`), and of another family than the listener (`proxy` only).

## Engines

| a rule that | `nftables` | `proxy` |
|---|---|---|
| has listener and backend in different families | no | yes |
| has `[::1]` as listener or backend | no | yes |
| sets `timeouts` or `max-connections` | no | yes |
| has `source = "preserve"` | yes | no |
| has a `helper` | yes, where the kernel has it | no |
| has a range of more than 1024 ports | yes | no |
| listens on a port below 1024 | needs root anyway | needs root or CAP_NET_BIND_SERVICE |
| listens on an interface | needs root anyway | needs root or CAP_NET_RAW |

`nftables` needs CAP_NET_ADMIN. With `engine = "auto"` a rule gets the first engine from the left that can serve it.

## Durations and numbers

A duration is a text, a whole number and a unit: `"500ms"`, `"2s"`, `"5m"`, `"1h"`, `"1d"`. A number is written
without quotes: `262144` or `262_144`.

## On the command line

`portway forward LISTEN BACKEND [LISTEN BACKEND ...]` takes the same listeners and backends, each pair a rule. The form
of ssh and Docker, both in one word, works as well: `8888:192.168.1.100:80`, `udp/53:10.0.0.1:53`,
`0.0.0.0:8888:[fd00::1]:80`. `--engine` and `--source` hold for every rule of the line; `--source` is a word, or
addresses separated by commas.
"#;

/// The page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for section in FILE.walk() {
        let title = match section.header {
            "" => "The file".to_owned(),
            header => format!("`{header}`"),
        };
        let _ = write!(page, "## {title}\n\n{}\n\n", section.doc);
        keys(&mut page, section);
    }
    page.push_str(ENDPOINTS);
    page
}

fn keys(page: &mut String, section: &Section) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "| key | value | default | |\n|---|---|---|---|");
    for key in section.keys {
        let doc = match key.kind.section() {
            Some(below) => format!("{} See `{}`.", key.doc, below.header).trim_start().to_owned(),
            None => format!("{}{}", types(section, key), key.doc),
        };
        let default = if key.required {
            "**required**".to_owned()
        } else if key.default.starts_with('"') {
            format!("`{}`", key.default)
        } else {
            key.default.to_owned()
        };
        let _ = writeln!(page, "| `{}` | {} | {default} | {doc} |", key.name, value(key));
    }
    page.push('\n');
}

/// The types that a key belongs to, or the fewer that it does not belong to.
fn types(section: &Section, key: &Key) -> String {
    let quoted = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let all = match section.key("type").map(|key| &key.kind) {
        Some(Kind::Choice(words)) if !key.types.is_empty() => words,
        _ => return String::new(),
    };
    let others: Vec<&str> = all.iter().copied().filter(|word| !key.types.contains(word)).collect();
    if others.len() < key.types.len() {
        format!("Not for {}: ", quoted(&others))
    } else {
        format!("{}: ", quoted(key.types))
    }
}

fn value(key: &Key) -> String {
    match &key.kind {
        Kind::Choice(words) => {
            words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Number(least, most) => format!("{least} to {most}, as in `{}`", key.example),
        Kind::Duration(bounds) => {
            let seconds = if bounds.whole_seconds { ", whole seconds" } else { "" };
            let (least, most) = (format_duration(bounds.least), format_duration(bounds.most));
            format!("{least} to {most}{seconds}, as in `{}`", key.example)
        }
        Kind::Text | Kind::Texts => format!("{}, as in `{}`", key.kind.describe(), key.example),
        Kind::Entries(..) => format!("{}, as in `{}`", key.kind.describe(), key.example),
        Kind::Flag | Kind::Table(_) | Kind::Short(..) | Kind::Tables(_) => key.kind.describe().to_owned(),
    }
}
