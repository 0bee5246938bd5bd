//! Our balancer and its peers in turn, each alone on one core, clients and upstreams on the next, in one run:
//! `cargo build --profile bench -p benches -p ws-balancer -p ws-proxy && target/release/compare`.
//!
//! Shows the CPU time that a round trip costs the proxy, and that a connection does (handshake and Close); each echo is
//! compared with what was sent. Needs `taskset`, and those of the peers that are named.

#![allow(clippy::print_stdout)]

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use benches::{
    load::Echo,
    peers::{CORE, Peer, Upstreams},
    process::run_on,
};
use clap::Parser;

/// Compares proxies by the CPU time that a round trip costs them.
#[derive(Debug, Parser)]
struct Args {
    /// Payloads, in bytes.
    #[arg(long, value_delimiter = ',', default_value = "64,1024,16384")]
    sizes: Vec<usize>,
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    connections: Vec<usize>,
    /// Round trips in a round.
    #[arg(long, default_value_t = 40_000)]
    messages: u64,
    /// Rounds; medians are shown, of ratios too.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Round trips a second, of all connections together; without it, as many as come back.
    #[arg(long)]
    rate: Option<f64>,
    /// Which proxies, the first being the measure: nginx, haproxy, envoy, ws-balancer, ws-balancer-shared, ws-proxy,
    /// ws-proxy-shared.
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy,ws-balancer,ws-balancer-shared")]
    peers: Vec<String>,
}

fn main() -> Result<()> {
    run_on(CORE + 1, run(Args::parse()))
}

async fn run(args: Args) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("ws-compare-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let peers = args.peers.iter().map(|name| Peer::named(name)).collect::<Result<Vec<_>>>()?;
    let upstreams = Upstreams::start()?;
    println!(
        "| bytes | connections | proxy | µs a round trip | ratio | µs a connection | ratio | p50 µs | p99 µs | ratio |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for &size in &args.sizes {
        for &connections in &args.connections {
            let mut rounds: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
            for _ in 0..args.rounds {
                for (peer, rounds) in peers.iter().zip(&mut rounds) {
                    let load = Load { connections, size, messages: args.messages, rate: args.rate };
                    rounds.push(round(*peer, &dir, &upstreams, &load).await.context(peer.name())?);
                }
            }
            show(&peers, &rounds, size, connections);
        }
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Prints a line for each proxy; the first is what the others are measured by, round by round: the machine is not the
/// same in the next one.
fn show(peers: &[Peer], rounds: &[Vec<Round>], size: usize, connections: usize) {
    let Some(base) = rounds.first() else { return };
    for (peer, rounds) in peers.iter().zip(rounds) {
        let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        let ratio = |figure: fn(&Round) -> f64| {
            median(rounds.iter().zip(base).map(|(round, base)| figure(round) / figure(base)).collect())
        };
        println!(
            "| {size} | {connections} | {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} |",
            peer.name(),
            of(|r| r.trip),
            ratio(|r| r.trip),
            of(|r| r.connection),
            ratio(|r| r.connection),
            of(|r| r.p50),
            of(|r| r.p99),
            ratio(|r| r.p99),
        );
    }
}

/// What one load is made of.
#[derive(Debug)]
struct Load {
    connections: usize,
    size: usize,
    messages: u64,
    rate: Option<f64>,
}

/// Microseconds: of the proxy's CPU a round trip and a connection, and of latency.
#[derive(Clone, Copy, Debug)]
struct Round {
    trip: f64,
    connection: f64,
    p50: f64,
    p99: f64,
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How many connections are opened and closed to see what one costs.
const CONNECTS: usize = 2000;

async fn round(peer: Peer, dir: &Path, upstreams: &Upstreams, load: &Load) -> Result<Round> {
    let running = peer.start(dir, upstreams)?;
    let addr = running.addr;
    let cpu = || Ok::<_, anyhow::Error>(running.process.usage()?.cpu.as_secs_f64() * 1e6);
    let mut echo = Echo::connect(addr, load.connections, load.size).await?;
    echo.run(load.messages / 5, load.rate).await?;
    let before = cpu()?;
    let echoed = echo.run(load.messages, load.rate).await?;
    let trip = (cpu()? - before) / load.messages as f64;
    echo.close().await?;
    let before = cpu()?;
    for _ in 0..CONNECTS / 100 {
        Echo::connect(addr, 100, load.size).await?.close().await?;
    }
    let connection = (cpu()? - before) / CONNECTS as f64;
    let latency = |quantile| echoed.latency.value_at_quantile(quantile) as f64;
    Ok(Round { trip, connection, p50: latency(0.5), p99: latency(0.99) })
}
