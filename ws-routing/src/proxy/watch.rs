//! What can be seen of a proxy from outside: its nodes, and its moves as they happen.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Proxy,
    health::Known,
    journal::{Moved, Reader},
};
use crate::{
    metrics::{Metrics, MoveReason, MoveResult},
    node::{Node, NodeId, NodeState},
};

impl Proxy {
    /// The nodes as this proxy sees them: the members, sorted by id, and behind them those that are members no more but
    /// still hold connections. Costs a look at each node, not at each connection.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let core = self.core();
        let members = core.view.load();
        let mut known = core.health.known();
        let usable = core.health.usable(&members);
        let whole: u32 = usable.iter().map(|node| u32::from(node.weight.get())).sum();
        let share = |node: &Node| match usable.binary_search_by(|other| other.id.cmp(&node.id)) {
            Ok(_) => f64::from(node.weight.get()) / f64::from(whole.max(1)),
            Err(_) => 0.0,
        };
        let mut nodes: Vec<NodeStatus> = members
            .nodes()
            .iter()
            .map(|node| {
                let known = known.remove(&node.id).unwrap_or_default();
                let standing = Standing::of(node.state, known);
                NodeStatus { node: node.clone(), standing, share: share(node), connections: known.legs }
            })
            .collect();
        let mut left: Vec<NodeStatus> = known
            .into_iter()
            .filter(|(_, known)| known.legs > 0)
            .map(|(id, known)| NodeStatus {
                node: Node::new(id),
                standing: Standing::Gone,
                share: 0.0,
                connections: known.legs,
            })
            .collect();
        left.sort_by(|a, b| a.node.id.cmp(&b.node.id));
        nodes.append(&mut left);
        nodes
    }

    /// The moves that end from here on.
    ///
    /// They are noted only while somebody watches; the latest 64 are kept for watchers that are behind.
    #[must_use]
    pub fn watch_moves(&self) -> MoveWatch {
        MoveWatch { reader: self.core().journal.reader(), proxy: self.clone() }
    }

    /// Where it counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.core().metrics
    }
}

/// A node, as a proxy sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node as the view has it; of one that is no member any more, its id and defaults.
    pub node: Node,
    /// What is thought of it.
    pub standing: Standing,
    /// Which part of all keys it owns: 0 to 1.
    pub share: f64,
    /// How many connections are relayed to it.
    pub connections: usize,
}

/// What a proxy thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes connections.
    Ready,
    /// It lets its connections go, by the view's word or by its own.
    Draining,
    /// It was found unreachable, and is avoided for a while.
    Suspect,
    /// It is no member any more.
    Gone,
}

impl Standing {
    fn of(state: NodeState, known: Known) -> Self {
        match state {
            _ if known.suspect => Self::Suspect,
            NodeState::Draining => Self::Draining,
            NodeState::Ready if known.draining => Self::Draining,
            NodeState::Ready => Self::Ready,
        }
    }

    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Suspect => "suspect",
            Self::Gone => "gone",
        }
    }
}

/// A move that has ended, well or not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Move {
    /// When it ended.
    pub at: SystemTime,
    /// The connection's id.
    pub connection: Arc<str>,
    /// Its key, hashed unless [`Builder::log_keys`](super::Builder::log_keys) permits it to be shown.
    pub key: String,
    /// Where it was.
    pub from: NodeId,
    /// Where it was to go.
    pub to: NodeId,
    /// Why.
    pub reason: MoveReason,
    /// How it ended.
    pub result: MoveResult,
    /// How long the client's messages waited; `None` if none had to, and if it stayed where it was.
    pub pause: Option<Duration>,
}

/// What a watcher is told at once.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct News {
    /// How many moves there were of which nothing is known any more, since the watcher is behind.
    pub missed: u64,
    /// The moves after those, in the order in which they ended.
    pub moves: Vec<Move>,
}

/// Follows a proxy's moves. It holds no queue of its own: a slow watcher misses moves, and is told how many.
#[derive(Debug)]
pub struct MoveWatch {
    proxy: Proxy,
    reader: Reader,
}

impl MoveWatch {
    /// Waits for moves that this watcher was not told of.
    ///
    /// # Cancel safety
    ///
    /// Nothing is missed when it is cancelled and called again.
    pub async fn next(&mut self) -> News {
        let (missed, moves) = self.proxy.core().journal.read(&mut self.reader).await;
        News { missed, moves: moves.into_iter().map(|moved| self.shown(moved)).collect() }
    }

    fn shown(&self, moved: Moved) -> Move {
        let Moved { at, connection, key, from, to, reason, result, pause } = moved;
        let key = self.proxy.shown(&key);
        Move { at, connection, key, from, to, reason, result, pause }
    }
}
