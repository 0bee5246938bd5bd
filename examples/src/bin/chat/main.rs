//! The main job in one command: pods with live connections come, go and die, and no client's socket closes.
//!
//! ```text
//! cargo run -p examples --bin chat                 # then open http://127.0.0.1:8081
//! cargo run -p examples --bin chat -- --headless   # 300 clients, 3 → 4 → 2 pods, and a table
//! ```
//!
//! What runs: a balancer in this process; pods as processes of their own (this binary again), each a small chat app
//! with the real sidecar beside it; a members file that says which pods there are, where Kubernetes would. A crowd of
//! clients sends numbered messages all the time and counts what happens to them.
//!
//! Reading order: `examples::deployment` (pods, members, balancer) → `examples::pod` → `app` → `crowd` → `headless`, `page`.
#![allow(clippy::print_stdout)] // it is a program to look at

mod app;
mod crowd;
mod headless;
mod page;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use examples::pod;

#[derive(Parser)]
#[command(about = "Three pods, a balancer and a page to chat in: no client notices when pods come and go")]
struct Args {
    /// No page: 300 clients, scale 3 → 4 → 2, print a table. Exits 0 only if nothing was closed, lost, repeated or
    /// reordered.
    #[arg(long)]
    headless: bool,

    /// Clients in the crowd. Default: 300 without a page, 60 beside one.
    #[arg(long)]
    clients: Option<usize>,

    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// One pod; the demo starts these itself.
    #[command(hide = true)]
    Pod(pod::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match (args.part, args.headless) {
        (Some(Part::Pod(pod)), _) => app::run(pod).await.map(|()| ExitCode::SUCCESS),
        (None, true) => headless::run(args.clients.unwrap_or(300)).await,
        (None, false) => page::run(args.clients.unwrap_or(60)).await.map(|()| ExitCode::SUCCESS),
    }
}
