//! `ws-operator run`: start-up and shutdown on one page.

use std::time::Duration;

use anyhow::{Context, bail};
use kube::{Client, Config};
use tokio::{net::TcpListener, task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;
use ws_routing::{
    admin::{self, Admin, Latch, Readiness, Routes},
    cli,
    drain::{self, Outcome},
    metrics::Metrics,
    serve,
};

use crate::{Args, RunArgs, controller::Controller, members::Rings};

/// Followers of members at once: a stream for each sidecar and balancer.
const FOLLOWERS: usize = 50_000;

/// Runs until a signal.
pub(crate) async fn serve(args: RunArgs) -> anyhow::Result<()> {
    args.log.start();
    cli::warn_unknown_variables::<Args>();
    let mut config = Config::infer().await.context("neither in a cluster nor with a usable kubeconfig")?;
    // It would retry for minutes before anybody learns of it.
    config.default_retry = false;
    let client = Client::try_from(config).context("cannot set up the Kubernetes client")?;
    let signals = drain::signals().context("cannot wait for signals")?;
    let (signal, drain) = drain::channel();
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let readiness = Readiness::new(drain.clone());
    let (listening, listed) = (readiness.latch("listeners"), readiness.latch("slices"));
    let admins = serve::bind(args.admin).context("--admin")?;
    let followers = serve::bind(args.members).context("--members")?;
    listening.release();
    tracing::info!(admin = %args.admin, members = %args.members, "started");

    let rings = Rings::default();
    let closing = CancellationToken::new();
    let mut parts = JoinSet::new();
    parts.spawn(port(admins, admin::health(readiness), closing.clone(), metrics.clone(), 512));
    parts.spawn(port(followers, rings.routes(), closing.clone(), metrics, FOLLOWERS));
    parts.spawn(release_when_listed(rings.clone(), listed));
    parts.spawn(Controller::new(client, args.settings, rings).run());

    let outcome = tokio::select! {
        outcome = drain::conduct(&signal, &drain, signals, Duration::ZERO) => outcome,
        fault = serve::fault(&mut parts) => return Err(fault).context("a part of the program broke"),
    };
    match outcome {
        Outcome::Interrupted(name) => bail!("{name} again: ended at once"),
        Outcome::Empty | Outcome::Left(_) => Ok(()),
    }
}

async fn port(
    listener: TcpListener,
    routes: Routes,
    closing: CancellationToken,
    metrics: Metrics,
    connections: usize,
) {
    let admin = Admin::new(routes, closing.clone()).at_most(connections);
    serve::serve(listener, closing.cancelled(), metrics, |stream, peer| admin.connection(stream, peer)).await;
}

async fn release_when_listed(rings: Rings, listed: Latch) {
    let mut again = interval(Duration::from_millis(100));
    while !rings.is_whole() {
        again.tick().await;
    }
    listed.release();
}
