//! What one sidecar on one core does a second, and what each takes of it:
//! `cargo build --profile bench -p benches -p ws-proxy && target/release/sidecar`.
//!
//! Echoes of WebSocket messages by an application behind HTTP, and sends to keys by callers that wait for each answer
//! (`ack=written`). Clients come as a balancer's legs do; they, callers and applications have the other core.

#![allow(clippy::print_stdout)]

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Result, ensure};
use benches::{
    load::{Client, Poster},
    peers::{CORE, Upstreams, sidecar_of},
    process::{Process, run_on},
};
use clap::Parser;
use tokio::{
    net::TcpStream,
    task::{LocalSet, spawn_local},
    time::{Instant, sleep},
};

/// Measures one sidecar.
#[derive(Debug, Parser)]
struct Args {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Callers that send.
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// Bytes of each message, 8 at least.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Rounds; the median is shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

fn main() -> Result<()> {
    run_on(CORE + 1, run(Args::parse()))
}

async fn run(args: Args) -> Result<()> {
    println!("| what | a second | CPU us each |");
    println!("| --- | --- | --- |");
    for (what, is_echo) in [("echoes by an application behind HTTP", true), ("sends to keys", false)] {
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            // Clients of a round end with it.
            let local = LocalSet::new();
            let round = async { if is_echo { echoes(&args).await } else { sends(&args).await } };
            rounds.push(local.run_until(round).await?);
        }
        rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (rate, micros) = rounds[rounds.len() / 2];
        println!("| {what} | {rate:.0} | {micros:.1} |");
    }
    Ok(())
}

async fn echoes(args: &Args) -> Result<(f64, f64)> {
    let apps = Upstreams::http()?;
    let (sidecar, node, _) = sidecar_of(&format!("http://{}/", apps.addrs()[0]))?;
    let count = Rc::new(Cell::new(0));
    for n in 0..args.connections {
        let (mut client, count) = (leg(node, n, args.size).await?, Rc::clone(&count));
        spawn_local(async move {
            while client.echo().await.is_ok() {
                count.set(count.get() + 1);
            }
        });
    }
    measured(&sidecar, &count).await
}

async fn sends(args: &Args) -> Result<(f64, f64)> {
    let apps = Upstreams::start()?;
    let (sidecar, node, api) = sidecar_of(&format!("ws://{}", apps.addrs()[0]))?;
    let (received, count) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for n in 0..args.connections {
        let (mut client, received) = (leg(node, n, args.size).await?, Rc::clone(&received));
        spawn_local(async move { drop(client.count(&received).await) });
    }
    let body = "x".repeat(args.size);
    for n in 0..args.callers {
        let (mut caller, count, body) = (Poster::connect(api).await?, Rc::clone(&count), body.clone());
        let paths: Vec<String> = (n..args.connections)
            .step_by(args.callers)
            .map(|n| format!("/v1/keys/client-{n}/messages"))
            .collect();
        spawn_local(async move {
            for path in paths.iter().cycle() {
                if caller.post(path, &body).await.is_err() {
                    return;
                }
                count.set(count.get() + 1);
            }
        });
    }
    let measured = measured(&sidecar, &count).await?;
    ensure!(received.get() + args.callers as u64 >= count.get(), "{} of {}", received.get(), count.get());
    Ok(measured)
}

async fn leg(node: SocketAddr, n: usize, size: usize) -> Result<Client> {
    let io = TcpStream::connect(node).await?;
    io.set_nodelay(true)?;
    Client::over(io, &format!("ws-routing-key: client-{n}\r\n"), size).await
}

/// How much `count` grows in a second, and the CPU that each takes, in microseconds.
async fn measured(sidecar: &Process, count: &Cell<u64>) -> Result<(f64, f64)> {
    sleep(Duration::from_secs(1)).await;
    let (began, before, cpu) = (Instant::now(), count.get(), sidecar.usage()?.cpu);
    sleep(Duration::from_secs(4)).await;
    let done = (count.get() - before) as f64;
    ensure!(done > 0.0, "nothing has come back");
    Ok((done / began.elapsed().as_secs_f64(), (sidecar.usage()?.cpu - cpu).as_secs_f64() * 1e6 / done))
}
