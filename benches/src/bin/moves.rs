//! All connections of a balancer moved by one change of its members, while they talk:
//! `cargo build --profile bench -p benches -p ws-balancer && target/release/moves`.
//!
//! Every client sends at its own pace, waits for the echo, and compares it; one whose connection is closed ends the run
//! with an error.
//! The longest time to an echo is the longest pause that a client has seen.

#![allow(clippy::print_stdout)]

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use benches::{
    load::{Echo, get},
    moved::Moved,
    peers::{CORE, Upstreams, balancer_of},
    process::run_on,
};
use clap::Parser;
use tokio::time::{Instant, sleep};

/// Moves all connections at once.
#[derive(Debug, Parser)]
struct Args {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "1000,9000")]
    connections: Vec<usize>,
    /// Echoes a second, of all clients together.
    #[arg(long, default_value_t = 3000.0)]
    rate: f64,
    /// For how many seconds they talk; the change comes after two of them.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
}

fn main() -> Result<()> {
    run_on(CORE + 1, run(Args::parse()))
}

async fn run(args: Args) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("ws-moves-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    println!(
        "| connections | legs | moved in s | balancer's CPU us a move | longest echo ms before | while moving | put off |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for &connections in &args.connections {
        for legs in ["tcp", "shared"] {
            one(&args, &dir.join("members"), connections, legs).await.context(legs)?;
        }
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn one(args: &Args, file: &Path, connections: usize, legs: &str) -> Result<()> {
    let nodes = Upstreams::sidecars()?;
    let [old, new, _] = nodes.addrs() else { anyhow::bail!("three nodes") };
    fs::write(file, format!("{old}\n"))?;
    let (balancer, listen, admin) = balancer_of(file, legs)?;
    let mut echo = Echo::connect(listen, connections, 64).await?;
    let quiet = echo.run((args.rate * 2.0) as u64, Some(args.rate)).await?;
    let messages = (args.rate * args.seconds) as u64;
    let rate = Some(args.rate);
    let talk = tokio::spawn(async move { Ok::<_, anyhow::Error>((echo.run(messages, rate).await?, echo)) });
    sleep(Duration::from_secs(2)).await;
    let cpu = balancer.usage()?.cpu;
    fs::write(file, format!("{old} state=draining\n{new}\n"))?;
    let began = Instant::now();
    let moved = all_moved(admin, connections as u64).await?;
    let took = began.elapsed().as_secs_f64();
    let micros = (balancer.usage()?.cpu - cpu).as_secs_f64() * 1e6 / connections as f64;
    let (talked, echo) = talk.await??;
    println!(
        "| {connections} | {legs} | {took:.2} | {micros:.0} | {} | {} | {} |",
        quiet.latency.max() / 1000,
        talked.latency.max() / 1000,
        moved.otherwise
    );
    echo.close().await
}

/// Waits until so many have moved.
async fn all_moved(admin: SocketAddr, all: u64) -> Result<Moved> {
    let began = Instant::now();
    loop {
        let moved = Moved::read(&get(admin, "/metrics").await?);
        if moved.moved >= all {
            return Ok(moved);
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "after 30 s: {moved:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
