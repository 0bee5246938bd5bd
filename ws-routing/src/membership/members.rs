//! The set of nodes, ready to be asked who owns a key.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::Update;
use crate::{
    key::Key,
    node::{Node, NodeId, NodeState},
    rendezvous::{self, Ring},
};

/// An immutable, sorted set of nodes without duplicates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    nodes: Box<[Node]>,
    ring_seed: u64,
    fingerprint: Fingerprint,
    ring: Ring,
    /// Where each of the ring's candidates stands in `nodes`; empty where all are.
    candidates: Box<[u32]>,
}

impl Members {
    /// Takes nodes in any order; of several with one id the last counts.
    ///
    /// `ring_seed` is 0 unless the ring was given a secret one.
    pub fn new(nodes: impl IntoIterator<Item = Node>, ring_seed: u64) -> Self {
        let nodes: BTreeMap<NodeId, Node> = nodes.into_iter().map(|n| (n.id.clone(), n)).collect();
        let nodes: Box<[Node]> = nodes.into_values().collect();
        let is_ready = |n: &Node| n.state == NodeState::Ready;
        let any_ready = nodes.iter().any(is_ready);
        let may_own = |n: &Node| !any_ready || is_ready(n);
        let ring = Ring::new(nodes.iter().filter(|n| may_own(n)).map(|n| (n.id.as_str(), n.weight.get())));
        let candidates = match nodes.iter().all(may_own) {
            true => Box::default(),
            false => (0..).zip(&nodes).filter(|(_, n)| may_own(n)).map(|(at, _)| at).collect(),
        };
        let fingerprint = Fingerprint::of(&nodes, ring_seed);
        Self { nodes, ring_seed, fingerprint, ring, candidates }
    }

    /// All nodes, sorted by id.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that id.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.binary_search_by(|n| n.id.cmp(id)).ok().map(|at| &self.nodes[at])
    }

    /// Whether there is no node at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The seed of this ring's key hashes.
    #[must_use]
    pub fn ring_seed(&self) -> u64 {
        self.ring_seed
    }

    /// What two processes compare to know that they have the same members.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The hash of `key` in this ring.
    #[must_use]
    #[inline]
    pub fn key_hash(&self, key: &Key) -> u64 {
        rendezvous::hash(key.as_str().as_bytes(), self.ring_seed)
    }

    /// The node that owns `key`; `None` without nodes.
    #[must_use]
    #[inline]
    pub fn owner(&self, key: &Key) -> Option<&Node> {
        self.ring.owner(self.key_hash(key)).map(|at| self.candidate(at))
    }

    /// The best `n` nodes for `key`, best first: the second is where it goes when the first is dead.
    #[must_use]
    pub fn ranked(&self, key: &Key, n: usize) -> Vec<&Node> {
        self.walk(key, n).collect()
    }

    /// As [`Members::ranked`] and without its allocation: up to eight are found as they are asked for, so that who
    /// stops at the first pays for one.
    pub fn walk(&self, key: &Key, n: usize) -> impl ExactSizeIterator<Item = &Node> + use<'_> {
        self.ring.ranked(self.key_hash(key), n).map(|at| self.candidate(at))
    }

    /// The nodes that may own keys, sorted by id: the ready ones, or all when none is. What a
    /// [`Placement`](rendezvous::Placement) is given.
    pub fn candidates(&self) -> impl ExactSizeIterator<Item = &Node> {
        (0..self.ring.len()).map(|at| self.candidate(at))
    }

    fn candidate(&self, at: usize) -> &Node {
        if self.candidates.is_empty() { &self.nodes[at] } else { &self.nodes[self.candidates[at] as usize] }
    }
}

/// What a source has told so far: updates go in, members come out.
///
/// Only the set in which a sequence of updates ends counts, not the way there.
///
/// ```
/// use ws_routing::{Node, membership::{Fold, Update}};
///
/// let node = |port| Node::new(std::net::SocketAddr::from(([10, 0, 0, 1], port)).into());
/// let mut fold = Fold::default();
/// fold.apply(Update::Reset(vec![node(1), node(2)]));
/// fold.apply(Update::Remove(vec![node(1).id]));
/// assert_eq!(fold.members(0).nodes(), [node(2)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    nodes: BTreeMap<NodeId, Node>,
}

impl Fold {
    /// Takes one step. Of several nodes with one id the last counts.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Reset(nodes) => self.nodes = nodes.into_iter().map(|n| (n.id.clone(), n)).collect(),
            Update::Add(nodes) => self.nodes.extend(nodes.into_iter().map(|n| (n.id.clone(), n))),
            Update::Remove(ids) => {
                for id in &ids {
                    self.nodes.remove(id);
                }
            }
            Update::Confirmed => {}
        }
    }

    /// The members as of now. `ring_seed` is 0 unless the ring was given a secret one.
    #[must_use]
    pub fn members(&self, ring_seed: u64) -> Members {
        Members::new(self.nodes.values().cloned(), ring_seed)
    }

    /// All nodes, sorted by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node of that id.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Whether there is no node at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// XXH3-64, seeded with the ring's seed, over the sorted `id\0weight\0state\n` lines; shown as 16 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    fn of(nodes: &[Node], ring_seed: u64) -> Self {
        let lines: String =
            nodes.iter().map(|n| format!("{}\0{}\0{}\n", n.id, n.weight.get(), n.state)).collect();
        Self(rendezvous::hash(lines.as_bytes(), ring_seed))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}
