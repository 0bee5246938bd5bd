//! What the balancer can be told.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use ws_routing::cli::{
    args::{
        ClientArgs, KeepaliveArgs, LegArgs, LogArgs, MembersArgs, MoveArgs, NodeArgs, PeerArgs, ProbeArgs,
        RedeliveryArgs, listen,
    },
    units::duration,
};

/// Routes each WebSocket client to the node that owns its key, and moves live connections when nodes come and go.
///
/// Every flag can be given as an environment variable too: WS_ and its name in capitals, as in WS_DIAL_TIMEOUT.
/// Durations have a unit: 250ms, 2s, 1m. Sizes too: 64KiB, 1MiB.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Where clients connect.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080", value_parser = listen)]
    pub listen: SocketAddr,

    /// Where health, metrics and the state of the ring are shown.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7402", value_parser = listen)]
    pub admin: SocketAddr,

    /// Time over which clients are closed, 1012, after SIGTERM.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub drain: Duration,

    /// Who the members are.
    #[command(flatten)]
    pub members: MembersArgs,
    /// How a client is taken in.
    #[command(flatten)]
    pub clients: ClientArgs,
    /// How nodes are reached.
    #[command(flatten)]
    pub nodes: NodeArgs,
    /// How sidecars know this process.
    #[command(flatten)]
    pub peers: PeerArgs,
    /// How connections to nodes are shared.
    #[command(flatten)]
    pub legs: LegArgs,
    /// How nodes are probed.
    #[command(flatten)]
    pub probes: ProbeArgs,
    /// How connections move.
    #[command(flatten)]
    pub moves: MoveArgs,
    /// How dead peers are found.
    #[command(flatten)]
    pub keepalive: KeepaliveArgs,
    /// What happens to messages in flight.
    #[command(flatten)]
    pub redelivery: RedeliveryArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}
