//! What one node says about a call, and how that travels between peers.

use serde::{Deserialize, Serialize};

use crate::{membership::Fingerprint, node::NodeId};

/// The id of a connection.
pub(crate) type Id = Box<str>;

/// One node's answer, of what it holds itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    /// The members as it sees them.
    pub(crate) view: Fingerprint,
    /// Connections that took it.
    pub(crate) served: Vec<Id>,
    /// Connections of which it is not known.
    pub(crate) unknown: Vec<Id>,
    /// Connections that surely did not take it.
    pub(crate) slow: Vec<Id>,
    /// Connections that lost their leg here and are on their way to nobody knows where.
    pub(crate) moving: Vec<Id>,
    /// Legs that are not live here yet, and the nodes that they come from.
    pub(crate) pending: Vec<(Id, NodeId)>,
    /// Other nodes that hold the key, or that a connection has gone to.
    pub(crate) names: Vec<NodeId>,
    /// What is told of the connections, where that was asked.
    pub(crate) connections: Vec<serde_json::Value>,
}

impl Heard {
    /// Nothing is here.
    pub(crate) fn nothing(view: Fingerprint) -> Self {
        Self {
            view,
            served: Vec::new(),
            unknown: Vec::new(),
            slow: Vec::new(),
            moving: Vec::new(),
            pending: Vec::new(),
            names: Vec::new(),
            connections: Vec::new(),
        }
    }

    /// Whether this answer speaks of that connection already.
    pub(crate) fn has(&self, id: &str) -> bool {
        let said = [&self.served, &self.unknown, &self.slow, &self.moving];
        said.into_iter().flatten().any(|known| **known == *id)
            || self.pending.iter().any(|(known, _)| **known == *id)
    }

    /// Names another node, once.
    pub(crate) fn name(&mut self, node: NodeId) {
        if !self.names.contains(&node) {
            self.names.push(node);
        }
    }

    /// The member `hop` of an answer to a peer.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        // Strings and lists alone cannot fail.
        serde_json::to_value(self.to_hop()).unwrap_or_default()
    }

    /// The same in a line of an answer, with the number of the call that it is about.
    pub(crate) fn to_line(&self, n: usize) -> String {
        // Strings and lists alone cannot fail.
        serde_json::to_string(&Numbered { n: Some(n), hop: Some(self.to_hop()) }).unwrap_or_default()
    }

    /// Reads what [`Heard::to_json`] made, as the member `hop` of an answer, and the number beside it. `None` for all
    /// that is not there.
    pub(crate) fn read(answer: &[u8]) -> (Option<usize>, Option<Self>) {
        let Ok(Numbered { n, hop }) = serde_json::from_slice(answer) else { return (None, None) };
        (n, hop.and_then(Self::of_hop))
    }

    fn to_hop(&self) -> Hop {
        let node = |node: &NodeId| node.as_str().into();
        Hop {
            view: self.view.to_string(),
            served: self.served.clone(),
            unknown: self.unknown.clone(),
            slow: self.slow.clone(),
            moving: self.moving.clone(),
            pending: self.pending.iter().map(|(id, from)| (id.clone(), node(from))).collect(),
            names: self.names.iter().map(node).collect(),
            connections: self.connections.clone(),
        }
    }

    fn of_hop(hop: Hop) -> Option<Self> {
        let node = |node: Box<str>| node.parse().ok();
        Some(Self {
            view: hop.view.parse().ok()?,
            served: hop.served,
            unknown: hop.unknown,
            slow: hop.slow,
            moving: hop.moving,
            pending: hop
                .pending
                .into_iter()
                .map(|(id, from)| Some((id, node(from)?)))
                .collect::<Option<_>>()?,
            names: hop.names.into_iter().map(node).collect::<Option<_>>()?,
            connections: hop.connections,
        })
    }
}

/// An answer, of which nothing else is of use to a peer.
#[derive(Debug, Deserialize, Serialize)]
struct Numbered {
    n: Option<usize>,
    hop: Option<Hop>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Hop {
    view: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    served: Vec<Id>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<Id>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    slow: Vec<Id>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    moving: Vec<Id>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending: Vec<(Id, Box<str>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<Box<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    connections: Vec<serde_json::Value>,
}
