//! A collaborative document: Yjs' own WebSocket server, unmodified, in three pods, and two people who write in one document.
//! A fourth pod comes, the document belongs to it, and both go on writing on the sockets that they have.
//!
//! ```text
//! cargo run -p examples --bin document
//! cargo run -p examples --bin document -- --greeting-only
//! ```
//!
//! The server knows nothing of other pods, and keeps documents in memory. That is enough: the document's name is the key
//! (`--key path:/{key}`), so all its editors are at one pod. When they move, the new pod has nothing. It greets each
//! with the first step of Yjs' protocol for syncing, "this is what I have", and each answers with all that it lacks: so
//! the document comes along with its editors. One moves a moment before the other, and what it writes in between has not
//! reached the other: therefore editors ask for what they miss now and then, which the provider calls `resyncInterval`.
//! With `--greeting-only` they never do, and rest while they move.
//!
//! Needs node and npm, which installs what `package-lock.json` names below `target`. Exits 0 only if all have the same
//! document in the end, with every line once, and no socket was closed; 3 where it cannot run.
#![allow(clippy::print_stdout)] // it is a program to look at

mod node;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use examples::{deployment::Deployment, pod};
use node::{Editor, Seen};
use tokio::time::{Instant, sleep};

/// How long a step may take.
const STEP: Duration = Duration::from_secs(30);
/// How often editors ask for what they miss.
const RESYNC: Duration = Duration::from_secs(1);
/// Lines that each editor writes before the document moves, and after.
const LINES: usize = 100;

#[derive(Parser)]
#[command(about = "Two editors of one document on Yjs' own server in three pods, and a fourth that comes")]
struct Args {
    /// Editors rest while the document moves, and never ask for what they miss: the new pod's greeting alone brings them
    /// together.
    #[arg(long)]
    greeting_only: bool,

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
    if let Some(Part::Pod(args)) = args.part {
        let url = format!("ws://{}:{}", args.ip, pod::APP);
        let server = node::server(args.ip.into(), pod::APP);
        return pod::run(&args, &url, server, &[]).await.map(|()| ExitCode::SUCCESS);
    }
    match node::install().await {
        Ok(folder) => edit(&folder, args.greeting_only).await.map(|()| ExitCode::SUCCESS),
        Err(why) => {
            println!("cannot run here, it needs node and npm: {why:#}");
            Ok(ExitCode::from(3))
        }
    }
}

async fn edit(folder: &Path, greeting_only: bool) -> anyhow::Result<()> {
    let mut deployment = Deployment::start(3, 8083, &["--key", "path:/{key}"]).await?;
    let (document, old, new) = moving_document(&deployment)?;
    let resync = (!greeting_only).then_some(RESYNC);
    let url = format!("ws://{}", deployment.addr);
    let open = |name| Editor::open(folder, &url, &document, name, resync);
    let mut editors = [open("ada")?, open("grace")?];
    println!("{document:?} is at {old}; two editors write in it");
    together(&mut editors, "both see what both write", LINES).await?;

    if greeting_only {
        for editor in &mut editors {
            editor.rest().await?;
        }
        settled(&mut editors).await?;
    }
    deployment.add().await?;
    moved(&deployment, &new).await?;
    println!("a fourth pod has come, and both are at {new}");
    together(&mut editors, "both still see what both write", 2 * LINES).await?;

    for editor in &mut editors {
        editor.rest().await?;
    }
    let document = settled(&mut editors).await?;
    // Who comes now is told all by the new pod.
    let [one, two] = editors;
    let mut all = [one, two, open("linus")?];
    ensure!(settled(&mut all).await? == document, "the document has changed by itself");
    println!("\n{}", table(&mut all).await?);
    Ok(())
}

/// A document that the next pod will own, its pod now, and that next one.
fn moving_document(deployment: &Deployment) -> anyhow::Result<(String, String, String)> {
    let (now, (then, new)) = (deployment.owners()?, deployment.owners_after_add()?);
    let names = (1..).map(|n| format!("minutes-{n}"));
    let document = names.take(10_000).find(|name| then.of(name).as_ref() == Some(&new));
    let document = document.context("a fourth pod owns some documents")?;
    let old = now.of(&document).context("there are pods")?;
    Ok((document, old, new))
}

/// Has both write, until each has so many lines, and so many of the other.
async fn together(editors: &mut [Editor], what: &str, lines: usize) -> anyhow::Result<()> {
    for editor in &mut *editors {
        editor.write().await?;
    }
    until(editors, what, |seen| seen.iter().all(|s| s.typed >= lines && s.lines >= s.typed + lines)).await?;
    Ok(())
}

/// Waits until all have the same document with every line once, and returns its hash.
async fn settled(editors: &mut [Editor]) -> anyhow::Result<String> {
    let same = |seen: &[Seen]| {
        let typed: usize = seen.iter().map(|seen| seen.typed).sum();
        seen.iter().all(|s| s.synced && s.hash == seen[0].hash && (s.lines, s.different) == (typed, typed))
    };
    let seen = until(editors, "all have the same document", same).await?;
    Ok(seen[0].hash.clone())
}

/// Asks the editors until they have seen that. A closed socket is an error whenever it happens.
async fn until(
    editors: &mut [Editor],
    what: &str,
    holds: impl Fn(&[Seen]) -> bool,
) -> anyhow::Result<Vec<Seen>> {
    let begun = Instant::now();
    loop {
        let mut seen = Vec::new();
        for editor in &mut *editors {
            seen.push(editor.state().await?);
        }
        if let Some(seen) = seen.iter().find(|seen| seen.sockets > 1 || seen.closes > 0) {
            bail!("a socket was closed: {seen:?}");
        }
        if holds(&seen) {
            return Ok(seen);
        }
        ensure!(begun.elapsed() < STEP, "not after {STEP:?}: {what}: {seen:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the balancer relays both editors to `node`.
async fn moved(deployment: &Deployment, node: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while deployment.relayed_to(node).await? < 2 {
        ensure!(begun.elapsed() < STEP, "not after {STEP:?}: both at {node}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What everybody has at the end.
async fn table(editors: &mut [Editor]) -> anyhow::Result<String> {
    let mut table = format!("{:>8} {:>8} {:>8} {:>8}  document\n", "written", "lines", "sockets", "closed");
    for editor in editors {
        let Seen { typed, lines, sockets, closes, hash, .. } = editor.state().await?;
        table += &format!("{typed:>8} {lines:>8} {sockets:>8} {closes:>8}  {hash}\n");
    }
    Ok(table)
}
