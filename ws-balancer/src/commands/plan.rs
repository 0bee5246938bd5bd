//! `ws-balancer plan`: which share of the keys moves when nodes come and go.

use std::fmt;

use anyhow::anyhow;
use clap::Parser;
use ws_routing::{
    NodeId,
    cli::{BadConfig, args::MembersArgs},
};

use crate::plan::{NoPlan, Plan, Shares};

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
    let members = super::resolve(&args.members).await?;
    let plan = Plan::new(&members, args.add, args.remove, args.sample).map_err(|none| match none {
        NoPlan::NoMembers => anyhow!("{} has no members", args.members.members),
        NoPlan::TooFew(_) => BadConfig::new("--remove", &args.remove.to_string(), none.to_string()).into(),
        NoPlan::NobodyLeft => none.into(),
    })?;
    Ok(super::print(&Report(plan).to_string())?)
}

/// What is printed.
struct Report(Plan);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(plan) = self;
        let Plan { nodes: (now, then), removed, .. } = plan;
        writeln!(f, "nodes                   {now} now, {then} then")?;
        if !removed.is_empty() {
            let names: Vec<&str> = removed.iter().map(NodeId::as_str).collect();
            writeln!(f, "nodes that leave        {}", names.join(", "))?;
        }
        writeln!(f, "keys that move          {}, of {} looked at", Percent(plan.share()), plan.keys)?;
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
