//! The sidecar as others hold it: one port for balancers, peers, probes, and clients that come without a balancer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Response, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    task::JoinSet,
};

use super::{legs::Legs, seat::Seats};
use crate::{
    app::App,
    contract,
    drain::Drain,
    membership::View,
    metrics::Metrics,
    node::NodeId,
    proxy::{
        Builder, Proxy, Settings,
        core::LocalNode,
        error::{self, Refusal},
        handshake::{
            LegHeaders, finish,
            head::{Arrived, HeadError, Limits, RequestHead, read_request},
        },
        relay::BUFFER,
    },
};

/// Stands beside one application, serves the legs of balancers, and is the balancer of clients that come without one.
///
/// A cheap clone. It does its work in the futures that it returns: [`Sidecar::run`] must be driven, and each of
/// [`Sidecar::serve`] is one connection.
#[derive(Clone, Debug)]
pub struct Sidecar {
    proxy: Proxy,
    legs: Legs,
    limits: Limits,
}

/// What a sidecar is made of, beside its [`Proxy`]'s [`Builder`].
#[derive(Debug)]
pub struct SidecarParts {
    /// The node that it is.
    pub node: NodeId,
    /// The application.
    pub app: Arc<dyn App>,
    /// The members of its ring.
    pub view: View,
    /// The drain that it follows.
    pub drain: Drain,
    /// Where it counts.
    pub metrics: Metrics,
    /// How legs are relayed.
    pub settings: Settings,
    /// What a handshake's head may cost.
    pub limits: Limits,
}

impl Sidecar {
    /// A sidecar; `builder` makes the proxy for its own clients, whose view, drain, metrics and limits are taken
    /// from `parts`.
    pub fn new(parts: SidecarParts, builder: impl FnOnce(Builder) -> Builder) -> Self {
        let SidecarParts { node, app, view, drain, metrics, settings, limits } = parts;
        let legs = Legs {
            node,
            app,
            view: view.clone(),
            drain: drain.clone(),
            metrics: metrics.clone(),
            settings: Arc::new(settings.clone()),
            seats: Seats::new(1 << 20),
            counted: true,
        };
        // A client of its own is counted where it came in.
        let uncounted = Legs { counted: false, ..legs.clone() };
        let this = Local { legs: uncounted, limits, tasks: Mutex::default() };
        let proxy = Proxy::builder(view).metrics(metrics).drain(drain).relay(settings).limits(limits);
        let proxy = builder(proxy).local(Arc::new(this)).build();
        Self { proxy, legs, limits }
    }

    /// Has connections move when the members change, and leave when the drain says so. Never ends by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves connections where they are; it may be called again.
    pub async fn run(&self) {
        futures_util::join!(self.proxy.run(), self.follow_drain());
    }

    /// Balancers are told of a drain by the answers to their probes and take their legs away; what is left at its end
    /// is closed 1012.
    async fn follow_drain(&self) {
        self.legs.drain.began().await;
        self.legs.seats.drain();
        self.legs.drain.ended().await;
        self.legs.seats.leave();
    }

    /// Serves one connection, from its first byte to its last.
    pub async fn serve(&self, mut io: TcpStream, peer: SocketAddr) {
        match read_request(&mut io, self.limits).await {
            Ok(Arrived::Http1(head)) if !is_upgrade(&head) => self.answer(&mut io, &head).await,
            Ok(Arrived::Http1(head)) => match LegHeaders::read(&head.parts.headers) {
                Ok(Some(leg)) => self.legs.serve(io, &head, leg, Some(peer)).await,
                Ok(None) => self.proxy.serve_request(io, peer, &head).await,
                Err(refusal) => self.legs.refuse(&mut io, &refusal).await,
            },
            Ok(Arrived::Http2(_)) => self.legs.refuse(&mut io, &Refusal::NotUpgrade).await,
            Err(HeadError::Refused(refusal)) => self.legs.refuse(&mut io, &refusal).await,
            Err(_) => {}
        }
    }

    /// How many connections are held: legs, and clients that are relayed elsewhere.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.legs.seats.len() + self.proxy.connections()
    }

    /// Answers a request that is no handshake: a probe, or a mistake.
    async fn answer(&self, io: &mut (impl AsyncRead + AsyncWrite + Unpin), head: &RequestHead) {
        if head.parts.uri.path() != contract::PROBE {
            return self.legs.refuse(io, &Refusal::NotUpgrade).await;
        }
        let mut response = Response::new(bytes::Bytes::from_static(b"ok\n"));
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("3"));
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        headers.insert(contract::STATE, header::HeaderValue::from_static(self.legs.state().as_str()));
        // Whoever asked is gone when this fails.
        let _ = finish(io, &error::render(&response)).await;
    }
}

/// Whether the request asks for a protocol to be upgraded to: then it is taken for a handshake, right or wrong.
fn is_upgrade(head: &RequestHead) -> bool {
    head.parts.headers.contains_key(header::UPGRADE)
}

/// This very sidecar, as its proxy reaches it.
#[derive(Debug)]
struct Local {
    legs: Legs,
    limits: Limits,
    /// Each serves a leg whose other end is with the client's own task. Aborted when the last clone of the sidecar is
    /// dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl LocalNode for Local {
    fn id(&self) -> &NodeId {
        &self.legs.node
    }

    fn connect(&self) -> DuplexStream {
        let (near, mut far) = tokio::io::duplex(BUFFER);
        let (legs, limits) = (self.legs.clone(), self.limits);
        // Nothing is left half done in there by a panic.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let Ok(Arrived::Http1(head)) = read_request(&mut far, limits).await else { return };
            if let Ok(Some(leg)) = LegHeaders::read(&head.parts.headers) {
                legs.serve(far, &head, leg, None).await;
            }
        });
        near
    }
}
