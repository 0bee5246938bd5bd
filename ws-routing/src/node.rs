//! A member of the ring: the only definition of one.

use std::{borrow::Borrow, fmt, net::SocketAddr, str::FromStr, sync::Arc};

/// A node's identity: `ip:port` (IPv6 in brackets) or, in name mode, the pod's name. Compared bytewise.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address to dial, unless the id is a name.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }
}

impl From<SocketAddr> for NodeId {
    fn from(addr: SocketAddr) -> Self {
        Self(addr.to_string().into())
    }
}

impl FromStr for NodeId {
    type Err = InvalidNode;

    /// An address is brought to its one canonical spelling, so that all parts hash the same bytes.
    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(addr.into());
        }
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if text.is_empty() || text.len() > 253 || !text.bytes().all(name) {
            return Err(InvalidNode::Id(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether a node may own keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeState {
    /// Owns keys.
    #[default]
    Ready,
    /// Owns none while another node is ready, and still serves the connections that it has.
    Draining,
}

impl NodeState {
    /// `ready` or `draining`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NodeState {
    type Err = InvalidNode;

    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        match text {
            "ready" => Ok(Self::Ready),
            "draining" => Ok(Self::Draining),
            other => Err(InvalidNode::State(other.into())),
        }
    }
}

/// A node's share of the keys, relative to the others': 1 to 1000, default 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// Takes a weight.
    ///
    /// # Errors
    ///
    /// [`InvalidNode`] outside 1 to 1000.
    pub fn new(weight: u16) -> Result<Self, InvalidNode> {
        if (1..=1000).contains(&weight) {
            Ok(Self(weight))
        } else {
            Err(InvalidNode::Weight(weight.to_string()))
        }
    }

    /// The weight as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Weight {
    type Err = InvalidNode;

    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        text.parse().ok().and_then(|n| Self::new(n).ok()).ok_or_else(|| InvalidNode::Weight(text.into()))
    }
}

/// One sidecar endpoint and what the ring knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Who it is, and where it is reached.
    pub id: NodeId,
    /// Its share of the keys.
    pub weight: Weight,
    /// The failure domain it stands in, if told. It has no part in ownership.
    pub zone: Option<Arc<str>>,
    /// Whether it may own keys.
    pub state: NodeState,
}

impl Node {
    /// A ready node of default weight, without a zone.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self { id, weight: Weight::default(), zone: None, state: NodeState::Ready }
    }
}

/// Text that describes no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNode {
    /// Neither an address nor a name.
    #[error("{0:?} is no node: expected ip:port, [ipv6]:port or a pod's name")]
    Id(String),
    /// No state of that name.
    #[error("{0:?} is no state: expected ready or draining")]
    State(String),
    /// Not a weight.
    #[error("{0:?} is no weight: expected 1 to 1000")]
    Weight(String),
}
