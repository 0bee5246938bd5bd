//! What the operator can be told.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};
use ws_routing::cli::args::{LogArgs, listen};

use crate::{Settings, annotations, names};

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
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = namespace)]
    pub default_namespace: String,

    /// What is put into them.
    #[command(flatten)]
    pub settings: Settings,
}

/// What an installation is told.
#[derive(Clone, Debug, clap::Args)]
pub struct ManifestsArgs {
    /// The operator's own image.
    #[arg(long, value_name = "IMAGE", default_value_t = Settings::image(names::OPERATOR), value_parser = image)]
    pub operator_image: String,

    /// Operators: all serve, one leads.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
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

/// The name of an image.
pub(crate) fn image(text: &str) -> Result<String, &'static str> {
    annotations::image(text).ok_or("expected the name of an image")
}

/// The name of a namespace: a DNS label.
pub(crate) fn namespace(text: &str) -> Result<String, &'static str> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if good {
        Ok(text.into())
    } else {
        Err("expected lower-case letters, digits and inner dashes, 63 at most")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_give_invalid_manifests_is_refused_by_its_flag() {
        let long = "n".repeat(64);
        let cases: &[(&str, &str, &[&str])] = &[
            ("manifests", "--replicas", &["0", "65536", "many"]),
            ("manifests", "--namespace", &["", "A B", "-a", "a-", "a.b", &long]),
            ("manifests", "--operator-image", &["", "a b"]),
            ("manifests", "--proxy-image", &["", "a b"]),
            ("manifests", "--balancer-image", &["", "a\nb"]),
            ("inject", "--default-namespace", &["", "A"]),
        ];
        for (command, flag, values) in cases {
            for value in *values {
                let refused = Args::try_parse_from(["ws-operator", command, &format!("{flag}={value}")]);
                let told = refused.map(|args| format!("{args:?}")).unwrap_err().to_string();
                assert!(told.contains(flag), "{flag} {value:?}: {told}");
            }
        }
        let good =
            ["ws-operator", "manifests", "--replicas=1", "--namespace=a-1", "--proxy-image=a/p@sha256:0"];
        assert!(Args::try_parse_from(good).is_ok());
    }
}
