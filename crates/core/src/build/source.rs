//! The source mode of a rule. Deliberately absent: whether the addresses are this host's, which the engine
//! learns when it uses them.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::can_send_from;
use super::family::Families;
use crate::address::Family;
use crate::config::nearest::nearest;
use crate::config::{SourceConfig, Text};
use crate::diagnostic::{Diagnostic, quote};
use crate::ruleset::SourceMode;

/// The most addresses in a pool.
pub const MOST: usize = 256;

/// Builds the source mode; `None` when a mistake was noted. The addresses of a pool have the `backends`' families.
pub fn build(
    source: Option<&SourceConfig>,
    backends: &Families,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<SourceMode> {
    match source {
        None => Some(SourceMode::Masquerade),
        Some(SourceConfig::Word(word)) => match word.value.as_str() {
            "masquerade" => Some(SourceMode::Masquerade),
            "preserve" => Some(SourceMode::Preserve),
            other => {
                diagnostics.push(unknown_word(word, other));
                None
            }
        },
        Some(SourceConfig::Pool(texts, span)) => {
            let before = diagnostics.len();
            if texts.len() > MOST {
                let message =
                    format!("a pool has at most {MOST} addresses, and this one has {}", texts.len());
                diagnostics.push(Diagnostic::error(span.clone(), message));
            }
            let mut seen = HashSet::new();
            let mut pool = Vec::with_capacity(texts.len());
            for text in texts {
                match address(text, backends) {
                    Ok(address) if !seen.insert(address) => diagnostics.push(
                        Diagnostic::error(text.inside(), format!("{address} is in the pool twice"))
                            .hint("connections are spread evenly; leave one of the two out"),
                    ),
                    Ok(address) => pool.push(address),
                    Err(mistake) => diagnostics.push(mistake),
                }
            }
            if diagnostics.len() == before {
                for (family, place) in backends.known() {
                    if !pool.iter().any(|address| Family::of(*address) == *family) {
                        diagnostics.push(
                            Diagnostic::error(span.clone(), format!("no address of this pool is {family}"))
                                .also(place.clone(), format!("an {family} backend"))
                                .hint(format!("add an {family} address of this host")),
                        );
                    }
                }
            }
            (diagnostics.len() == before).then_some(SourceMode::Snat(pool))
        }
    }
}

fn unknown_word(word: &Text, other: &str) -> Diagnostic {
    let hint = if other.parse::<IpAddr>().is_ok() {
        format!("a pool is a list, also of one address: source = [\"{other}\"]")
    } else {
        match nearest(other, ["masquerade", "preserve"].into_iter()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "\"masquerade\", \"preserve\", or a list of addresses: [\"192.0.2.10\", \"192.0.2.11\"]"
                .to_owned(),
        }
    };
    Diagnostic::error(word.inside(), format!("`source` cannot be {}", quote(other))).hint(hint)
}

fn address(text: &Text, backends: &Families) -> Result<IpAddr, Diagnostic> {
    let address = plain_address(text)?;
    let error = |message: String| Diagnostic::error(text.inside(), message);
    if !can_send_from(address) {
        return Err(error(format!("nothing can be sent from {address}")).hint("list addresses of this host"));
    }
    let family = Family::of(address);
    if !backends.may_have(family) {
        let backend = if family == Family::V4 { Family::V6 } else { Family::V4 };
        return Err(error(format!("{address} is {family}, and the backend is {backend}"))
            .hint(format!("list {backend} addresses of this host")));
    }
    Ok(address)
}

/// An address without a port.
///
/// # Errors
/// What is wrong with the text.
pub fn plain_address(text: &Text) -> Result<IpAddr, Diagnostic> {
    let value = text.value.as_str();
    let bare = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value);
    let error = |message: String| Diagnostic::error(text.inside(), message);
    let Ok(address) = value.parse::<IpAddr>() else {
        let hint = if bare.parse::<IpAddr>().is_ok() {
            format!("write {bare} without brackets: there is no port here")
        } else if let Ok(socket) = value.parse::<SocketAddr>() {
            format!("write {} without the port", socket.ip())
        } else if value == "masquerade" || value == "preserve" {
            format!("as a word of its own: source = \"{value}\"")
        } else if value.contains(['/', '-']) {
            "prefixes and ranges are not supported here: list the addresses".to_owned()
        } else {
            "for example 192.0.2.10".to_owned()
        };
        return Err(error(format!("{} is not an address", quote(value))).hint(hint));
    };
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(error("an IPv4-mapped IPv6 address does not appear in packets".to_owned()))
        }
        _ => Ok(address),
    }
}
