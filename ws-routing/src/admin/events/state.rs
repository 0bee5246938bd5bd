//! The state that is told: what a page shows, as JSON.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::{
    metrics::{Direction, Metrics, MoveReason, MoveResult, Timing},
    proxy::{NodeStatus, Proxy},
};

/// Counters count from the start of the process: who wants rates takes differences, by `at`.
pub(super) fn describe(proxy: &Proxy) -> Value {
    let (metrics, view) = (proxy.metrics(), proxy.view());
    let nodes: Vec<Value> = proxy.nodes().iter().map(node).collect();
    json!({
        "at": super::unix(SystemTime::now()),
        "version": env!("CARGO_PKG_VERSION"),
        "draining": proxy.is_draining(),
        "fingerprint": view.load().fingerprint().to_string(),
        "age": view.age().as_secs_f64(),
        "connections": metrics.connections().get(),
        "limit": proxy.max_connections(),
        "pending": metrics.moves_pending().get(),
        "opened": metrics.opened().get(),
        "messages": directions(|direction| metrics.messages(direction).get()),
        "bytes": directions(|direction| metrics.bytes(direction).get()),
        "moves": moves(metrics),
        "handshake": buckets(metrics.handshake()),
        "pause": buckets(metrics.move_pause()),
        "nodes": nodes,
    })
}

fn node(status: &NodeStatus) -> Value {
    let NodeStatus { node, standing, share, connections, .. } = status;
    json!({
        "id": node.id.as_str(),
        "state": standing.as_str(),
        "weight": node.weight.get(),
        "zone": node.zone.as_deref(),
        "share": share,
        "connections": connections,
    })
}

fn directions(count: impl Fn(Direction) -> u64) -> Map<String, Value> {
    let one = |direction: &Direction| (direction.as_str().to_owned(), count(*direction).into());
    Direction::ALL.iter().map(one).collect()
}

/// By reason, then by result.
fn moves(metrics: &Metrics) -> Map<String, Value> {
    let of = |reason: &MoveReason| -> Map<String, Value> {
        let one =
            |result: &MoveResult| (result.as_str().to_owned(), metrics.moves(*reason, *result).get().into());
        MoveResult::ALL.iter().map(one).collect()
    };
    MoveReason::ALL.iter().map(|reason| (reason.as_str().to_owned(), of(reason).into())).collect()
}

/// `[[seconds, count], …]`: so many took up to that long, and longer than the bound before; the last bound is `null`.
fn buckets(timing: &Timing) -> Value {
    timing.buckets().into_iter().map(|(bound, count)| json!([bound, count])).collect()
}
