//! Which share of the keys moves when nodes come and go: counted, not estimated.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use ws_routing::{Key, Members, Node, NodeId};

/// What would become of a ring if nodes were added and removed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: (usize, usize),
    pub(crate) removed: Vec<NodeId>,
    pub(crate) keys: u32,
    pub(crate) moved: u32,
    pub(crate) before: Shares,
    pub(crate) after: Shares,
}

/// What share of all keys a node has: the smallest, the mean, the largest.
#[derive(Debug, PartialEq)]
pub(crate) struct Shares {
    pub(crate) least: f64,
    pub(crate) mean: f64,
    pub(crate) most: f64,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum NoPlan {
    #[error("no member is known")]
    NoMembers,
    #[error("expected at most the {0} that there are")]
    TooFew(usize),
    #[error("no node would be left: all connections would be closed")]
    NobodyLeft,
}

impl Plan {
    /// Looks at `keys` sampled keys: shares are off by about 0.3 % of all keys with 100,000. Nodes are removed from the
    /// end of the list, as when a StatefulSet is scaled in; added ones have the default weight. Costs two picks a key.
    pub(crate) fn new(before: &Members, add: u16, remove: usize, keys: u32) -> Result<Self, NoPlan> {
        if before.is_empty() {
            return Err(NoPlan::NoMembers);
        }
        let nodes = before.nodes().len();
        let kept = nodes.checked_sub(remove).ok_or(NoPlan::TooFew(nodes))?;
        let (kept, leaving) = before.nodes().split_at(kept);
        let after = Members::new(kept.iter().cloned().chain((1..=add).map(added)), before.ring_seed());
        if after.is_empty() {
            return Err(NoPlan::NobodyLeft);
        }
        let removed = leaving.iter().map(|node| node.id.clone()).collect();
        Ok(Self { removed, ..Self::between(before, &after, keys) })
    }

    fn between(before: &Members, after: &Members, keys: u32) -> Self {
        let (mut was, mut is) = (counters(before), counters(after));
        let mut moved = 0;
        for number in 0..keys {
            let Ok(key) = Key::new(format!("key-{number}")) else { continue };
            let owners = [before, after].map(|members| members.owner(&key).map(|node| &node.id));
            moved += u32::from(owners[0] != owners[1]);
            for (counts, owner) in [&mut was, &mut is].into_iter().zip(owners) {
                if let Some(count) = owner.and_then(|owner| counts.get_mut(owner)) {
                    *count += 1;
                }
            }
        }
        let nodes = (before.nodes().len(), after.nodes().len());
        let (before, after) = (Shares::of(&was, keys), Shares::of(&is, keys));
        Self { nodes, removed: Vec::new(), keys, moved, before, after }
    }

    /// Which part of all keys moves: 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.moved) / f64::from(self.keys)
    }

    pub(crate) fn to_json(&self) -> Value {
        let Self { nodes: (now, then), removed, keys, moved, before, after } = self;
        let removed: Vec<&str> = removed.iter().map(NodeId::as_str).collect();
        json!({
            "nodes": {"now": now, "then": then},
            "removed": removed,
            "keys": keys,
            "moved": moved,
            "share": self.share(),
            "before": before.to_json(),
            "after": after.to_json(),
        })
    }
}

/// A node that is not there yet. Its name is nobody's: these addresses are kept for measurements.
fn added(number: u16) -> Node {
    let [high, low] = number.to_be_bytes();
    Node::new(std::net::SocketAddr::from(([198, 18, high, low], 7400)).into())
}

fn counters(members: &Members) -> BTreeMap<&NodeId, u32> {
    members.candidates().map(|node| (&node.id, 0)).collect()
}

impl Shares {
    fn of(counts: &BTreeMap<&NodeId, u32>, keys: u32) -> Self {
        let share = |count: u32| f64::from(count) / f64::from(keys);
        let (least, most) = (counts.values().min(), counts.values().max());
        // A map of nodes is smaller than a 32-bit number.
        let mean = 1.0 / f64::from(u32::try_from(counts.len()).unwrap_or(u32::MAX)).max(1.0);
        Self { least: share(least.copied().unwrap_or(0)), mean, most: share(most.copied().unwrap_or(0)) }
    }

    fn to_json(&self) -> Value {
        let Self { least, mean, most } = self;
        json!({"least": least, "mean": mean, "most": most})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(n: u16) -> Members {
        Members::new((1..=n).map(added), 0)
    }

    #[test]
    fn as_many_keys_move_as_the_newcomers_get_and_no_more() {
        let (four, five) = (ring(4), ring(5));
        let joined = Plan::between(&four, &five, 20_000);
        assert!((3_700..4_300).contains(&joined.moved), "{joined:?}");
        assert_eq!(Plan::between(&five, &four, 20_000).moved, joined.moved, "back is the same way");
        assert_eq!(Plan::between(&four, &four, 1000).moved, 0);
        let Shares { least, mean, most } = joined.after;
        assert!(least > 0.18 && mean == 0.2 && most < 0.22, "{least} {mean} {most}");
    }

    #[test]
    fn what_cannot_be_is_no_plan() {
        let refused = |before: &Members, remove| Plan::new(before, 0, remove, 10).unwrap_err();
        assert_eq!(refused(&Members::default(), 0), NoPlan::NoMembers);
        assert_eq!(refused(&ring(2), 3), NoPlan::TooFew(2));
        assert_eq!(refused(&ring(2), 2), NoPlan::NobodyLeft);
    }
}
