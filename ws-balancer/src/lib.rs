//! The balancer: start-up and shutdown on one page.

mod args;
mod commands;
mod page;
mod plan;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use ws_routing::{
    admin::{self, Admin, Readiness, Routes},
    cli,
    drain::{self, Drain, Outcome},
    key::jwt::KeysFile,
    membership::View,
    metrics::Metrics,
    peer::PeerTokens,
    proxy::Proxy,
    serve,
    tls::CertificateFiles,
    trace::Tracer,
};

pub use args::{Args, TlsArgs};
pub use commands::{CheckArgs, Invocation, OwnerArgs, PlanArgs, invoke};

/// Runs until a signal, and the drain that it begins.
///
/// # Errors
///
/// Bad configuration that shows only when it is used, a port that cannot be listened on, a part that panicked, and a
/// second signal.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (view, follow) = args.members.open().await?;
    let tokens = args.peers.open()?;
    let tls = args.tls.open().await?;
    let keys = args.jwt.open(&args.clients.key)?;
    // Answers to the last admin calls are written when all else has ended, and so are the last spans.
    let closing = CancellationToken::new();
    let version = env!("CARGO_PKG_VERSION");
    let (tracer, export) = args.trace.open("ws-balancer", version, closing.clone())?;
    args.log.start();
    cli::warn_unknown_variables::<Args>();
    let signals = drain::signals().context("cannot wait for signals")?;
    let (signal, drain) = drain::channel();
    let metrics = Metrics::new(version);
    let readiness = Readiness::new(drain.clone());
    let (listening, known) = (readiness.latch("listeners"), readiness.latch("members"));
    let clients = serve::bind(args.listen).context("--listen")?;
    let admins = serve::bind(args.admin).context("--admin")?;
    let tls =
        tls.map(|(addr, files)| Ok::<_, anyhow::Error>((serve::bind(addr).context("--tls-listen")?, files)));
    let tls = tls.transpose()?;
    listening.release();
    let (listen, admin) = (clients.local_addr()?, admins.local_addr()?);
    let tls_listen = tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
    tracing::info!(%listen, tls = tls_listen.map(tracing::field::display), %admin, members = %args.members.members, "started");

    let proxy = proxy(&args, tokens.clone(), keys, tracer, view.clone(), drain.clone(), metrics.clone());
    let routes = admin::standard(readiness, metrics.clone(), view.clone())
        .peer_tokens(tokens)
        .merge(admin::drain(signal.clone(), drain.clone(), args.drain))
        .merge(admin::connections(proxy.clone()))
        .merge(page::page(proxy.clone(), closing.clone()));
    let mut ports = JoinSet::new();
    ports.spawn(export);
    ports.spawn(port(admins, routes, closing.clone(), metrics.clone()));

    let mut parts = JoinSet::new();
    parts.spawn(follow);
    parts.spawn(admin::release_on_members(view.clone(), known));
    if let Some((listener, files)) = tls {
        parts.spawn(accept_tls(listener, files, proxy.clone(), closing.clone(), metrics.clone()));
    }
    parts.spawn(accept(clients, proxy.clone(), closing.clone(), metrics));
    parts.spawn(async move { proxy.run().await });

    let outcome = tokio::select! {
        outcome = drain::conduct(&signal, &drain, signals, args.drain) => outcome,
        fault = serve::fault(&mut parts) => return Err(fault).context("a part of the program broke"),
    };
    closing.cancel();
    signal.close();
    let answered = async { while ports.join_next().await.is_some() {} };
    // Whoever does not take the answer by then has to do without.
    let _ = tokio::time::timeout(Duration::from_secs(1), answered).await;
    finish(outcome)
}

/// The stack: what serves clients, from the arguments.
fn proxy(
    args: &Args,
    tokens: Option<PeerTokens>,
    keys: Option<KeysFile>,
    tracer: Tracer,
    view: View,
    drain: Drain,
    metrics: Metrics,
) -> Proxy {
    let builder = Proxy::builder(view)
        .tracer(tracer)
        .metrics(metrics)
        .drain(drain)
        .dial(args.nodes.dial_settings(&args.probes, &args.moves))
        .legs(args.legs.legs)
        .peer_tokens(tokens)
        .token_reader(keys.map(|keys| Arc::new(keys) as _))
        .relay(args.moves.relay_settings(&args.keepalive, &args.clients, &args.redelivery))
        .log_keys(args.log.log_keys);
    args.clients.apply(builder).build()
}

async fn accept(clients: TcpListener, proxy: Proxy, closing: CancellationToken, metrics: Metrics) {
    // A balancer that drains still accepts, to say so.
    serve::serve(clients, closing.cancelled(), metrics, move |stream, peer| proxy.serve(stream, peer)).await;
}

/// Serves clients by TLS with the certificate that the files have.
async fn accept_tls(
    clients: TcpListener,
    mut files: CertificateFiles,
    proxy: Proxy,
    closing: CancellationToken,
    metrics: Metrics,
) {
    let tls = files.serving().clone();
    let until = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = files.follow() => {}
        }
    };
    serve::serve(clients, until, metrics, move |stream, peer| {
        let (proxy, tls) = (proxy.clone(), tls.clone());
        async move { proxy.serve_tls(stream, peer, &tls).await }
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
