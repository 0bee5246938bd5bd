//! Sidecars within this process.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{net::TcpListener, task::JoinSet};
use ws_routing::{
    Members, Node, NodeId,
    app::{App, AppLeg, Opening},
    drain,
    membership::View,
    metrics::{Metrics, SidecarMetrics},
    proxy::{
        LegStream, connect,
        handshake::{Handshake, LegHeaders},
    },
    serve,
    session::{Sidecar, SidecarParts},
};

use crate::upstream::echo;

/// A running sidecar. Dropping it ends it.
#[derive(Debug)]
pub struct Pod {
    /// Where legs and peers come.
    pub addr: SocketAddr,
    /// Its API.
    pub api: SocketAddr,
    _signal: drain::Signal,
    _tasks: JoinSet<()>,
}

impl Pod {
    /// As many as there are listeners to give their addresses, in one ring, each with an application by `app`.
    ///
    /// # Panics
    ///
    /// When nothing can be listened on: a benchmark has nothing to measure then.
    pub async fn ring<const N: usize>(app: impl Fn(&NodeId, &SidecarMetrics) -> Arc<dyn App>) -> [Self; N] {
        let listeners = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let listeners = listeners.map(|listener| {
            listener.set_nonblocking(true).expect("a listener");
            TcpListener::from_std(listener).expect("a runtime")
        });
        let addrs = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
        listeners.map(|listener| Self::start(listener, &addrs, &app).expect("a free port"))
    }

    /// Serves what comes to `listener`, as that one of `nodes`.
    ///
    /// # Errors
    ///
    /// When there is no port for the API.
    pub fn start(
        listener: TcpListener,
        nodes: &[SocketAddr],
        app: impl Fn(&NodeId, &SidecarMetrics) -> Arc<dyn App>,
    ) -> Result<Self> {
        let addr = listener.local_addr()?;
        let members = Members::new(nodes.iter().map(|node| Node::new((*node).into())), 0);
        let (node, (metrics, sidecar_metrics)) = (NodeId::from(addr), Metrics::for_sidecar("bench"));
        let (signal, drain) = drain::channel();
        let parts = SidecarParts {
            app: app(&node, &sidecar_metrics),
            node,
            view: View::fixed(members),
            drain,
            metrics: metrics.clone(),
            sidecar_metrics,
            tokens: None,
            route_field: None,
            sends: Default::default(),
            settings: Default::default(),
            limits: Default::default(),
        };
        let sidecar = Sidecar::new(parts, |builder| builder);
        let apis = serve::bind("127.0.0.1:0".parse()?)?;
        let (api, calls) = (apis.local_addr()?, sidecar.api().clone());
        let mut tasks = JoinSet::new();
        let runs = sidecar.clone();
        tasks.spawn(async move { runs.run().await });
        tasks.spawn(serve::serve(apis, pending(), metrics.clone(), move |stream, peer| {
            let calls = calls.clone();
            async move { calls.serve(stream, peer).await }
        }));
        tasks.spawn(serve::serve(listener, pending(), metrics, move |stream, peer| {
            let sidecar = sidecar.clone();
            async move { sidecar.serve(stream, peer).await }
        }));
        Ok(Self { addr, api, _signal: signal, _tasks: tasks })
    }
}

/// Serves the legs that come, as that one of `nodes`, with an app within, for ever: the cheapest thing that speaks what
/// balancers and sidecars share.
///
/// # Errors
///
/// When there is no port for the API.
pub async fn serve_echoes(listener: TcpListener, nodes: Vec<SocketAddr>) -> Result<()> {
    let _pod = Pod::start(listener, &nodes, |_, _| Arc::new(Echoes))?;
    pending().await
}

/// The app.
#[derive(Debug)]
struct Echoes;

impl App for Echoes {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(async move {
            let (io, far) = tokio::io::duplex(64 * 1024);
            // That the connection ends, or is lost, is the sidecar's to say.
            tokio::spawn(async move { drop(echo(far).await) });
            let head = handshake.to_app(leg, "");
            let opened =
                connect::open(LegStream::Local(io), &head, handshake, Duration::from_secs(5)).await?;
            Ok(AppLeg { opened, far: None })
        })
    }
}
