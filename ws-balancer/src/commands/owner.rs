//! `ws-balancer owner`: who has a key, and who comes next.

use anyhow::bail;
use clap::Parser;
use ws_routing::{Key, cli::args::MembersArgs};

/// Prints the nodes that a key goes to, one a line: its owner first, then those that it goes to when the ones before are
/// dead.
#[derive(Clone, Debug, Parser)]
#[command(name = "owner", mut_arg("debounce", |arg| arg.hide(true)))]
pub struct OwnerArgs {
    /// The key, as it is: not percent-encoded.
    #[arg(value_name = "KEY")]
    key: Key,

    /// How many nodes are printed, at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    n: usize,

    #[command(flatten)]
    members: MembersArgs,
}

pub(super) async fn run(args: &OwnerArgs) -> anyhow::Result<()> {
    let members = super::resolve(&args.members).await?;
    if members.is_empty() {
        bail!("{} has no members", args.members.members);
    }
    let lines: String = members.walk(&args.key, args.n).map(|node| format!("{}\n", node.id)).collect();
    Ok(super::print(&lines)?)
}
