//! `portway conns` and `portway kill`: live flows of every engine, listed and ended.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use portway_core::flow::{FlowFilter, Flows};

use super::args::Filter;
use super::{Failure, ask, report, unexpected};
use crate::control::{Request, Response};

/// Lists flows.
pub(super) fn list(state_dir: &Path, filter: Filter, most: usize, json: bool) -> Result<(), Failure> {
    let engine = filter.engine;
    match ask(state_dir, Request::Conns { filter: meant(filter)?, engine, most })? {
        Response::Conns(flows) if json => report::json(&flows),
        Response::Conns(flows) => print(&flows),
        other => return Err(unexpected(other)),
    }
    Ok(())
}

/// Ends flows.
pub(super) fn kill(state_dir: &Path, filter: Filter, all: bool) -> Result<(), Failure> {
    let engine = filter.engine;
    let filter = meant(filter)?;
    if !all && engine.is_none() && filter == FlowFilter::default() {
        return Err(Failure::Say("say which flows (portway kill --help), or --all".to_owned()));
    }
    match ask(state_dir, Request::Kill { filter, engine })? {
        Response::Killed(count) => report::say(&format!("{} ended", report::counted(count, "flow"))),
        other => return Err(unexpected(other)),
    }
    Ok(())
}

fn meant(filter: Filter) -> Result<FlowFilter, Failure> {
    let Filter { rule, protocol, client, backend, older_than, engine: _ } = filter;
    let address = match backend.map(|place| place.address()) {
        Some(None) => return Err(Failure::Say("--backend is one address, not a network".to_owned())),
        other => other.flatten(),
    };
    Ok(FlowFilter {
        rule,
        protocol,
        client: client.map(|place| place.network),
        client_port: client.and_then(|place| place.port),
        backend: address,
        backend_port: backend.and_then(|place| place.port),
        older_than,
    })
}

fn print(flows: &Flows) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "RULE", "ENGINE", "PROTO", "CLIENT", "LISTENER", "BACKEND", "STATE", "AGE", "IN", "OUT",
    ]);
    let unknown = || "-".to_owned();
    for flow in &flows.flows {
        table.add_row([
            flow.rule.clone(),
            flow.engine.clone(),
            flow.protocol.clone(),
            flow.client.to_string(),
            flow.listener.to_string(),
            flow.backend.map_or_else(unknown, |backend| backend.to_string()),
            flow.state.clone(),
            flow.age_seconds.map_or_else(unknown, |age| format!("{age}s")),
            flow.bytes_in.map_or_else(unknown, report::bytes),
            flow.bytes_out.map_or_else(unknown, report::bytes),
        ]);
    }
    for column in table.column_iter_mut().skip(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    report::say(&table.trim_fmt());
    let shown = flows.flows.len() as u64;
    if flows.total > shown {
        report::say(&format!("{shown} of {} flows shown; --limit shows more", flows.total));
    } else {
        report::say(&report::counted(shown, "flow"));
    }
}
