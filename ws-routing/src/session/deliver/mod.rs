//! Bringing a call to every connection of a key, wherever they are.
//!
//! Reading order: `plan` (who is asked), `views` (by which members), `here` (what this node does and says), `reply` and
//! `call` (how that travels), `batch` (many in one request), `peers` (the connections), `naming` (what holders tell owners).

mod batch;
pub(crate) mod call;
pub(crate) mod here;
mod naming;
mod peers;
pub(crate) mod plan;
pub(crate) mod reply;
mod tasks;
mod views;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use self::{
    here::{Here, LEAD, Op, Told},
    peers::Peers,
    plan::{Asking, Reply, Step, Verdict},
    views::Views,
};
use crate::{key::Key, metrics::SidecarMetrics, node::NodeId, peer::PeerTokens, proxy::Network};

pub use here::SendSettings;
pub(crate) use naming::Holders;
pub(crate) use tasks::Tasks;

/// Calls of this node's own app, on their way. Cloning is some reference counts.
#[derive(Clone, Debug)]
pub(crate) struct Deliver {
    here: Here,
    views: Views,
    peers: Peers,
}

/// What became of a call, and what was told of the connections.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) verdict: Verdict,
    pub(crate) connections: Vec<Value>,
}

impl Deliver {
    pub(crate) fn new(
        here: Here,
        network: Arc<dyn Network>,
        tokens: Option<PeerTokens>,
        metrics: SidecarMetrics,
    ) -> Self {
        let views = Views::new(here.view.clone());
        Self { here, views, peers: Peers::new(network, tokens, metrics) }
    }

    /// Remembers views, and tells owners what is held here. Never ends by itself.
    pub(crate) async fn run(&self) {
        futures_util::join!(self.views.follow(), naming::tell(&self.here, &self.peers));
    }

    pub(crate) fn here(&self) -> &Here {
        &self.here
    }

    /// Brings one call to its connections.
    pub(crate) async fn call(&self, key: &Key, op: &Op) -> Delivered {
        let end = self.end();
        let mut asking = self.views.asking(key, op.reach(), &self.here.node);
        let mut connections = Vec::new();
        loop {
            match asking.next() {
                Step::Done(verdict) => return Delivered { verdict, connections },
                Step::Ask(node) => {
                    let reply = self.ask(&node, key, op, told(&asking, end), end).await;
                    if let Reply::Heard(heard) = &reply {
                        connections.extend(heard.connections.iter().map(|c| at_node(c, &node)));
                    }
                    asking.answered(node, reply);
                }
            }
        }
    }

    /// Brings many calls to their connections: in rounds, with one request a round to each node.
    pub(crate) async fn call_many(&self, calls: &[(Key, Op)]) -> Vec<Verdict> {
        let end = self.end();
        let mut askings: Vec<Asking> =
            calls.iter().map(|(key, op)| self.views.asking(key, op.reach(), &self.here.node)).collect();
        let mut verdicts: Vec<Option<Verdict>> = vec![None; calls.len()];
        loop {
            let mut round: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
            let open = askings.iter_mut().zip(&mut verdicts).enumerate();
            for (at, (asking, verdict)) in open.filter(|(_, (_, verdict))| verdict.is_none()) {
                match asking.next() {
                    Step::Ask(node) => round.entry(node).or_default().push(at),
                    Step::Done(done) => *verdict = Some(done),
                }
            }
            if round.is_empty() {
                // Each of them was done when nobody was left to ask.
                return verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Unknown)).collect();
            }
            let asked = round.iter().map(|(node, which)| self.ask_round(node, which, calls, &askings, end));
            let replies = join_all(asked).await;
            for ((node, which), replies) in round.iter().zip(replies) {
                for (at, reply) in which.iter().zip(replies) {
                    askings[*at].answered(node.clone(), reply);
                }
            }
        }
    }

    async fn ask_round(
        &self,
        node: &NodeId,
        which: &[usize],
        calls: &[(Key, Op)],
        askings: &[Asking],
        end: Instant,
    ) -> Vec<Reply> {
        let asked = which.iter().map(|at| {
            let (key, op) = &calls[*at];
            (key, op, told(&askings[*at], end))
        });
        if *node != self.here.node {
            if is_near(end) {
                return which.iter().map(|_| Reply::Unreachable).collect();
            }
            return self.peers.ask_many(node, asked, end).await;
        }
        let heard = asked.map(|(key, op, told)| async move { self.here.answer(key, op, &told).await });
        join_all(heard).await.into_iter().map(Reply::Heard).collect()
    }

    async fn ask(&self, node: &NodeId, key: &Key, op: &Op, told: Told, end: Instant) -> Reply {
        if *node == self.here.node {
            return Reply::Heard(self.here.answer(key, op, &told).await);
        }
        if is_near(end) {
            return Reply::Unreachable;
        }
        self.peers.ask(node, key, op, &told, end).await
    }

    fn end(&self) -> Instant {
        Instant::now() + self.here.settings.longest()
    }
}

/// Whether a peer that is asked now could not answer any more: what it is not asked it surely does not do.
fn is_near(end: Instant) -> bool {
    Instant::now() + LEAD >= end
}

fn told(asking: &Asking, end: Instant) -> Told {
    Told {
        served: asking.served().cloned().collect(),
        asked: asking.asked().cloned().collect(),
        left: Some(end.saturating_duration_since(Instant::now())),
    }
}

fn at_node(connection: &Value, node: &NodeId) -> Value {
    let mut connection = connection.clone();
    connection["node"] = node.as_str().into();
    connection
}
