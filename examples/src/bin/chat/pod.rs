//! One pod: the chat app, and the real sidecar beside it, in a process of their own so that a kill is a kill.

use std::{io, net::Ipv4Addr, path::PathBuf};

use clap::Parser as _;
use tokio::{net::TcpListener, sync::oneshot};

use crate::app;

/// The ports of a pod; every pod has its own address.
pub(crate) const APP: u16 = 3001;
pub(crate) const LISTEN: u16 = 7400;
pub(crate) const API: u16 = 7401;
pub(crate) const ADMIN: u16 = 7402;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The pod's address.
    #[arg(long)]
    pub(crate) ip: Ipv4Addr,
    /// The members file.
    #[arg(long)]
    pub(crate) members: PathBuf,
}

/// Serves until SIGTERM, and then until its connections have moved away.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let node = format!("{}:{LISTEN}", args.ip);
    let app = TcpListener::bind((args.ip, APP)).await?;
    tokio::select! {
        () = app::serve(app, node) => Ok(()),
        ended = ws_proxy::run(sidecar(&args)?) => ended,
        () = orphaned() => Ok(()),
    }
}

fn sidecar(args: &Args) -> anyhow::Result<ws_proxy::Args> {
    let at = |port| format!("{}:{port}", args.ip);
    let app = format!("ws://{}", at(APP));
    let members = format!("file:{}", args.members.display());
    let (listen, api, admin) = (at(LISTEN), at(API), at(ADMIN));
    #[rustfmt::skip]
    let flags = [
        "ws-proxy", "--listen", &listen, "--node", &listen, "--api", &api, "--admin", &admin, "--app", &app,
        "--members", &members, "--drain", "20s", "--log-level", "error",
    ];
    Ok(ws_proxy::Args::Run(Box::new(ws_proxy::RunArgs::try_parse_from(flags)?)))
}

/// The demo holds this process's stdin: when it is gone, so are its pods. On a thread of its own, as the runtime would
/// wait for a read of stdin before it ends.
async fn orphaned() {
    let (held, ended) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        drop(held);
    });
    drop(ended.await);
}
