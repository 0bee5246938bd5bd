//! Sends where something is in the way: a room on two nodes, a client that never reads, callers that stall, a move, and
//! requests that make no sense.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, missing_debug_implementations)]

#[path = "../sends/listener.rs"]
mod listener;
mod moves;
mod never_reading;
mod nonsense;
mod room;
mod stalled;
#[path = "../../../ws-balancer/tests/support/mod.rs"]
mod support;

use support::{Cluster, api::Api, range::API};

fn api(cluster: &Cluster, host: u8) -> Api {
    Api::new(cluster.range.addr(host, API))
}
