//! `ws-operator run`: start-up and shutdown on one page.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use kube::{Api, Client, Config};
use tokio::{net::TcpListener, task::JoinSet, time::interval};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use ws_routing::{
    admin::{self, Admin, Latch, Readiness, Routes},
    cli,
    drain::{self, Outcome},
    metrics::Metrics as Connections,
    serve,
    tls::Serving,
};

use crate::{
    Args, RunArgs,
    certs::{self, Keeper},
    controller::Controller,
    lease::{self, Leading},
    members::{self, Rings},
    metrics::Metrics,
    webhook::Webhooks,
};

/// Followers of members at once: a stream for each sidecar and balancer.
const FOLLOWERS: usize = 50_000;

/// How long the Lease may take to be given back.
const GIVE_BACK: Duration = Duration::from_secs(3);

/// Runs until a signal.
pub(crate) async fn serve(args: RunArgs) -> anyhow::Result<()> {
    args.log.start();
    cli::warn_unknown_variables::<Args>();
    let client = client().await?;
    let signals = drain::signals().context("cannot wait for signals")?;
    let (signal, drain) = drain::channel();
    let readiness = Readiness::new(drain.clone());
    let latches = ["listeners", "slices", "certificate"].map(|name| readiness.latch(name));
    let [listening, listed, certified] = latches;
    let admins = serve::bind(args.admin).context("--admin")?;
    let followers = serve::bind(args.members).context("--members")?;
    let reviews = serve::bind(args.webhook).context("--webhook")?;
    listening.release();
    tracing::info!(admin = %args.admin, members = %args.members, webhook = %args.webhook, "started");

    let (metrics, rings, serving) = (Metrics::new(), Rings::default(), Serving::default());
    let closing = CancellationToken::new();
    let webhooks = Webhooks::new(args.settings.clone(), serving.clone(), metrics.clone(), closing.clone());
    let mut parts = JoinSet::new();
    parts.spawn(port(admins, routes(readiness, metrics.clone()), closing.clone(), 512));
    parts.spawn(port(followers, rings.routes(), closing.clone(), FOLLOWERS));
    parts.spawn(release_when_listed(rings.clone(), listed));
    parts.spawn(release_when_certified(serving.clone(), certified));
    parts.spawn(members::follow(client.clone(), rings.clone(), metrics.clone()));

    let namespace = args.settings.namespace.clone();
    let (leads, leading) = Leading::channel();
    let leases = Api::namespaced(client.clone(), &namespace);
    let campaign = lease::campaign(leases, identity(), leads, metrics.clone(), closing.clone());
    let campaign = AbortOnDropHandle::new(tokio::spawn(campaign));
    let reviewing = AbortOnDropHandle::new(tokio::spawn(reviewing(reviews, webhooks, closing.clone())));
    certificates(&mut parts, &client, namespace, args.cert_dir, leading.clone(), &serving, &metrics);
    parts.spawn(Controller::new(client, args.settings, rings, metrics).run(leading));

    let outcome = tokio::select! {
        outcome = drain::conduct(&signal, &drain, signals, Duration::ZERO) => outcome,
        fault = serve::fault(&mut parts) => return Err(fault).context("a part of the program broke"),
    };
    closing.cancel();
    // What is asked is answered, and the next leader told; who is not told waits for fifteen seconds, no more.
    let _ = tokio::time::timeout(GIVE_BACK, async { tokio::join!(campaign, reviewing) }).await;
    match outcome {
        Outcome::Interrupted(name) => bail!("{name} again: ended at once"),
        Outcome::Empty | Outcome::Left(_) => Ok(()),
    }
}

async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("neither in a cluster nor with a usable kubeconfig")?;
    // It would retry for minutes before anybody learns of it.
    config.default_retry = false;
    Client::try_from(config).context("cannot set up the Kubernetes client")
}

/// A name that no other replica has: the pod's, and another with every start.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}", host.trim(), rand::random::<u64>())
}

fn routes(readiness: Readiness, metrics: Metrics) -> Routes {
    admin::health(readiness).merge(admin::scrapes(move |format| metrics.page(format)))
}

/// From files, or from a Secret that the leader keeps.
fn certificates(
    parts: &mut JoinSet<()>,
    client: &Client,
    namespace: String,
    files: Option<PathBuf>,
    mut leading: Leading,
    serving: &Serving,
    metrics: &Metrics,
) {
    let (serving, metrics) = (serving.clone(), metrics.clone());
    if let Some(folder) = files {
        parts.spawn(async move { certs::follow_files(&folder, serving, metrics).await });
        return;
    }
    let keeper = Keeper::new(client.clone(), namespace.clone(), metrics.clone());
    parts.spawn(async move {
        loop {
            leading.won().await;
            tokio::select! {
                () = keeper.run() => {}
                () = leading.lost() => {}
            }
        }
    });
    parts.spawn(certs::follow_secret(client.clone(), namespace, serving, metrics));
}

async fn port(listener: TcpListener, routes: Routes, closing: CancellationToken, connections: usize) {
    let counted = Connections::new(env!("CARGO_PKG_VERSION"));
    let admin = Admin::new(routes, closing.clone()).at_most(connections);
    serve::serve(listener, closing.cancelled(), counted, |stream, peer| admin.connection(stream, peer)).await;
}

async fn reviewing(listener: TcpListener, webhooks: Webhooks, closing: CancellationToken) {
    let counted = Connections::new(env!("CARGO_PKG_VERSION"));
    let connection = |stream, peer| webhooks.connection(stream, peer);
    serve::serve(listener, closing.cancelled(), counted, connection).await;
}

async fn release_when_listed(rings: Rings, listed: Latch) {
    let mut again = interval(Duration::from_millis(100));
    while !rings.is_whole() {
        again.tick().await;
    }
    listed.release();
}

async fn release_when_certified(serving: Serving, certified: Latch) {
    serving.first().await;
    certified.release();
}

#[cfg(test)]
mod tests {
    use http::{Request, header};

    use super::*;

    #[tokio::test]
    async fn metrics_are_in_the_format_that_is_asked_for() {
        let (_signal, drain) = drain::channel();
        let routes = routes(Readiness::new(drain), Metrics::new());
        let open = "application/openmetrics-text; version=1.0.0";
        for (accept, kind) in [("*/*", "text/plain; version=0.0.4"), (open, open)] {
            let request = Request::get("/metrics").header(header::ACCEPT, accept).body(()).unwrap();
            let answer = routes.answer(([127, 0, 0, 1], 1).into(), request.into_parts().0).await;
            let told = answer.headers()[header::CONTENT_TYPE].to_str().unwrap();
            assert!(told.starts_with(kind), "{accept}: {told}");
        }
    }
}
