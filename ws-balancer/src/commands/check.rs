//! `ws-balancer check`: whether a balancer with these flags would work.

use std::{fmt::Display, io::ErrorKind, net::SocketAddr, time::Duration};

use anyhow::bail;
use clap::Parser;
use futures_util::future::join_all;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use ws_routing::{Members, Node, NodeState, admin, contract};

use crate::Args;

/// Checks that a balancer with these flags and variables would work: reads its files, looks its members up, asks each
/// of them, and prints what it finds. Ends with code 1 if something is wrong, with 64 if a flag is.
#[derive(Clone, Debug, Parser)]
#[command(name = "check")]
pub struct CheckArgs {
    #[command(flatten)]
    args: Args,
}

pub(super) async fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let args = &args.args;
    let mut report = Report::default();

    report.section("configuration")?;
    report.good("flags and variables can be read")?;
    if let Some(path) = &args.peers.peer_token_file {
        let read = args.peers.open().map(|_| format!("--peer-token-file {} has tokens", path.display()));
        report.told(read)?;
    }
    if let Some(cert) = &args.tls.tls_cert {
        let read = args.tls.open().await.map(|_| format!("--tls-cert {} can be shown", cert.display()));
        report.told(read)?;
    }
    match args.jwt.open(&args.clients.key) {
        Ok(Some(file)) if file.is_secret() => report.good("--jwt-keys is one shared secret for tokens")?,
        Ok(Some(file)) => report.good(format!("--jwt-keys has {} keys for tokens", file.keys()))?,
        Ok(None) => {}
        Err(error) => report.bad(error)?,
    }

    report.section("ports")?;
    let tls = args.tls.tls_listen.map(|addr| ("--tls-listen", addr));
    for (flag, addr) in [("--listen", args.listen), ("--admin", args.admin)].into_iter().chain(tls) {
        match TcpListener::bind(addr).await {
            Ok(_) => report.good(format!("{flag} {addr} is free"))?,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                report.odd(format!("{flag} {addr} is taken: by a balancer that runs already?"))?;
            }
            Err(error) => report.bad(format!("{flag} {addr}: {error}"))?,
        }
    }

    report.section("members")?;
    match super::resolve(&args.members).await {
        Ok(members) => {
            describe(&mut report, args, &members)?;
            report.section("nodes")?;
            ask_all(&mut report, args, &members).await?;
        }
        // Each error has its cause behind a colon.
        Err(error) => report.bad(format!("{error:#}"))?,
    }
    report.end()
}

fn describe(report: &mut Report, args: &Args, members: &Members) -> anyhow::Result<()> {
    let uri = &args.members.members;
    let count = |state| members.nodes().iter().filter(|node| node.state == state).count();
    let (ready, draining) = (count(NodeState::Ready), count(NodeState::Draining));
    match members.nodes().len() {
        0 => report.bad(format!("{uri} has no members: clients would be answered 503")),
        _ if ready == 0 => report.odd(format!("{uri} has {draining} nodes, and none of them is ready")),
        _ => report.good(format!("{uri} has {ready} ready nodes, and {draining} that drain")),
    }?;
    report.good(format!("the fingerprint, to compare with other processes, is {}", members.fingerprint()))
}

/// Asks all nodes at once, and tells of them in their order.
async fn ask_all(report: &mut Report, args: &Args, members: &Members) -> anyhow::Result<()> {
    let (dial, answer) = (args.nodes.dial_timeout, args.nodes.handshake_timeout);
    let answers = join_all(members.nodes().iter().map(|node| ask(node, dial, answer))).await;
    for (Node { id, .. }, answer) in members.nodes().iter().zip(answers) {
        report.told(answer.map(|it| format!("{id} {it}")).map_err(|it| format!("{id} {it}")))?;
    }
    Ok(())
}

/// What a node answers to a probe. Whatever it is, a plain WebSocket server's error included, means that it is there.
async fn ask(node: &Node, dial: Duration, answer: Duration) -> Result<String, String> {
    let addr: SocketAddr =
        node.id.as_str().parse().map_err(|_| "is a name, and cannot be dialled".to_owned())?;
    let began = Instant::now();
    match timeout(dial, TcpStream::connect(addr)).await {
        Err(_) => return Err(format!("does not accept a connection within {dial:?}")),
        Ok(Err(error)) => return Err(format!("cannot be reached: {error}")),
        Ok(Ok(_)) => {}
    }
    let took = began.elapsed();
    let get = "GET".parse().map_err(|_| "cannot be asked")?;
    let probe = timeout(answer, admin::request(addr, get, contract::PROBE)).await;
    let probe = probe.map_err(|_| format!("accepts a connection, and answers nothing within {answer:?}"))?;
    let state =
        probe.ok().and_then(|answer| Some(answer.headers().get(contract::STATE)?.to_str().ok()?.to_owned()));
    Ok(match state {
        Some(state) => format!("is a sidecar, {state}; a connection takes {took:.1?}"),
        None => format!("is a WebSocket server without a sidecar; a connection takes {took:.1?}"),
    })
}

/// Lines on stdout, and how many of them are bad.
#[derive(Default)]
struct Report {
    checks: usize,
    bad: usize,
}

impl Report {
    fn section(&mut self, name: &str) -> anyhow::Result<()> {
        let gap = if self.checks == 0 { "" } else { "\n" };
        Ok(super::print(&format!("{gap}{name}\n"))?)
    }

    fn told(&mut self, found: Result<impl Display, impl Display>) -> anyhow::Result<()> {
        match found {
            Ok(found) => self.good(found),
            Err(found) => self.bad(found),
        }
    }

    fn good(&mut self, what: impl Display) -> anyhow::Result<()> {
        self.line('√', what)
    }

    /// Not wrong in itself.
    fn odd(&mut self, what: impl Display) -> anyhow::Result<()> {
        self.line('‼', what)
    }

    fn bad(&mut self, what: impl Display) -> anyhow::Result<()> {
        self.bad += 1;
        self.line('×', what)
    }

    fn line(&mut self, mark: char, what: impl Display) -> anyhow::Result<()> {
        self.checks += 1;
        Ok(super::print(&format!("{mark} {what}\n"))?)
    }

    fn end(&self) -> anyhow::Result<()> {
        match self.bad {
            0 => Ok(super::print("\nall is well\n")?),
            bad => bail!("{bad} of {} checks failed", self.checks),
        }
    }
}
