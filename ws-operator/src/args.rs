//! What the operator can be told.

use clap::{Parser, Subcommand};

/// Puts the sidecar of ws-routing into labelled pods, and keeps their rings and balancers.
///
/// Every flag can be given as an environment variable too: WS_ and its name in capitals, as in WS_PROXY_IMAGE.
#[derive(Clone, Debug, Parser)]
#[command(name = "ws-operator", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the operator can be asked to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {}
