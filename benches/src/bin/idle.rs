//! What a connection costs that says nothing: resident bytes of the proxy for each, in one run, for our balancer and
//! its peers: `cargo build --profile bench -p benches -p ws-balancer -p ws-proxy && target/release/idle`.
//!
//! Each connection echoes once before and once after it was idle. A process may have as many descriptors as its hard
//! limit says, and each proxied connection takes two of the proxy's, or one where legs share connections.

#![allow(clippy::print_stdout)]

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use benches::{
    load::Echo,
    peers::{CORE, Peer, Upstreams},
    process::run_on,
};
use clap::Parser;

/// Measures what idle connections cost.
#[derive(Debug, Parser)]
struct Args {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,9000")]
    connections: Vec<usize>,
    /// Which proxies: nginx, haproxy, envoy, ws-balancer, ws-balancer-shared, ws-proxy, ws-proxy-shared.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "nginx,haproxy,ws-balancer,ws-balancer-shared,ws-proxy,ws-proxy-shared"
    )]
    peers: Vec<String>,
    /// For how long they are idle, in seconds.
    #[arg(long, default_value_t = 3)]
    idle: u64,
}

fn main() -> Result<()> {
    run_on(CORE + 1, run(Args::parse()))
}

async fn run(args: Args) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("ws-idle-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let upstreams = Upstreams::start()?;
    println!("| connections | proxy | resident bytes a connection | CPU ms a second while idle |");
    println!("| --- | --- | --- | --- |");
    for &connections in &args.connections {
        for name in &args.peers {
            let peer = Peer::named(name)?;
            let running = peer.start(&dir, &upstreams)?;
            let process = &running.process;
            let empty = process.usage()?.resident;
            let mut echo = Echo::connect(running.addr, connections, 64).await.context(peer.name())?;
            echo.run(connections as u64, None).await?;
            let before = process.usage()?.cpu;
            tokio::time::sleep(Duration::from_secs(args.idle)).await;
            let usage = process.usage()?;
            let bytes = usage.resident.saturating_sub(empty) / connections as u64;
            let idle = (usage.cpu - before).as_secs_f64() * 1e3 / args.idle as f64;
            echo.run(connections as u64, None).await?;
            echo.close().await?;
            println!("| {connections} | {} | {bytes} | {idle:.1} |", peer.name());
        }
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}
