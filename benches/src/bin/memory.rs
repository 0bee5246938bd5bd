//! Connections without a network: what each holds and costs while it says nothing, and how long one change of the members
//! takes to move them all: `cargo build --profile bench -p benches && target/release/memory`.
//!
//! Client, proxy and echo server share the process: the bytes are those of all three, and it is that they stay the same
//! for each connection that is to be seen.

#![allow(clippy::print_stdout)]

use std::{future::Future, time::Duration};

use anyhow::{Result, ensure};
use benches::{memory::InMemory, moved::Moved, process::own_usage};
use clap::Parser;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

/// Measures what connections cost where there is no kernel between.
#[derive(Debug, Parser)]
struct Args {
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    connections: Vec<usize>,
    /// Moves begun a second.
    #[arg(long, default_value_t = 100_000)]
    move_rate: usize,
    /// Dials at a time.
    #[arg(long, default_value_t = 64)]
    move_concurrency: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!(
        "| connections | resident bytes each | CPU ms a second while idle | moved in s | CPU us a move | no pause over s |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for &connections in &args.connections {
        // What an earlier one has left in the allocator is not to be used again.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(&args, connections))?;
    }
    Ok(())
}

async fn run(args: &Args, connections: usize) -> Result<()> {
    let before = own_usage()?.resident;
    let mut chain = InMemory::start(args.move_rate, args.move_concurrency)?;
    let mut clients = Vec::with_capacity(connections);
    for n in 0..connections {
        let mut client = chain.connect(&format!("client-{n}"), 64).await?;
        client.echo().await?;
        clients.push(client);
    }
    let usage = own_usage()?;
    let each = usage.resident.saturating_sub(before) / connections as u64;
    sleep(Duration::from_secs(3)).await;
    let idle = (own_usage()?.cpu - usage.cpu).as_secs_f64() * 1e3 / 3.0;
    let (began, cpu) = (Instant::now(), own_usage()?.cpu);
    chain.change();
    let moved = until(|| async { Moved::read(&chain.page()) }, connections as u64).await?;
    let (took, cpu) = (began.elapsed().as_secs_f64(), (own_usage()?.cpu - cpu).as_secs_f64());
    for batch in clients.chunks_mut(1000) {
        try_join_all(batch.iter_mut().map(|client| client.echo())).await?;
    }
    let micros = cpu * 1e6 / connections as f64;
    println!("| {connections} | {each} | {idle:.1} | {took:.2} | {micros:.0} | {} |", moved.pause);
    Ok(())
}

/// Waits until so many have moved.
async fn until<F: Future<Output = Moved>>(look: impl Fn() -> F, all: u64) -> Result<Moved> {
    let began = Instant::now();
    loop {
        let moved = look().await;
        if moved.moved >= all {
            return Ok(moved);
        }
        ensure!(began.elapsed() < Duration::from_secs(120), "after two minutes: {moved:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
