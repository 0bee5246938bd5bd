//! A fleet of devices: chargers hold a WebSocket each, and an operator gives them commands by HTTP, at any pod. The charger's
//! own answer is the answer, while a fourth pod comes and takes some of the chargers over.
//!
//! ```text
//! cargo run -p examples --bin fleet
//! curl -X POST http://127.0.1.1:3001/chargers/CP-007/Reset      # what the operator does; the address is printed
//! ```
//!
//! The application is a plain HTTP server in three pods (`app.rs`). It speaks OCPP 1.6 as JSON, and knows neither where a
//! charger's socket is nor that there are sockets: it is called with events, and sends by key through its own sidecar.
//! Exits 0 only if every command was answered by its own charger, once, and no socket was closed.
#![allow(clippy::print_stdout)] // it is a program to look at

mod app;
mod charger;
mod http;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use charger::{Fleet, name};
use clap::{Parser, Subcommand};
use examples::{deployment::Deployment, pod};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::Instant;

/// How long it may take until all chargers are where they belong.
const STEP: Duration = Duration::from_secs(30);
/// Commands under way at once.
const OPERATORS: usize = 4;

#[derive(Parser)]
#[command(
    about = "Chargers with a WebSocket each, and commands by HTTP at any of three pods, while a fourth comes"
)]
struct Args {
    /// How many chargers there are.
    #[arg(long, default_value_t = 40)]
    chargers: usize,

    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// One pod; the example starts these itself.
    #[command(hide = true)]
    Pod(pod::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.part {
        Some(Part::Pod(pod)) => app::run(pod).await.map(|()| ExitCode::SUCCESS),
        None => operate(args.chargers).await,
    }
}

async fn operate(chargers: usize) -> anyhow::Result<ExitCode> {
    let mut deployment = Deployment::start(3, 8084, &["--key", "path:/ocpp/{key}"]).await?;
    let fleet = Fleet::connect(deployment.addr, chargers).await?;
    let pods = apps(&deployment)?;
    println!("{chargers} chargers at three pods, such as http://{}/chargers/{}/Reset", pods[0], name(7));
    let mut outcomes = command_all(&pods, chargers).await;

    // A fourth pod: the chargers that are its own move to it, and get commands meanwhile.
    let (owners, new) = deployment.owners_after_add()?;
    let moving = (0..chargers).filter(|n| owners.of(&name(*n)).as_ref() == Some(&new)).count();
    deployment.add().await?;
    let (pods, begun) = (apps(&deployment)?, Instant::now());
    let mut moved = 0;
    while moved < moving && begun.elapsed() < STEP {
        outcomes.extend(command_all(&pods, chargers).await);
        moved = deployment.relayed_to(&new).await?;
    }
    println!("a fourth pod has come, and {moved} of the {moving} chargers that are its own are there");
    outcomes.extend(command_all(&pods, chargers).await);

    let answered = outcomes.iter().flatten().count();
    let longest = outcomes.iter().flatten().max().copied().unwrap_or_default();
    println!("\n chargers  moved  closed  commands  answered  repeated  longest");
    let (commands, closed) = (outcomes.len(), fleet.closed());
    let repeated = fleet.commands().saturating_sub(commands);
    println!(
        "{chargers:>9} {moved:>6} {closed:>7} {commands:>9} {answered:>9} {repeated:>9} {:>5} ms",
        longest.as_millis()
    );
    let good = answered == commands && moved == moving && moved > 0 && (closed, repeated) == (0, 0);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the applications of all pods are.
fn apps(deployment: &Deployment) -> anyhow::Result<Vec<SocketAddr>> {
    let nodes = deployment.pods();
    let app = |node: &str| Ok(SocketAddr::new(node.parse::<SocketAddr>()?.ip(), pod::APP));
    nodes.iter().map(|(node, _)| app(node)).collect()
}

/// Gives every charger a command, each at another pod than the one before. How long each took; `None`: it failed.
async fn command_all(pods: &[SocketAddr], chargers: usize) -> Vec<Option<Duration>> {
    let commands = (0..chargers).map(|n| async move {
        let begun = Instant::now();
        let done = command(pods[n % pods.len()], &name(n)).await;
        done.inspect_err(|why| println!("{}: {why:#}", name(n))).ok().map(|()| begun.elapsed())
    });
    stream::iter(commands).buffer_unordered(OPERATORS).collect().await
}

/// A command, and the charger's own answer to it.
async fn command(pod: SocketAddr, charger: &str) -> anyhow::Result<()> {
    let (status, body) = http::post(pod, &format!("/chargers/{charger}/Reset"), &Value::Null).await?;
    ensure!(status.is_success(), "{pod} answers {status}");
    let answer: Value = serde_json::from_slice(&body).context("no JSON")?;
    ensure!(
        answer["status"] == "Accepted" && answer["charger"] == charger,
        "another charger's answer: {answer}"
    );
    Ok(())
}
