//! Our balancer and its peers in turn, each alone on one core, clients and upstreams on the next, in one run:
//! `cargo build --profile bench -p benches -p ws-balancer -p ws-proxy && target/release/compare`.
//!
//! Shows the CPU time that a round trip costs the proxy, and that a connection does (handshake and Close); each echo is
//! compared with what was sent. All proxies run and hold their clients from the beginning, one is loaded at a time, for a
//! fraction of a second: machines get faster and slower within seconds. Needs `taskset`, and those of the peers that are
//! named.

#![allow(clippy::print_stdout)]

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use benches::{
    load::Echo,
    peers::{CORE, Peer, Running, Upstreams},
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
    /// Round trips in a round; without it, 10,000, and 40 for each connection at least.
    #[arg(long)]
    messages: Option<u64>,
    /// Rounds; medians are shown, of ratios too.
    #[arg(long, default_value_t = 25)]
    rounds: usize,
    /// Round trips a second, of all connections together; without it, as many as come back.
    #[arg(long)]
    rate: Option<f64>,
    /// Which proxies, the first being the measure: bare, nginx, haproxy, envoy, ws-balancer, ws-balancer-shared, ws-proxy,
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
            let messages = args.messages.unwrap_or_else(|| 10_000.max(40 * connections as u64));
            let load = Load { connections, size, messages, rate: args.rate };
            let rounds = compare(&peers, &dir, &upstreams, &load, args.rounds).await?;
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

/// The proxies' rounds, all first ones before all second ones.
async fn compare(
    peers: &[Peer],
    dir: &Path,
    upstreams: &Upstreams,
    load: &Load,
    rounds: usize,
) -> Result<Vec<Vec<Round>>> {
    let mut loaded = Vec::new();
    for peer in peers {
        loaded.push(Loaded::start(*peer, dir, upstreams, load).await.context(peer.name())?);
    }
    let mut all: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((loaded, rounds), peer) in loaded.iter_mut().zip(&mut all).zip(peers) {
            rounds.push(loaded.round(load).await.context(peer.name())?);
        }
    }
    for loaded in loaded {
        loaded.echo.close().await?;
    }
    Ok(all)
}

/// How many connections are opened and closed in a round to see what one costs.
const CONNECTS: usize = 100;

/// A proxy and the clients that it holds.
struct Loaded {
    running: Running,
    echo: Echo,
}

impl Loaded {
    async fn start(peer: Peer, dir: &Path, upstreams: &Upstreams, load: &Load) -> Result<Self> {
        let running = peer.start(dir, upstreams)?;
        let mut echo = Echo::connect(running.addr, load.connections, load.size).await?;
        echo.run(load.messages, load.rate).await?;
        Ok(Self { running, echo })
    }

    async fn round(&mut self, load: &Load) -> Result<Round> {
        let before = self.cpu()?;
        let echoed = self.echo.run(load.messages, load.rate).await?;
        let trip = (self.cpu()? - before) / load.messages as f64;
        let before = self.cpu()?;
        Echo::connect(self.running.addr, CONNECTS, load.size).await?.close().await?;
        let connection = (self.cpu()? - before) / CONNECTS as f64;
        let latency = |quantile| echoed.latency.value_at_quantile(quantile) as f64;
        Ok(Round { trip, connection, p50: latency(0.5), p99: latency(0.99) })
    }

    /// What the proxy has used, in microseconds.
    fn cpu(&self) -> Result<f64> {
        Ok(self.running.process.usage()?.cpu.as_secs_f64() * 1e6)
    }
}
