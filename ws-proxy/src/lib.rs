//! The sidecar: start-up and shutdown on one page.

mod app;
mod args;
mod drain_command;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use ws_routing::{
    admin::{self, Admin, Readiness, Routes},
    cli,
    drain::{self, Outcome},
    key::jwt::KeysFile,
    metrics::Metrics,
    peer::PeerTokens,
    serve,
    session::{Sidecar, SidecarParts},
    trace::Tracer,
};

pub use args::{Args, DrainArgs, RunArgs};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Does what the arguments say: serves the pod, drains the sidecar that does, or prints what a shell or `man` asks for.
///
/// # Errors
///
/// Bad configuration that shows only when it is used, a port that cannot be listened on, a part that panicked, a second
/// signal; for `drain`: when no sidecar answers.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args {
        Args::Run(args) => serve_pod(*args).await,
        Args::Drain(args) => drain_command::run(&args).await,
        Args::Completions(args) => Ok(args.print(cli::command::<Args>())?),
        Args::Man(args) => Ok(args.print(cli::command::<Args>())?),
    }
}

/// Runs until a signal, and the drain that it begins.
async fn serve_pod(args: RunArgs) -> anyhow::Result<()> {
    let (view, follow) = args.members.open().await?;
    let node = args.node()?;
    let (tokens, keys) = args.credentials()?;
    // Answers to the last admin calls are written when all else has ended, and so are the last spans.
    let closing = CancellationToken::new();
    let (tracer, export) = args.trace.open("ws-proxy", VERSION, closing.clone())?;
    let (metrics, sidecar_metrics) = Metrics::for_sidecar(VERSION);
    let app = app::open(&args, &node, sidecar_metrics.clone()).await?;
    // Bad configuration is one line, with nothing before it.
    args.log.start();
    cli::warn_unknown_variables::<Args>();
    warn_of_strangers(tokens.as_ref());
    let signals = drain::signals().context("cannot wait for signals")?;
    let (signal, drain) = drain::channel();
    let readiness = Readiness::new(drain.clone());
    let (listening, known) = (readiness.latch("listeners"), readiness.latch("members"));
    let clients = serve::bind(args.listen).context("--listen")?;
    let apis = serve::bind(args.api).context("--api")?;
    let admins = serve::bind(args.admin).context("--admin")?;
    listening.release();
    let (listen, admin) = (clients.local_addr()?, admins.local_addr()?);
    tracing::info!(%listen, api = %apis.local_addr()?, %admin, %node, app = %args.app, members = %args.members.members, "started");

    let routes = admin::standard(readiness, metrics.clone(), view.clone())
        .peer_tokens(tokens.clone())
        .merge(admin::drain(signal.clone(), drain.clone(), args.drain))
        .merge(admin::wait_empty(drain.clone(), args.drain));
    let mut ports = JoinSet::new();
    ports.spawn(export);
    ports.spawn(port(admins, routes, closing.clone(), metrics.clone()));

    let mut parts = JoinSet::new();
    parts.spawn(follow);
    parts.spawn(admin::release_on_members(view.clone(), known));
    let parts_of = SidecarParts {
        app,
        node,
        view,
        drain: drain.clone(),
        metrics: metrics.clone(),
        sidecar_metrics,
        tokens,
        sends: args.send_settings(),
        route_field: args.route_field.clone(),
        settings: args.moves.relay_settings(&args.keepalive, &args.clients, &args.redelivery),
        limits: args.clients.limits(),
    };
    let sidecar = sidecar(&args, keys, tracer, parts_of);
    ports.spawn(accept(clients, sidecar.clone(), closing.clone(), metrics.clone()));
    ports.spawn(api(apis, sidecar.clone(), closing.clone(), metrics));
    parts.spawn(async move { sidecar.run().await });

    let outcome = tokio::select! {
        outcome = drain::conduct(&signal, &drain, signals, args.drain) => outcome,
        fault = serve::fault(&mut parts) => return Err(fault).context("a part of the program broke"),
    };
    closing.cancel();
    if !matches!(outcome, Outcome::Interrupted(_)) {
        // Peers are told that nothing more is answered here, and get the answers to what they have asked.
        signal.close();
        last_answers(ports).await;
    }
    finish(outcome)
}

fn warn_of_strangers(tokens: Option<&PeerTokens>) {
    if tokens.is_none() {
        tracing::warn!("without --peer-token-file anybody who reaches --listen is taken for a peer");
    }
}

async fn last_answers(mut ports: JoinSet<()>) {
    let answered = async { while ports.join_next().await.is_some() {} };
    // Whoever does not take the answer by then has to do without.
    let _ = tokio::time::timeout(Duration::from_secs(1), answered).await;
}

/// The stack: what serves balancers, peers and clients, from the arguments.
fn sidecar(args: &RunArgs, keys: Option<KeysFile>, tracer: Tracer, parts: SidecarParts) -> Sidecar {
    Sidecar::new(parts, |builder| {
        let builder = builder
            .dial(args.nodes.dial_settings(&args.probes, &args.moves))
            .log_keys(args.log.log_keys)
            .token_reader(keys.map(|keys| Arc::new(keys) as _))
            .tracer(tracer);
        args.clients.apply(builder)
    })
}

async fn accept(clients: TcpListener, sidecar: Sidecar, closing: CancellationToken, metrics: Metrics) {
    // A sidecar that drains still answers probes, and legs that nobody else could take.
    serve::serve(clients, closing.cancelled(), metrics, move |stream, peer| {
        let sidecar = sidecar.clone();
        async move { sidecar.serve(stream, peer).await }
    })
    .await;
}

async fn api(apis: TcpListener, sidecar: Sidecar, closing: CancellationToken, metrics: Metrics) {
    serve::serve(apis, closing.cancelled(), metrics, move |stream, peer| {
        let api = sidecar.api().clone();
        async move { api.serve(stream, peer).await }
    })
    .await;
}

async fn port(listener: TcpListener, routes: Routes, closing: CancellationToken, metrics: Metrics) {
    let admin = Admin::new(routes, closing.clone());
    serve::serve(listener, closing.cancelled(), metrics, |stream, peer| admin.connection(stream, peer)).await;
}

fn finish(outcome: Outcome) -> anyhow::Result<()> {
    match outcome {
        Outcome::Empty => tracing::info!("drained"),
        Outcome::Left(connections) => {
            tracing::warn!(connections, "the time to drain is over, connections are cut")
        }
        Outcome::Interrupted(name) => bail!("{name} again: ended at once"),
    }
    Ok(())
}
