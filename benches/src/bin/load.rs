//! Loads what listens already, ours or anybody's: `cargo build --profile bench -p benches --bin load`, then
//!
//! ```text
//! target/release/load echo 127.0.0.1:8080 --connections 1000 --rate 5000
//! target/release/load idle 127.0.0.1:8080 --connections 9000 --seconds 60
//! target/release/load connect 127.0.0.1:8080 --connections 10000
//! target/release/load send 127.0.0.1:8080 127.0.0.1:7401 --callers 16
//! target/release/load move 127.0.0.1:8080 127.0.0.1:7402 --connections 9000 --rate 3000
//! ```
//!
//! What is behind it has to echo. Client `n` comes with `ws-user-id: client-n`. Each payload that comes is compared with
//! the one that was sent; a client that is closed ends the run with an error.

#![allow(clippy::print_stdout)]

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use benches::{
    load::{Client, Echo, Echoed, Poster, get},
    moved::Moved,
};
use clap::{Args, Parser};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};

/// Loads a WebSocket server, or a proxy before one.
#[derive(Debug, Parser)]
enum Load {
    /// Every connection sends, waits for the echo, and sends the next.
    Echo {
        #[command(flatten)]
        clients: Clients,
        /// Round trips, of all connections together.
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
        /// Round trips a second, of all connections together; without it, as many as come back.
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Connections that say nothing but one echo before and one after.
    Idle {
        #[command(flatten)]
        clients: Clients,
        /// For how long they say nothing.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Connections that are opened and closed.
    Connect {
        #[command(flatten)]
        clients: Clients,
        /// How many are open at once.
        #[arg(long, default_value_t = 64)]
        at_once: usize,
    },
    /// Messages to keys, by the API of a sidecar, until the client has them.
    Send {
        #[command(flatten)]
        clients: Clients,
        /// The sidecar's API.
        api: SocketAddr,
        /// Messages, of all callers together.
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
        /// Callers, each of which waits for the answer and the client.
        #[arg(long, default_value_t = 16)]
        callers: usize,
    },
    /// Echoes while you add, drain or kill nodes.
    Move {
        #[command(flatten)]
        clients: Clients,
        /// The balancer's admin port, which tells of moves.
        admin: SocketAddr,
        /// Round trips a second, of all connections together.
        #[arg(long, default_value_t = 1000.0)]
        rate: f64,
        /// For how long they talk.
        #[arg(long, default_value_t = 30.0)]
        seconds: f64,
    },
}

#[derive(Args, Debug)]
struct Clients {
    /// Where they connect.
    addr: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of each payload, 8 at least.
    #[arg(long, default_value_t = 64)]
    size: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Load::parse() {
        Load::Echo { clients, messages, rate } => {
            let mut echo = clients.connect().await?;
            show(&echo.run(messages, rate).await?);
            echo.close().await
        }
        Load::Idle { clients, seconds } => idle(&clients, seconds).await,
        Load::Connect { clients, at_once } => connect(&clients, at_once.max(1)).await,
        Load::Send { clients, api, messages, callers } => send(&clients, api, messages, callers.max(1)).await,
        Load::Move { clients, admin, rate, seconds } => moves(&clients, admin, rate, seconds).await,
    }
}

impl Clients {
    async fn connect(&self) -> Result<Echo> {
        Echo::connect(self.addr, self.connections, self.size).await
    }
}

async fn idle(clients: &Clients, seconds: u64) -> Result<()> {
    let mut echo = clients.connect().await?;
    show(&echo.run(clients.connections as u64, None).await?);
    sleep(Duration::from_secs(seconds)).await;
    show(&echo.run(clients.connections as u64, None).await?);
    echo.close().await
}

async fn connect(clients: &Clients, at_once: usize) -> Result<()> {
    let (began, mut left) = (Instant::now(), clients.connections);
    let mut latency = Histogram::new(3)?;
    while left > 0 {
        let batch = left.min(at_once);
        let opened = Instant::now();
        let echo = Echo::connect(clients.addr, batch, clients.size).await?;
        latency.record(opened.elapsed().as_micros() as u64)?;
        echo.close().await?;
        left -= batch;
    }
    let rate = clients.connections as f64 / began.elapsed().as_secs_f64();
    println!("{} connections opened and closed, {rate:.0} a second", clients.connections);
    println!("{at_once} handshakes at once took, in µs: {}", quantiles(&latency));
    Ok(())
}

async fn send(clients: &Clients, api: SocketAddr, messages: u64, callers: usize) -> Result<()> {
    let began = Instant::now();
    let callers = callers.min(clients.connections);
    let share = messages / callers as u64;
    let runs = (0..callers).map(|n| caller(clients, api, share, (n..clients.connections).step_by(callers)));
    let mut latency = Histogram::new(3)?;
    for own in try_join_all(runs).await? {
        latency.add(own)?;
    }
    let elapsed = began.elapsed();
    show(&Echoed { messages: share * callers as u64, elapsed, latency });
    Ok(())
}

/// Sends to the clients of those numbers in turn. A message has arrived when its caller has the answer and its client the
/// message.
async fn caller(
    clients: &Clients,
    api: SocketAddr,
    messages: u64,
    numbers: impl Iterator<Item = usize>,
) -> Result<Histogram<u64>> {
    let mut caller = Poster::connect(api).await?;
    let mut held = Vec::new();
    for n in numbers {
        let key = format!("client-{n}");
        let client = Client::connect(clients.addr, &key, clients.size).await?;
        held.push((client, format!("/v1/keys/{key}/messages")));
    }
    let mut latency = Histogram::new(3)?;
    for n in 0..messages {
        let at = n as usize % held.len();
        let (client, path) = &mut held[at];
        let text = format!("{n:0>width$}", width = clients.size);
        let began = Instant::now();
        caller.post(path, &text).await?;
        client.receive_text(&text).await?;
        latency.record(began.elapsed().as_micros() as u64)?;
    }
    Ok(latency)
}

async fn moves(clients: &Clients, admin: SocketAddr, rate: f64, seconds: f64) -> Result<()> {
    let mut echo = clients.connect().await?;
    let before = Moved::read(&get(admin, "/metrics").await?);
    println!("talking for {seconds} s: change the members now");
    let echoed = echo.run((rate * seconds) as u64, Some(rate)).await?;
    let after = Moved::read(&get(admin, "/metrics").await?);
    show(&echoed);
    println!(
        "{} moves, {} put off, none closed; the longest echo is the longest pause that a client has seen",
        after.moved - before.moved,
        after.otherwise - before.otherwise
    );
    echo.close().await
}

fn show(echoed: &Echoed) {
    let rate = echoed.messages as f64 / echoed.elapsed.as_secs_f64();
    println!(
        "{} messages, {rate:.0} a second; each took, in µs: {}",
        echoed.messages,
        quantiles(&echoed.latency)
    );
}

fn quantiles(latency: &Histogram<u64>) -> String {
    let of = |quantile| latency.value_at_quantile(quantile);
    format!("p50 {}, p99 {}, p99.9 {}, longest {}", of(0.5), of(0.99), of(0.999), latency.max())
}
