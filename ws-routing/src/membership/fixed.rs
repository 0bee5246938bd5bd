//! Members that never change.

use std::{collections::BTreeSet, fmt, future, net::SocketAddr, str::FromStr};

use super::{Members, NextUpdate, Source, Update};
use crate::node::{Node, NodeId};

/// A fixed list of nodes: for tests, and where something else restarts the process when the list changes.
///
/// ```
/// use ws_routing::{Key, membership::Fixed};
///
/// let fixed: Fixed = "10.0.0.1:7400,10.0.0.2:7400".parse()?;
/// let members = fixed.members(0);
/// assert!(members.owner(&"alice".parse::<Key>()?).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    nodes: Vec<Node>,
    told: bool,
}

impl Fixed {
    /// Takes nodes in any order; of several with one id the last counts.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        Self { nodes: nodes.into_iter().collect(), told: false }
    }

    /// The members of this list. `ring_seed` is 0 unless the ring was given a secret one.
    #[must_use]
    pub fn members(&self, ring_seed: u64) -> Members {
        Members::new(self.nodes.iter().cloned(), ring_seed)
    }
}

impl Source for Fixed {
    fn next(&mut self) -> NextUpdate<'_> {
        let update = (!self.told).then(|| Ok(Update::Reset(self.nodes.clone())));
        self.told = true;
        Box::pin(future::ready(update))
    }
}

/// Addresses, separated by commas.
impl FromStr for Fixed {
    type Err = InvalidList;

    fn from_str(text: &str) -> Result<Self, InvalidList> {
        let ids: BTreeSet<NodeId> =
            text.split(',').map(|item| address(item.trim())).collect::<Result<_, _>>()?;
        Ok(Self::new(ids.into_iter().map(Node::new)))
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.nodes.iter().map(|node| node.id.as_str()).collect();
        f.write_str(&ids.join(","))
    }
}

/// Text that is no list of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no node to connect to: expected ip:port or [ipv6]:port, separated by commas")]
pub struct InvalidList(String);

/// A node that can be dialled: names, and port 0, cannot.
fn address(text: &str) -> Result<NodeId, InvalidList> {
    let addr: SocketAddr = text.parse().map_err(|_| InvalidList(text.into()))?;
    if addr.port() == 0 {
        return Err(InvalidList(text.into()));
    }
    Ok(addr.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_shown_without_duplicates() {
        let fixed: Fixed = "10.0.0.2:7400, 10.0.0.1:7400,10.0.0.2:7400,[::1]:7400".parse().unwrap();
        assert_eq!(fixed.to_string(), "10.0.0.1:7400,10.0.0.2:7400,[::1]:7400");
        assert_eq!(fixed.members(0).nodes().len(), 3);
        assert_eq!(fixed.to_string().parse::<Fixed>().unwrap(), fixed);
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_by_name() {
        for (list, bad) in [
            ("", ""),
            ("10.0.0.1:7400,", ""),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:7400,pod-0", "pod-0"),
            ("10.0.0.1:0", "10.0.0.1:0"),
            ("localhost:7400", "localhost:7400"),
        ] {
            assert_eq!(list.parse::<Fixed>().unwrap_err(), InvalidList(bad.into()), "{list}");
        }
    }
}
