//! Active probes: a hung pod accepts connections and says nothing, so each node is asked once in a while.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::BytesMut;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};

use super::{core::Core, handshake::ResponseHead};
use crate::{
    contract,
    node::{NodeId, NodeState},
};

/// So many probes in a row without an answer, and a node is given up.
const MISSES: u32 = 3;

/// Probes every member, and who else carries legs, at the interval that is set, for ever.
pub(super) async fn run(core: Arc<Core>) {
    let interval = core.dial.probe_interval;
    let mut misses = Misses::default();
    let mut due = Instant::now() + interval;
    loop {
        sleep_until(due).await;
        let began = Instant::now();
        // Whoever was stopped himself has heard nobody, which says nothing of them.
        let on_time = began.saturating_duration_since(due) < interval / 2;
        let silent = silent_nodes(&core, interval).await;
        let on_time = on_time && began.elapsed() < interval * 3 / 2;
        if on_time {
            judge(&core, &mut misses, silent);
        }
        due = (began + interval).max(Instant::now());
    }
}

/// Asks all nodes at once; those that gave no sign of life.
async fn silent_nodes(core: &Core, interval: Duration) -> Option<Vec<NodeId>> {
    let members = core.view.load();
    let others = members.nodes().iter().filter(|node| core.local.as_ref().is_none_or(|l| *l.id() != node.id));
    // A node that left the members may die before its connections have left it: nothing else would find out while
    // their clients send on.
    let left = core.health.carrying().into_iter().filter(|id| members.get(id).is_none());
    let nodes: Vec<NodeId> = others.map(|node| node.id.clone()).chain(left).collect();
    let answers = join_all(nodes.iter().map(|node| probe(core, node, interval))).await;
    let silent: Vec<NodeId> =
        nodes.iter().zip(&answers).filter(|(_, alive)| !**alive).map(|(node, _)| node.clone()).collect();
    // When nobody answers it is rather our own link that is cut.
    (silent.is_empty() || silent.len() < nodes.len()).then_some(silent)
}

fn judge(core: &Core, misses: &mut Misses, silent: Option<Vec<NodeId>>) {
    core.give_up(&misses.note(silent, |node| most(core, node)));
}

/// How often in a row each node has not answered.
///
/// A round that was late itself is not noted: it says nothing of anybody, neither that a node is dead nor that one
/// which missed the rounds before is well.
#[derive(Debug, Default)]
struct Misses(HashMap<NodeId, u32>);

impl Misses {
    /// Notes a round: the nodes that were silent, or `None` when all were. Those that are given up by that.
    fn note(&mut self, silent: Option<Vec<NodeId>>, most: impl Fn(&NodeId) -> u32) -> Vec<NodeId> {
        let Some(silent) = silent else {
            self.0.clear();
            return Vec::new();
        };
        self.0.retain(|node, _| silent.contains(node));
        let mut dead = Vec::new();
        for node in silent {
            let count = self.0.entry(node.clone()).or_default();
            *count += 1;
            if *count == most(&node) {
                dead.push(node);
            }
        }
        dead
    }
}

/// So many misses, and that node is given up. The event loop of one without a sidecar may be busy.
fn most(core: &Core, node: &NodeId) -> u32 {
    if !core.health.is_plain(node) {
        return MISSES;
    }
    let patience = core.settings.app_timeout.div_duration_f64(core.dial.probe_interval).ceil();
    MISSES.max(patience as u32)
}

/// Whether the node is alive: it answers, with whatever, closes, or one of its legs has spoken meanwhile.
async fn probe(core: &Core, node: &NodeId, limit: Duration) -> bool {
    let alive = match timeout(limit, ask(core, node)).await {
        Ok(Some(state)) => {
            core.health.answered(node, state);
            true
        }
        Ok(None) | Err(_) => false,
    };
    alive || core.pulse(node).age() < limit
}

/// Sends one request; `None` when nobody is there, else the state that a sidecar tells.
async fn ask(core: &Core, node: &NodeId) -> Option<Option<NodeState>> {
    let mut io = core.network.connect(node, core.dial.dial_timeout).await.ok()?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n", contract::PROBE);
    if io.write_all(request.as_bytes()).await.is_err() {
        return Some(None);
    }
    let mut answer = BytesMut::with_capacity(1024);
    loop {
        match io.read_buf(&mut answer).await {
            Ok(0) | Err(_) => return Some(None),
            Ok(_) => {}
        }
        match ResponseHead::parse(&answer) {
            Ok(Some((head, _))) => return Some(head.state()),
            Ok(None) => {}
            Err(_) => return Some(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(hosts: &[u8]) -> Vec<NodeId> {
        hosts.iter().map(|host| format!("10.0.0.{host}:1").parse().unwrap()).collect()
    }

    #[test]
    fn the_third_miss_in_a_row_is_the_end_and_an_answer_begins_anew() {
        let mut misses = Misses::default();
        let mut round = |silent: &[u8]| misses.note(Some(nodes(silent)), |_| MISSES);
        assert!(round(&[1, 2]).is_empty() && round(&[1, 2]).is_empty());
        assert_eq!(round(&[1]), nodes(&[1]), "the other has answered");
        assert!(round(&[1, 2]).is_empty() && round(&[1, 2]).is_empty(), "nobody is given up twice");
        assert_eq!(round(&[1, 2]), nodes(&[2]));
    }

    #[test]
    fn when_all_are_silent_nobody_is_given_up_and_the_count_begins_anew() {
        let mut misses = Misses::default();
        let mut round = |silent| misses.note(silent, |_| MISSES);
        assert!(round(Some(nodes(&[1]))).is_empty() && round(Some(nodes(&[1]))).is_empty());
        assert!(round(None).is_empty());
        assert!(round(Some(nodes(&[1]))).is_empty() && round(Some(nodes(&[1]))).is_empty());
        assert_eq!(round(Some(nodes(&[1]))), nodes(&[1]));
    }
}
