//! The backends of a rule: what is written becomes [`Backend`]s with unique names.
//!
//! Deliberately absent: how they are chosen, which is [`super::pool`]'s matter.

use std::collections::HashMap;

use super::noted;
use super::ports::Shape;
use crate::config::endpoint::{Forward, parse_forward};
use crate::config::{BackendConfig, Text};
use crate::diagnostic::{Diagnostic, Span, quote};
use crate::ruleset::{Backend, BackendHost, BackendName, Pool, Resolve, Target, TargetPorts};

/// What the backend of `when-empty` is called; no other may be.
const SORRY: &str = "sorry";

/// A backend that could be read.
pub struct Written<'a> {
    /// As the file has it.
    pub config: &'a BackendConfig,
    /// Where it is.
    pub forward: Forward,
}

/// The backends that can be read; the mistakes of the others are noted.
pub fn read<'a>(backends: &'a [BackendConfig], diagnostics: &mut Vec<Diagnostic>) -> Vec<Written<'a>> {
    if let Some(beyond) = backends.get(Pool::MOST) {
        let message =
            format!("a pool has at most {} backends, and this one has {}", Pool::MOST, backends.len());
        diagnostics.push(
            Diagnostic::error(beyond.address.inside(), message)
                .hint("a name can stand for up to 1024 addresses"),
        );
    }
    let within = backends.iter().take(Pool::MOST);
    within
        .filter_map(|config| {
            let forward = noted(&config.address, parse_forward(&config.address.value), diagnostics)?;
            Some(Written { config, forward })
        })
        .collect()
}

/// Builds the backends; those that were built are complete when nothing was noted.
pub fn build(written: &[Written<'_>], shape: &Shape<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Backend> {
    let mut backends = Vec::with_capacity(written.len());
    let mut range_told = false;
    for Written { config, forward } in written {
        let ports = shape.target_ports(forward, &config.address, diagnostics);
        if let TargetPorts::Shifted(range) = ports
            && !std::mem::replace(&mut range_told, true)
        {
            shape.refuse_two_targets(range, &config.address.at(&forward.ports_at), diagnostics);
        }
        if let BackendHost::Address(address) = forward.host {
            shape.refuse_loop(Target { address, ports }, &config.address, diagnostics);
            refuse_resolve(config, diagnostics);
        }
        let Some(name) = name(config, diagnostics) else { continue };
        backends.push(Backend {
            name,
            host: forward.host.clone(),
            ports,
            weight: config
                .weight
                .as_ref()
                .map_or(1, |(weight, _)| u16::try_from(*weight).unwrap_or(Backend::MOST_WEIGHT)),
            backup: config.backup,
            max_connections: config.max_connections.as_ref().map(|(most, _)| *most),
            resolve: config.resolve.as_ref().map_or(Resolve::All, |(resolve, _)| *resolve),
        });
    }
    refuse_doubles(written, shape, diagnostics);
    warn_of_idle(written, diagnostics);
    backends
}

fn refuse_resolve(config: &BackendConfig, diagnostics: &mut Vec<Diagnostic>) {
    if let Some((_, span)) = &config.resolve {
        let message = format!("`resolve` is for names, and {} is an address", config.address.value);
        diagnostics.push(Diagnostic::error(span.clone(), message).hint("leave `resolve` out"));
    }
}

/// Where the name of a backend stands.
fn named(config: &BackendConfig) -> &Text {
    config.name.as_ref().unwrap_or(&config.address)
}

fn name(config: &BackendConfig, diagnostics: &mut Vec<Diagnostic>) -> Option<BackendName> {
    let text = named(config);
    if text.value == SORRY {
        diagnostics.push(
            Diagnostic::error(
                text.inside(),
                format!("{} is what the backend of `when-empty` is called", quote(SORRY)),
            )
            .hint("give this one another `name`"),
        );
        return None;
    }
    let name = BackendName::new(&text.value);
    if name.is_none() {
        diagnostics.push(
            Diagnostic::error(text.inside(), format!("{} cannot be a backend's name", quote(&text.value)))
                .hint(format!(
                    "1 to {} printable ASCII characters without white space, quotes and backslashes",
                    BackendName::MAX
                )),
        );
    }
    name
}

/// Each target is there once, and each name.
fn refuse_doubles(written: &[Written<'_>], shape: &Shape<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let mut targets: HashMap<_, Span> = HashMap::with_capacity(written.len());
    let mut names: HashMap<&str, Span> = HashMap::with_capacity(written.len());
    for Written { config, forward } in written {
        // The listener's only port and "the port the client asked for" are one target.
        let ports = forward
            .ports
            .map(|ports| (ports.first(), ports.last()))
            .or(shape.only_port().map(|port| (port, port)));
        let (place, name) = (config.address.inside(), named(config));
        if let Some(first) = targets.get(&(&forward.host, ports)) {
            diagnostics.push(
                Diagnostic::error(place, format!("{} is in the pool twice", quote(&config.address.value)))
                    .also(first.clone(), "it is here as well")
                    .hint("leave one of the two out; for a larger share give it a `weight`"),
            );
            continue;
        }
        targets.insert((&forward.host, ports), place);
        match names.get(name.value.as_str()) {
            Some(first) => diagnostics.push(
                Diagnostic::error(name.inside(), format!("two backends are called {}", quote(&name.value)))
                    .also(first.clone(), "so is this one")
                    .hint("give one of them another `name`"),
            ),
            None => {
                names.insert(&name.value, name.inside());
            }
        }
    }
}

/// Pools that can be meant but hardly are.
fn warn_of_idle(written: &[Written<'_>], diagnostics: &mut Vec<Diagnostic>) {
    let zero =
        |backend: &Written<'_>| backend.config.weight.as_ref().filter(|(weight, _)| *weight == 0).cloned();
    let zeros: Option<Vec<_>> = written.iter().map(zero).collect();
    if let Some((_, span)) = zeros.unwrap_or_default().first() {
        diagnostics.push(
            Diagnostic::warning(
                span.clone(),
                "every backend of this pool has the weight 0, so none gets traffic",
            )
            .hint("give one of them a weight from 1 to 256"),
        );
    }
    if let Some(first) = written.first()
        && written.iter().all(|backend| backend.config.backup)
    {
        diagnostics.push(
            Diagnostic::warning(first.config.address.inside(), "every backend of this pool is a backup")
                .hint("backups are for when the others are down: leave `backup` out"),
        );
    }
}
