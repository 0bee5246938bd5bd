//! The operator: one label on a workload, and its pods have the sidecar, a ring and a balancer.
//!
//! Pure centre, thin edges: what is put into a pod, what a workload's template is told and who leads are functions of
//! values; the API server is spoken to at the rim.

pub mod annotations;
mod args;
pub mod certs;
mod controller;
pub mod crd;
pub mod desired;
#[cfg(test)]
mod fake_api;
pub mod inject;
pub mod lease;
pub mod manifests;
pub mod members;
pub mod metrics;
pub mod names;
pub mod offline;
pub mod propagate;
pub mod quantity;
mod ring;
mod run;
mod settings;
mod status;
pub mod table;
pub mod tokens;
mod watch;
mod watchdog;
pub mod webhook;
mod world;

pub use args::{Args, Command, InjectArgs, ManifestsArgs, RunArgs};
pub use ring::{Group, InvalidGroup, Ring};
pub use settings::Settings;

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use ws_routing::cli::BadConfig;

use manifests::Installation;

/// Does what the arguments say.
///
/// # Errors
///
/// Bad configuration that shows only when it is used, and what keeps a command from its work.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Run(args) => run::serve(args).await,
        Command::Inject(args) => inject_offline(args).await,
        Command::Manifests(ManifestsArgs { settings, operator_image, replicas }) => {
            print(&Installation { settings, operator_image, replicas }.yaml()?).await
        }
        Command::Crd => print(&(serde_json::to_string_pretty(&crd::definition())? + "\n")).await,
    }
}

async fn inject_offline(args: InjectArgs) -> anyhow::Result<()> {
    let InjectArgs { filename, default_namespace, settings } = args;
    let text = match filename.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).context("standard input")?,
        file => std::fs::read_to_string(file).map_err(|error| {
            BadConfig::new("--filename", file, format!("expected a file of manifests: {error}"))
        })?,
    };
    let injected = offline::inject_all(&text, &default_namespace, &settings)?;
    let mut errors = tokio::io::stderr();
    for warning in injected.warnings {
        errors.write_all(format!("warning: {warning}\n").as_bytes()).await?;
    }
    print(&injected.manifests).await
}

async fn print(text: &str) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(text.as_bytes()).await?;
    Ok(out.flush().await?)
}
