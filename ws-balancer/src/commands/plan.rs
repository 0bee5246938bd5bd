//! `ws-balancer plan`: which share of the keys moves when nodes come and go.

use std::{collections::BTreeMap, fmt};

use anyhow::bail;
use clap::Parser;
use ws_routing::{
    Key, Members, Node, NodeId,
    cli::{BadConfig, args::MembersArgs},
};

/// Prints which share of the keys would move if nodes were added and removed, and what the nodes would have then.
///
/// It counts sampled keys, so that shares are a little off: by about 0.3 % of all keys with the default sample. Nodes are
/// removed from the end of the list, as when a StatefulSet is scaled in; added ones have the default weight.
#[derive(Clone, Debug, Parser)]
#[command(name = "plan", mut_arg("debounce", |arg| arg.hide(true)))]
pub struct PlanArgs {
    /// How many nodes are added.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    add: u16,

    /// How many nodes are removed.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    remove: usize,

    /// How many keys are looked at.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,

    #[command(flatten)]
    members: MembersArgs,
}

pub(super) async fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let before = super::resolve(&args.members).await?;
    if before.is_empty() {
        bail!("{} has no members", args.members.members);
    }
    let nodes = before.nodes().len();
    if args.remove > nodes {
        let expected = format!("expected at most the {nodes} that there are");
        return Err(BadConfig::new("--remove", &args.remove.to_string(), expected).into());
    }
    let kept = before.nodes()[..nodes - args.remove].iter().cloned();
    let after = Members::new(kept.chain((1..=args.add).map(added)), before.ring_seed());
    if after.is_empty() {
        bail!("no node would be left: all connections would be closed");
    }
    let removed = before.nodes()[nodes - args.remove..].iter().map(|node| node.id.clone()).collect();
    let plan = Plan::new(&before, &after, args.sample);
    Ok(super::print(&Report { plan, nodes: (nodes, after.nodes().len()), removed }.to_string())?)
}

/// A node that is not there yet. Its name is nobody's: these addresses are kept for measurements.
fn added(number: u16) -> Node {
    let [high, low] = number.to_be_bytes();
    Node::new(std::net::SocketAddr::from(([198, 18, high, low], 7400)).into())
}

/// What becomes of some keys.
#[derive(Debug, PartialEq)]
struct Plan {
    keys: u32,
    moved: u32,
    before: Shares,
    after: Shares,
}

/// What share of all keys a node has: the smallest, the mean, the largest.
#[derive(Debug, PartialEq)]
struct Shares {
    least: f64,
    mean: f64,
    most: f64,
}

impl Plan {
    fn new(before: &Members, after: &Members, keys: u32) -> Self {
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
        Self { keys, moved, before: Shares::of(&was, keys), after: Shares::of(&is, keys) }
    }
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
}

/// What is printed.
struct Report {
    plan: Plan,
    nodes: (usize, usize),
    removed: Vec<NodeId>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, nodes: (before, after), removed } = self;
        writeln!(f, "nodes                   {before} now, {after} then")?;
        if !removed.is_empty() {
            let names: Vec<&str> = removed.iter().map(NodeId::as_str).collect();
            writeln!(f, "nodes that leave        {}", names.join(", "))?;
        }
        let moved = f64::from(plan.moved) / f64::from(plan.keys);
        writeln!(f, "keys that move          {}, of {} looked at", Percent(moved), plan.keys)?;
        for (when, shares) in [("now ", &plan.before), ("then", &plan.after)] {
            let Shares { least, mean, most } = shares;
            let (least, mean, most) = (Percent(*least), Percent(*mean), Percent(*most));
            writeln!(f, "keys of a node, {when}    {mean} on average, {least} to {most}")?;
        }
        Ok(())
    }
}

struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", 100.0 * self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_keys_move_as_the_newcomers_get_and_no_more() {
        let ring = |n: u16| Members::new((1..=n).map(added), 0);
        let (four, five) = (ring(4), ring(5));
        let joined = Plan::new(&four, &five, 20_000);
        assert!((3_700..4_300).contains(&joined.moved), "{joined:?}");
        assert_eq!(Plan::new(&five, &four, 20_000).moved, joined.moved, "back is the same way");
        assert_eq!(Plan::new(&four, &four, 1000).moved, 0);
        let Shares { least, mean, most } = joined.after;
        assert!(least > 0.18 && mean == 0.2 && most < 0.22, "{joined:?}");
    }
}
