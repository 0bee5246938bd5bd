//! One pod: an application, and the real sidecar beside it, in a process of their own so that a kill is a kill.

use std::{io, net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::Parser as _;
use tokio::{net::TcpStream, sync::oneshot, time::sleep};

/// The application's port; every pod has its own address.
pub const APP: u16 = 3001;
/// The sidecar's port for balancers and peers.
pub const LISTEN: u16 = 7400;
/// The sidecar's port for the application.
pub const API: u16 = 7401;
/// The sidecar's port for whoever looks after it.
pub const ADMIN: u16 = 7402;

/// What a pod is told by its deployment.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The pod's address.
    #[arg(long)]
    pub ip: Ipv4Addr,
    /// The members file.
    #[arg(long)]
    pub members: PathBuf,
}

impl Args {
    /// The node that it is.
    #[must_use]
    pub fn node(&self) -> String {
        format!("{}:{LISTEN}", self.ip)
    }
}

/// Runs `app`, which listens on [`APP`], beside a sidecar that reaches it at `url`, until SIGTERM, and then until its connections have moved away.
/// `flags` are the sidecar's.
///
/// # Errors
///
/// The application's and the sidecar's own.
pub async fn run(
    args: &Args,
    url: &str,
    app: impl Future<Output = anyhow::Result<()>>,
    flags: &[&str],
) -> anyhow::Result<()> {
    let sidecar = sidecar(args, url, flags)?;
    let beside = async {
        // Ready is what answers: nobody is to come before the application is there.
        while TcpStream::connect((args.ip, APP)).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
        ws_proxy::run(sidecar).await
    };
    tokio::select! {
        ended = app => ended,
        ended = beside => ended,
        () = orphaned() => Ok(()),
    }
}

fn sidecar(args: &Args, app: &str, more: &[&str]) -> anyhow::Result<ws_proxy::Args> {
    let at = |port| format!("{}:{port}", args.ip);
    let members = format!("file:{}", args.members.display());
    let (listen, api, admin) = (at(LISTEN), at(API), at(ADMIN));
    #[rustfmt::skip]
    let flags = [
        "ws-proxy", "--listen", &listen, "--node", &listen, "--api", &api, "--admin", &admin, "--app", app,
        "--members", &members, "--drain", "20s", "--log-level", "error",
    ];
    let flags = flags.iter().chain(more);
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
