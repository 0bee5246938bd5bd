//! Who is asked, one node after the other, until it is known what became of a call. No clock, no socket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::reply::{Heard, Id};
use crate::{membership::Fingerprint, node::NodeId};

/// A call on its way through the nodes that may hold its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    begun: Fingerprint,
    reach: Reach,
    queue: VecDeque<NodeId>,
    /// Asked only while nobody has the key.
    fallback: VecDeque<NodeId>,
    asked: BTreeMap<NodeId, Asked>,
    delivered: BTreeSet<Id>,
    unknown: BTreeSet<Id>,
    slow: BTreeSet<Id>,
    /// Somebody has not answered, or not in time: what it did is not known.
    lost: bool,
    /// Somebody could not be asked, or sees other members: that nobody has the key is not known.
    unsure: bool,
    /// The first node that delivered.
    node: Option<NodeId>,
}

/// How many of a key's connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Each of them.
    All,
    /// Whichever takes it first.
    One,
}

/// One node's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Asked {
    times: u8,
    /// Legs that are not live there yet, and where they come from.
    pending: Vec<(Id, NodeId)>,
    /// Connections that nobody has found a place for yet.
    moving: Vec<Id>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this node.
    Ask(NodeId),
    /// It is known what became of the call.
    Done(Verdict),
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Some connections took it; `slow` surely did not.
    Delivered {
        /// The first node that delivered.
        node: NodeId,
        /// How many took it.
        delivered: usize,
        /// How many surely did not.
        slow: usize,
    },
    /// Nobody holds the key.
    NotConnected,
    /// None took it in time, and surely so.
    Slow,
    /// Somebody is on the way, or cannot be asked; nothing was delivered.
    Moving,
    /// Nobody knows.
    Unknown,
}

/// How a node answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// It did.
    Heard(Heard),
    /// It surely has not got the request.
    Unreachable,
    /// It may have got the request.
    Lost,
}

/// How often one node is asked in one call, at most.
const TIMES: u8 = 2;

impl Asking {
    /// A call that begins under the view of that fingerprint: `first` are asked in any case, in order, `fallback` while
    /// nobody has the key.
    pub(crate) fn new(
        begun: Fingerprint,
        reach: Reach,
        first: impl IntoIterator<Item = NodeId>,
        fallback: impl IntoIterator<Item = NodeId>,
    ) -> Self {
        let mut this = Self {
            begun,
            reach,
            queue: VecDeque::new(),
            fallback: fallback.into_iter().collect(),
            asked: BTreeMap::new(),
            delivered: BTreeSet::new(),
            unknown: BTreeSet::new(),
            slow: BTreeSet::new(),
            lost: false,
            unsure: false,
            node: None,
        };
        first.into_iter().for_each(|node| this.enqueue(node));
        this
    }

    /// The call begins without knowing who the members are: that nobody has the key cannot be known.
    #[must_use]
    pub(crate) fn without_members(mut self) -> Self {
        self.unsure = true;
        self
    }

    /// What is to be done next.
    pub(crate) fn next(&mut self) -> Step {
        let enough = self.reach == Reach::One && !(self.delivered.is_empty() && self.unknown.is_empty());
        if self.lost || enough {
            return Step::Done(self.verdict());
        }
        if let Some(node) = self.queue.pop_front() {
            return Step::Ask(node);
        }
        if let Some(node) = self.worth_waiting_for() {
            return Step::Ask(node);
        }
        while let Some(node) = self.fallback.pop_front() {
            if self.nobody_has_it() && !self.asked.contains_key(&node) {
                return Step::Ask(node);
            }
        }
        Step::Done(self.verdict())
    }

    /// The connections that are not to be served again.
    pub(crate) fn served(&self) -> impl Iterator<Item = &Id> {
        self.delivered.iter().chain(&self.unknown)
    }

    /// The nodes that were asked.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &NodeId> {
        self.asked.keys()
    }

    /// Takes the reply of the node that [`Asking::next`] gave last.
    pub(crate) fn answered(&mut self, node: NodeId, reply: Reply) {
        let asked = self.asked.entry(node.clone()).or_default();
        asked.times += 1;
        let heard = match reply {
            Reply::Heard(heard) => heard,
            Reply::Unreachable => return self.unsure = true,
            Reply::Lost => return self.lost = true,
        };
        asked.pending.clone_from(&heard.pending);
        asked.moving.clone_from(&heard.moving);
        self.unsure |= heard.view != self.begun;
        if !heard.served.is_empty() {
            self.node.get_or_insert(node);
        }
        self.delivered.extend(heard.served);
        self.unknown.extend(heard.unknown);
        self.slow.extend(heard.slow);
        for (_, from) in heard.pending {
            if !self.asked.contains_key(&from) {
                self.enqueue(from);
            }
        }
        heard.names.into_iter().for_each(|node| self.enqueue(node));
    }

    /// Puts a node in line, unless it is, or was asked often enough.
    fn enqueue(&mut self, node: NodeId) {
        match self.asked.get(&node) {
            _ if self.queue.contains(&node) => {}
            Some(asked) if asked.times >= TIMES => self.unsure = true,
            _ => self.queue.push_back(node),
        }
    }

    /// A node where a leg is not live yet, and that can be waited for now: where it comes from was asked.
    fn worth_waiting_for(&self) -> Option<NodeId> {
        let waits = |(id, from): &(Id, NodeId)| !self.is_served(id) && self.asked.contains_key(from);
        let found = self.asked.iter().find(|(_, a)| a.times < TIMES && a.pending.iter().any(waits));
        found.map(|(node, _)| node.clone())
    }

    fn is_served(&self, id: &Id) -> bool {
        self.delivered.contains(id) || self.unknown.contains(id)
    }

    fn nobody_has_it(&self) -> bool {
        self.delivered.is_empty() && self.unknown.is_empty() && self.slow.is_empty()
    }

    /// Connections that exist and were not found a live leg of.
    fn on_the_way(&self) -> BTreeSet<&Id> {
        let pending = self.asked.values().flat_map(|asked| asked.pending.iter().map(|(id, _)| id));
        let moving = self.asked.values().flat_map(|asked| &asked.moving);
        pending.chain(moving).filter(|id| !self.is_served(id)).collect()
    }

    /// What one node's answer alone comes to.
    pub(crate) fn alone(node: &NodeId, heard: Heard) -> Verdict {
        let mut this = Self::new(heard.view, Reach::All, [], []);
        this.answered(node.clone(), Reply::Heard(heard));
        this.verdict()
    }

    fn verdict(&self) -> Verdict {
        let missed = self.slow.iter().filter(|id| !self.is_served(id));
        let moving = self.on_the_way();
        let slow = missed.chain(moving.iter().copied()).collect::<BTreeSet<_>>().len();
        match &self.node {
            _ if self.lost || !self.unknown.is_empty() => Verdict::Unknown,
            Some(node) => Verdict::Delivered { node: node.clone(), delivered: self.delivered.len(), slow },
            None if !self.slow.is_empty() => Verdict::Slow,
            None if self.unsure || !moving.is_empty() => Verdict::Moving,
            None => Verdict::NotConnected,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
