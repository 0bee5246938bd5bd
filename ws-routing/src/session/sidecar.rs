//! The sidecar as others hold it: one port for balancers, peers, probes, and clients that come without a balancer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::{Response, StatusCode, header};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    deliver::{Deliver, Holders, SendSettings, here::Here},
    fence::Fences,
    legs::{LegJoined, Legs},
    route_field::RouteField,
    seat::Seats,
    sender::Sender,
};
use crate::{
    api::{Api, Caller},
    app::App,
    contract,
    drain::Drain,
    key::Key,
    membership::View,
    metrics::{Metrics, SidecarMetrics},
    node::NodeId,
    peer::PeerTokens,
    proxy::{
        Arrival, Builder, Joined, LegStream, Proxy, Settings,
        core::LocalNode,
        error::{self, Refusal, SidecarRefusal},
        handshake::{
            LegHeaders, finish,
            head::{Arrived, HeadError, Limits, RequestHead, read_request},
        },
        relay::BUFFER,
        trunk::{self, SharedLeg},
    },
};

/// What is to be relayed, and how.
enum Taken {
    /// A balancer's leg.
    Leg(LegJoined),
    /// A client of its own.
    Client(Joined<LegStream>),
}

/// Stands beside one application, serves the legs of balancers, and is the balancer of clients that come without one.
///
/// A cheap clone. It does its work in the futures that it returns: [`Sidecar::run`] must be driven, and each of
/// [`Sidecar::serve`] is one connection.
#[derive(Clone, Debug)]
pub struct Sidecar {
    proxy: Proxy,
    legs: Legs,
    limits: Limits,
    api: Api,
    tokens: Option<PeerTokens>,
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
    /// What only a sidecar counts.
    pub sidecar_metrics: SidecarMetrics,
    /// How its peers and it know each other. Without them anybody is taken for a peer.
    pub tokens: Option<PeerTokens>,
    /// How long sends may wait, and how large they may be.
    pub sends: SendSettings,
    /// The field of a client's JSON message that names the key whose app it is for. `None`: messages are not looked
    /// into.
    pub route_field: Option<String>,
    /// How legs are relayed.
    pub settings: Settings,
    /// What a handshake's head may cost.
    pub limits: Limits,
}

impl Sidecar {
    /// A sidecar; `builder` makes the proxy for its own clients, whose view, drain, metrics and limits are taken
    /// from `parts`.
    pub fn new(parts: SidecarParts, builder: impl FnOnce(Builder) -> Builder) -> Self {
        let SidecarParts {
            node,
            app,
            view,
            drain,
            metrics,
            sidecar_metrics,
            tokens,
            sends,
            route_field,
            settings,
            limits,
        } = parts;
        let limits = Limits { legs: true, ..limits };
        let seats = Seats::new(sends.max_message);
        let here = Here {
            node: node.clone(),
            view: view.clone(),
            seats: seats.clone(),
            holders: Holders::default(),
            settings: sends,
        };
        let proxy = Proxy::builder(view.clone())
            .metrics(metrics.clone())
            .drain(drain.clone())
            .relay(settings.clone())
            .limits(limits);
        let proxy = builder(proxy);
        let network = Arc::clone(proxy.known_network());
        let tracer = proxy.known_tracer().clone();
        let deliver = Deliver::new(here, network, tokens.clone(), sidecar_metrics.clone());
        let recipients = Arc::new(deliver.clone());
        let route = route_field.map(|name| RouteField::new(&name, sends.max_message, recipients));
        let api = Api::new(deliver, tokens.clone(), sidecar_metrics, drain.clone(), tracer.clone());
        let legs = Legs {
            node,
            app,
            route,
            view,
            drain,
            metrics,
            settings: Arc::new(settings),
            seats,
            fences: Fences::default(),
            counted: true,
            log_keys: proxy.logs_keys(),
            tracer,
        };
        // A client of its own is counted where it came in.
        let uncounted = Legs { counted: false, ..legs.clone() };
        let this = Local { legs: uncounted, limits, tasks: Mutex::default() };
        let proxy = proxy.local(Arc::new(this)).peer_tokens(tokens.clone()).build();
        Self { proxy, legs, limits, api, tokens }
    }

    /// Has connections move when the members change, and leave when the drain says so. Never ends by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves connections where they are; it may be called again.
    pub async fn run(&self) {
        futures_util::join!(self.proxy.run(), self.follow_drain(), self.api.deliver().run());
    }

    /// Sends to keys, wherever in the ring they are: for the program that this sidecar is part of.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender::new(self.api.deliver().clone(), self.api.metrics().clone())
    }

    /// The API, for the node's own app.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
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
    pub fn serve<I: Into<LegStream>>(
        &self,
        io: I,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + use<'_, I> {
        // In a box: what a handshake takes would be most of what an idle connection holds.
        let receive = Box::pin(self.receive(io.into(), peer));
        async move {
            match receive.await {
                Some(Taken::Leg(joined)) => self.legs.relay(joined).await,
                Some(Taken::Client(joined)) => joined.relay().await,
                None => {}
            }
        }
    }

    /// Serves whatever is no connection to be relayed; else answers its handshake.
    async fn receive(&self, mut io: LegStream, peer: SocketAddr) -> Option<Taken> {
        let arrived = read_request(&mut io, self.limits).await;
        if let Ok(Arrived::Http1(head)) = &arrived
            && let Some(found) = self.legs.fences.obey(head)
        {
            self.legs.fence(&mut io, found).await;
            return None;
        }
        match arrived {
            Ok(Arrived::Http1(head)) if is_upgrade(&head) => match io {
                LegStream::Tcp(io) if trunk::asks(&head) => self.serve_trunk(io, &head, peer).await,
                io => return self.join(io, &head, peer).await,
            },
            Ok(Arrived::Http1(head)) if head.parts.uri.path().starts_with("/v1/") => {
                self.api.http1(io, head.into_buffer(), peer, Caller::Peer).await;
            }
            Ok(Arrived::Http1(head)) => self.answer(&mut io, &head).await,
            Ok(Arrived::Http2(read)) => self.api.http2(io, read, peer, Caller::Peer).await,
            Err(HeadError::Refused(refusal)) => self.legs.refuse(&mut io, &refusal).await,
            Err(_) => {}
        }
        None
    }

    /// Serves a connection that many legs share.
    async fn serve_trunk(&self, mut io: TcpStream, head: &RequestHead, peer: SocketAddr) {
        let proof = head.parts.headers.get(contract::PROOF).and_then(|proof| proof.to_str().ok());
        if !self.is_proved(proof, &trunk::key()) {
            return self.legs.refuse(&mut io, &SidecarRefusal::BadProof.into()).await;
        }
        let most = self.proxy.max_connections();
        trunk::accept(io, head, self.legs.state(), &self.legs.drain, most, |leg| {
            let this = self.clone();
            async move {
                if let Some(joined) = Box::pin(this.receive_leg(leg, peer)).await {
                    this.legs.relay(joined).await;
                }
            }
        })
        .await;
    }

    /// Answers the handshake of a leg that shares its connection: clients have one of their own.
    async fn receive_leg(&self, mut io: SharedLeg, peer: SocketAddr) -> Option<LegJoined> {
        let head = match read_request(&mut io, self.limits).await {
            Ok(Arrived::Http1(head)) => head,
            Ok(Arrived::Http2(_)) => {
                self.legs.refuse(&mut io, &Refusal::NotUpgrade).await;
                return None;
            }
            Err(HeadError::Refused(refusal)) => {
                self.legs.refuse(&mut io, &refusal).await;
                return None;
            }
            Err(_) => return None,
        };
        match LegHeaders::read(&head.parts.headers) {
            Ok(Some(leg)) if self.is_proved(leg.proof.as_deref(), &leg.key) => {
                return self.legs.join(LegStream::Shared(io), &head, leg, Some(peer)).await;
            }
            Ok(_) => self.legs.refuse(&mut io, &SidecarRefusal::BadProof.into()).await,
            Err(refusal) => self.legs.refuse(&mut io, &refusal).await,
        }
        None
    }

    /// Answers the handshake of a leg, or of a client of its own.
    async fn join(&self, mut io: LegStream, head: &RequestHead, peer: SocketAddr) -> Option<Taken> {
        let headers = &head.parts.headers;
        // Whoever has no proof is a client, and what it claims is forged; whoever has one is none.
        let proved = headers.contains_key(contract::PROOF);
        let leg = if self.tokens.is_some() && !proved { Ok(None) } else { LegHeaders::read(headers) };
        let forged = |refusal: &Refusal| matches!(refusal, Refusal::BadLeg(contract::PROOF));
        match leg {
            Ok(Some(leg)) if self.is_proved(leg.proof.as_deref(), &leg.key) => {
                return Some(Taken::Leg(self.legs.join(io, head, leg, Some(peer)).await?));
            }
            Ok(None) if self.tokens.is_none() || !proved => {
                return Some(Taken::Client(self.proxy.join(io, Arrival::tcp(peer), head).await?));
            }
            Ok(_) => self.legs.refuse(&mut io, &SidecarRefusal::BadProof.into()).await,
            Err(refusal) if self.tokens.is_some() && forged(&refusal) => {
                self.legs.refuse(&mut io, &SidecarRefusal::BadProof.into()).await;
            }
            Err(refusal) => self.legs.refuse(&mut io, &refusal).await,
        }
        None
    }

    fn is_proved(&self, proof: Option<&str>, key: &Key) -> bool {
        let Some(tokens) = &self.tokens else { return true };
        tokens.proves(proof.unwrap_or_default(), key, &self.legs.node, SystemTime::now())
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
            let receive = async {
                let Ok(Arrived::Http1(head)) = read_request(&mut far, limits).await else { return None };
                let Ok(Some(leg)) = LegHeaders::read(&head.parts.headers) else { return None };
                legs.join(LegStream::Local(far), &head, leg, None).await
            };
            if let Some(joined) = Box::pin(receive).await {
                legs.relay(joined).await;
            }
        });
        near
    }
}
