//! The report, Markdown that reads well in a terminal: two tables, the ratios, and what is too wide to tell.

use std::fmt::Write;

use portway_lab::machine;

use crate::lane::Kind;
use crate::sample::{Bulk, Connections, Sample};
use crate::stats::{Summary, summary};

/// More CPUs than this kept busy by others slow the lanes down; the lab's own CPU time suffers little.
const QUIET: f64 = 0.1;

/// Renders all samples. `background` is how many CPUs others kept busy before each round, `only` what the
/// user restricted the run to, for the record.
pub fn render(samples: &[Sample], background: &[f64], only: &[String]) -> String {
    let mut out = String::from("# Portway benchmark\n\n");
    let programs = [("iptables", "-V"), ("nft", "-v"), ("haproxy", "-v"), ("nginx", "-v"), ("iperf3", "-v")];
    let _ = writeln!(out, "{}\n", machine::describe(&programs));
    if let Some(busy) = summary(background.iter().copied()) {
        let warning = if busy.high > QUIET {
            ": **not a quiet machine: rates, p99 and the last column suffer**"
        } else {
            ""
        };
        let _ =
            writeln!(out, "CPUs kept busy by others before each round: {}{warning}.\n", text(Some(busy), 2));
    }
    if !only.is_empty() {
        let _ = writeln!(out, "Restricted to {}.\n", only.join(", "));
    }
    out += "## New connection per request (ab to nginx, 64 at a time)\n\n";
    out += "| lane | requests/s | p99 ms | CPU us/connection | added over routing us | whole machine us |\n|---|---|---|---|---|---|\n";
    for kind in Kind::ALL {
        let Some(rate) = connections(samples, kind, |c| Some(c.requests_per_second)) else { continue };
        let cells = [
            text(Some(rate), 0),
            text(connections(samples, kind, |c| Some(c.p99_ms)), 1),
            text(connections(samples, kind, |c| Some(c.lab_us)), 1),
            text(summary(added(samples, kind).into_iter().map(|(_, figure)| figure)), 1),
            text(connections(samples, kind, |c| Some(c.machine_us)), 1),
        ];
        let _ = writeln!(out, "| {} | {} |", kind.name(), cells.join(" | "));
    }
    out += "\n## One bulk TCP stream (iperf3)\n\n";
    out +=
        "| lane | Gbit/s | CPU ms/GB | forwarder CPU ms/GB | whole machine ms/GB |\n|---|---|---|---|---|\n";
    for kind in Kind::ALL {
        let Some(rate) = bulk(samples, kind, |b| Some(b.gbit_per_second)) else { continue };
        let cells = [
            text(Some(rate), 2),
            text(bulk(samples, kind, |b| Some(b.lab_ms_per_gb)), 0),
            text(bulk(samples, kind, |b| b.forwarder_ms_per_gb), 0),
            text(bulk(samples, kind, |b| Some(b.machine_ms_per_gb)), 0),
        ];
        let _ = writeln!(out, "| {} | {} |", kind.name(), cells.join(" | "));
    }
    out += "\nMedian of the rounds, in brackets the middle half of them. CPU is that of client, server and forwarder with \
            the kernel's packet work; on a quiet machine the whole machine's is nearly the same. portway-xdp adds to routing-xdp-wires, all others to \
            routing.\n\n## Ratios, of figures of the same round\n\n";
    for (name, target, ratio) in ratios(samples) {
        let Some(ratio) = ratio else { continue };
        let _ = writeln!(
            out,
            "- {name}: {} (target: at most {target:.2}) {}",
            text(Some(ratio), 3),
            verdict(ratio, target)
        );
    }
    out.truncate(out.trim_end().len());
    out
}

/// The ratios that have a target: what, target, figures.
fn ratios(samples: &[Sample]) -> Vec<(&'static str, f64, Option<Summary>)> {
    let lab = |c: &Connections| Some(c.lab_us);
    let own = |b: &Bulk| b.forwarder_ms_per_gb;
    let by_lab = |a, b| {
        let [a, b] = [a, b].map(|kind| rounds(samples, kind, |s| s.connections.as_ref().and_then(lab)));
        summary(paired(&a, &b, |a, b| a / b).into_iter().map(|(_, ratio)| ratio))
    };
    let by_added = |a, b| {
        let [a, b] = [a, b].map(|kind| added(samples, kind));
        summary(paired(&a, &b, |a, b| a / b).into_iter().map(|(_, ratio)| ratio))
    };
    let by_time = |a: Kind, b| {
        // Seconds per bit: rates the other way round.
        let [a, b] = [a, b].map(|kind| rounds(samples, kind, |s| s.bulk.map(|b| b.gbit_per_second)));
        summary(paired(&b, &a, |b, a| b / a).into_iter().map(|(_, ratio)| ratio))
    };
    let [proxy_bulk, haproxy_bulk] = [Kind::PortwayProxy, Kind::Haproxy]
        .map(|kind| rounds(samples, kind, |s| s.bulk.as_ref().and_then(own)));
    vec![
        (
            "portway ebpf at TC / hand-written nft, added CPU per connection",
            0.5,
            by_added(Kind::PortwayEbpf, Kind::Nft),
        ),
        (
            "portway ebpf at XDP / hand-written nft, added CPU per connection",
            0.5,
            by_added(Kind::PortwayXdp, Kind::Nft),
        ),
        (
            "portway ebpf at TC / plain routing, time of one bulk stream",
            1.0,
            by_time(Kind::PortwayEbpf, Kind::Routing),
        ),
        (
            "portway nftables / hand-written nft, CPU per connection",
            1.05,
            by_lab(Kind::PortwayNftables, Kind::Nft),
        ),
        (
            "portway nftables 10,000 rules / 1 rule, CPU per connection",
            1.05,
            by_lab(Kind::PortwayNftables10k, Kind::PortwayNftables),
        ),
        (
            "portway proxy / haproxy, added CPU per connection",
            0.7,
            by_added(Kind::PortwayProxy, Kind::Haproxy),
        ),
        (
            "portway proxy / haproxy copying, forwarder CPU per GB",
            0.5,
            summary(paired(&proxy_bulk, &haproxy_bulk, |a, b| a / b).into_iter().map(|(_, ratio)| ratio)),
        ),
    ]
}

/// A verdict only where the middle half of the rounds lies on one side of the target.
fn verdict(ratio: Summary, target: f64) -> &'static str {
    if ratio.high <= target {
        "**met**"
    } else if ratio.low > target {
        "**missed**"
    } else {
        "**too wide to tell**"
    }
}

/// A figure of one lane by round.
fn rounds(samples: &[Sample], kind: Kind, figure: impl Fn(&Sample) -> Option<f64>) -> Vec<(usize, f64)> {
    let lane = samples.iter().filter(|sample| sample.lane == kind.name());
    lane.filter_map(|sample| Some((sample.round, figure(sample)?))).collect()
}

/// Two lanes' figures of the same rounds, joined.
fn paired(a: &[(usize, f64)], b: &[(usize, f64)], join: impl Fn(f64, f64) -> f64) -> Vec<(usize, f64)> {
    let partner = |round| b.iter().find(|(other, _)| *other == round).map(|(_, figure)| *figure);
    a.iter().filter_map(|(round, figure)| Some((*round, join(*figure, partner(*round)?)))).collect()
}

fn connections(
    samples: &[Sample],
    kind: Kind,
    figure: impl Fn(&Connections) -> Option<f64>,
) -> Option<Summary> {
    let figures = rounds(samples, kind, |sample| sample.connections.as_ref().and_then(&figure));
    summary(figures.into_iter().map(|(_, figure)| figure))
}

fn bulk(samples: &[Sample], kind: Kind, figure: impl Fn(&Bulk) -> Option<f64>) -> Option<Summary> {
    let figures = rounds(samples, kind, |sample| sample.bulk.as_ref().and_then(&figure));
    summary(figures.into_iter().map(|(_, figure)| figure))
}

/// CPU per connection over plain routing in the same round, by round; nothing of plain routing itself.
fn added(samples: &[Sample], kind: Kind) -> Vec<(usize, f64)> {
    if kind.is_routing() {
        return Vec::new();
    }
    let [lane, routing] =
        [kind, kind.base()].map(|kind| rounds(samples, kind, |s| s.connections.map(|c| c.lab_us)));
    paired(&lane, &routing, |lane, routing| lane - routing)
}

fn text(summary: Option<Summary>, digits: usize) -> String {
    let Some(Summary { median, low, high }) = summary else { return "–".to_owned() };
    format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
}
