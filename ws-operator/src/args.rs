//! What the operator can be told.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use ws_routing::cli::args::{LogArgs, listen};

use crate::{Settings, names};

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
pub enum Command {
    /// Watches the cluster, serves the members of every ring, and makes rings and balancers.
    Run(RunArgs),
    /// Puts the sidecar into manifests as the webhook would, without a cluster: YAML in, YAML out.
    Inject(InjectArgs),
    /// Prints everything that an installation consists of, as YAML.
    Manifests(ManifestsArgs),
    /// Prints the custom resource definition, as JSON.
    Crd,
}

/// What is injected offline.
#[derive(Clone, Debug, clap::Args)]
pub struct InjectArgs {
    /// The file with the manifests; - reads them from standard input.
    #[arg(short = 'f', long, value_name = "FILE", default_value = "-")]
    pub filename: String,

    /// The namespace of objects that name none.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub default_namespace: String,

    /// What is put into them.
    #[command(flatten)]
    pub settings: Settings,
}

/// What an installation is told.
#[derive(Clone, Debug, clap::Args)]
pub struct ManifestsArgs {
    /// The operator's own image.
    #[arg(long, value_name = "IMAGE", default_value_t = Settings::image(names::OPERATOR))]
    pub operator_image: String,

    /// Operators: all serve, one leads.
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub replicas: u16,

    /// What the operator is told.
    #[command(flatten)]
    pub settings: Settings,
}

/// What a running operator is told.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Where health and metrics are shown.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7402", value_parser = listen)]
    pub admin: SocketAddr,

    /// Where the members of every ring are served.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7403", value_parser = listen)]
    pub members: SocketAddr,

    /// Where the API server asks about pods and workloads, with TLS.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8443", value_parser = listen)]
    pub webhook: SocketAddr,

    /// The directory with the webhooks' certificate, tls.crt and tls.key, that somebody else makes and replaces, as
    /// cert-manager does, and tells the API server of. Without it the operator has a CA of its own.
    #[arg(long, value_name = "DIRECTORY")]
    pub cert_dir: Option<PathBuf>,

    /// What it puts into the cluster.
    #[command(flatten)]
    pub settings: Settings,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}
