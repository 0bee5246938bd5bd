//! The proxy as others hold it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::request::Parts;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    arrival::{Arrival, Via},
    builder::Builder,
    connection::{Connection, ConnectionId},
    core::{Core, Routed},
    error::Refusal,
    handshake::{
        AllowedOrigins, Handshake, LegHeaders, finish,
        head::{Arrived, HeadError, Limits, RequestHead, read_request},
    },
    moves::{self, Ticket},
    probes,
    relay::End,
    serving::{Joined, Opened, Serving},
};
use crate::{
    drain::{Drain, Guard},
    key::{Credential, Found, Key, KeySources, TokenReader},
    membership::View,
    node::NodeId,
    rendezvous,
    trace::Span,
};

/// Routes WebSocket connections to the nodes that own their keys, and moves them when the members change.
///
/// A cheap clone. It does its work in the futures that it returns: [`Proxy::run`] must be driven for connections to
/// move, and each of [`Proxy::serve`] is one client's connection.
#[derive(Clone, Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) core: Arc<Core>,
    pub(super) drain: Option<Drain>,
    pub(super) keys: KeySources,
    pub(super) reader: Option<Arc<dyn TokenReader>>,
    pub(super) strip_token: bool,
    pub(super) origins: Option<AllowedOrigins>,
    pub(super) limits: Limits,
    pub(super) max_connections: usize,
    pub(super) held: AtomicUsize,
    pub(super) log_keys: bool,
    /// Connections that a server of somebody else's upgraded.
    pub(super) upgraded: Mutex<JoinSet<()>>,
}

impl Proxy {
    /// Makes one that follows `view`.
    pub fn builder(view: View) -> Builder {
        Builder::new(view)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }

    pub(super) fn from_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Probes nodes, has connections move when the members change, and has them leave when the drain says so. Never
    /// ends by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves connections where they are; it may be called again.
    pub async fn run(&self) {
        let core = &self.inner.core;
        let departures = async {
            match &self.inner.drain {
                Some(drain) => self.follow(drain).await,
                None => std::future::pending().await,
            }
        };
        let tokens = async {
            if let Some(tokens) = &core.tokens {
                tokens.follow().await;
            }
        };
        let keys = async {
            if let Some(reader) = &self.inner.reader {
                reader.follow().await;
            }
        };
        let moves = moves::run(Arc::clone(core));
        futures_util::join!(moves, probes::run(Arc::clone(core)), departures, tokens, keys);
    }

    async fn follow(&self, drain: &Drain) {
        let mut departures = drain.departures();
        let mut departure = departures.next().await;
        loop {
            let leaving = self.inner.core.registry.leave(departure.over, departure.percent);
            let next = tokio::select! {
                biased;
                next = departures.next() => next,
                () = leaving => departures.next().await,
            };
            departure = next;
        }
    }

    /// Serves one client's connection, from its first byte to its last.
    ///
    /// The future holds two words: what a connection takes is allocated. Dropping it cuts the client.
    pub fn serve<C>(&self, io: C, peer: SocketAddr) -> impl Future<Output = ()> + use<C>
    where
        C: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.serve_http1(io, Arrival::tcp(peer), self.inner.limits)
    }

    pub(super) fn serve_http1<C>(
        &self,
        io: C,
        arrival: Arrival,
        limits: Limits,
    ) -> impl Future<Output = ()> + use<C>
    where
        C: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let proxy = self.clone();
        Serving::Receiving(Box::pin(async move { proxy.receive(io, arrival, limits).await }))
    }

    async fn receive<C>(&self, mut io: C, arrival: Arrival, limits: Limits) -> Option<Joined<C>>
    where
        C: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        match read_request(&mut io, limits).await {
            Ok(Arrived::Http1(head)) => return self.join(io, arrival, &head).await,
            Ok(Arrived::Http2(_)) => self.refuse(&mut io, &Refusal::NotUpgrade).await,
            Err(HeadError::Refused(refusal)) => self.refuse(&mut io, &refusal).await,
            Err(_) => {}
        }
        None
    }

    /// Answers a client whose request's head has been read; the client, if it is to be relayed.
    pub(crate) async fn join<C>(&self, mut io: C, arrival: Arrival, head: &RequestHead) -> Option<Joined<C>>
    where
        C: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let began = Instant::now();
        // The process does not end before this client has its answer.
        let _guard = self.inner.drain.as_ref().map(Drain::guard);
        match self.admit(Some(arrival), &head.parts).await {
            Ok(Admitted::Leg(opened)) => {
                let answer = opened.dialed.accepted.render(None);
                let stall = self.stall_timeout();
                let written = async {
                    io.write_all(&answer).await?;
                    io.flush().await
                };
                if matches!(timeout(stall, written).await, Ok(Ok(()))) {
                    self.metrics().handshake().observe(began.elapsed());
                    return Some(Joined { io, held: head.leftover(), opened });
                }
            }
            Ok(Admitted::Answered(answered, _place)) => {
                // The client is closed whatever becomes of the answer.
                let _ = answered.forward(&mut io, self.stall_timeout()).await;
                let _ = finish(&mut io, &[]).await;
            }
            Err(refusal) => self.refuse(&mut io, &refusal).await,
        }
        None
    }

    /// How many clients are held, those in their handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.held.load(Ordering::Relaxed)
    }

    /// Whether new clients are refused because the process ends.
    pub(crate) fn is_draining(&self) -> bool {
        self.inner.drain.as_ref().is_some_and(Drain::is_draining)
    }

    /// How many clients may be held at once.
    pub(crate) fn max_connections(&self) -> usize {
        self.inner.max_connections
    }

    /// How many connections are relayed, and up to `limit` of them, in no order.
    #[must_use]
    pub fn held(&self, limit: usize) -> (usize, Vec<Held>) {
        let all = self.inner.core.registry.all();
        let held = all.iter().take(limit).map(|connection| Held {
            id: connection.id.into(),
            key: self.shown(&connection.key),
            node: connection.ticket.node(),
            remote: connection.remote(),
            via: connection.arrival.map(|arrival| arrival.via),
            since: connection.since,
        });
        (all.len(), held.collect())
    }

    /// The members as this proxy sees them.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.inner.core.view
    }

    /// Runs a connection that somebody else's server upgraded.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut upgraded = self.inner.upgraded.lock().unwrap_or_else(PoisonError::into_inner);
        while upgraded.try_join_next().is_some() {}
        upgraded.spawn(connection);
    }

    /// What a client's handshake may cost.
    #[cfg(feature = "tls")]
    pub(super) fn limits(&self) -> Limits {
        self.inner.limits
    }

    #[cfg(feature = "tls")]
    pub(super) fn drain(&self) -> Option<&Drain> {
        self.inner.drain.as_ref()
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.inner.core.settings.stall_timeout
    }

    pub(super) fn count_refusal(&self, refusal: &Refusal) {
        self.metrics().refused(refusal.status().as_u16()).inc();
    }

    async fn refuse(&self, io: &mut (impl AsyncRead + AsyncWrite + Unpin), refusal: &Refusal) {
        self.count_refusal(refusal);
        let own = self.inner.core.local.is_some();
        let answer = if own { refusal.render_to_own_client() } else { refusal.render() };
        // Nobody is left to be told when this fails.
        let _ = finish(io, &answer).await;
    }

    /// Checks a handshake and opens its leg.
    pub(super) async fn admit(&self, arrival: Option<Arrival>, parts: &Parts) -> Result<Admitted, Refusal> {
        let (parts, mut span) = self.inner.core.tracer.enter("handshake", parts);
        let admitted = self.take_in(arrival, &parts, span.as_mut()).await;
        if let Some(span) = &mut span {
            span.answered(match &admitted {
                Ok(Admitted::Leg(_)) => 101,
                Ok(Admitted::Answered(answered, _)) => answered.head.parts.status.as_u16(),
                Err(refusal) => refusal.status().as_u16(),
            });
        }
        admitted
    }

    async fn take_in(
        &self,
        arrival: Option<Arrival>,
        parts: &Parts,
        mut span: Option<&mut Span>,
    ) -> Result<Admitted, Refusal> {
        let inner = &self.inner;
        let edge = arrival.map(|arrival| arrival.edge());
        let mut handshake = Handshake::check(parts, edge.as_ref())?;
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let place = self.take_place()?;
        if let Some(origins) = &inner.origins {
            origins.check(&parts.headers)?;
        }
        let found = inner.keys.find(parts, inner.reader.as_deref())?;
        let Found { key, credential } = found.ok_or_else(|| Refusal::NoKey(inner.keys.to_string().into()))?;
        let stripped = credential.filter(|_| inner.strip_token);
        if let Some(credential) = &stripped {
            handshake = handshake.without(credential);
        }
        if inner.core.settings.skip_on_move > 0 {
            handshake = handshake.without_server_context();
        }
        let id = ConnectionId::random();
        if let Some(span) = &mut span {
            span.set("ws.key", self.shown(&key));
            span.set("ws.connection", id.to_string());
        }
        let leg = LegHeaders { connection: Some(id.into()), ..LegHeaders::new(key.clone()) };
        match inner.core.route(&handshake, &leg).await? {
            // Those that leave have been chosen: this one would stay to the end.
            Routed::Leg(_) if self.is_draining() => Err(Refusal::Draining),
            Routed::Leg(mut dialed) => {
                if let Some(span) = &mut span {
                    span.set("ws.node", dialed.node.as_str());
                }
                if let Some(Credential::Protocol(offered)) = stripped {
                    dialed.accepted = dialed.accepted.or_agreed(offered);
                }
                let connection = Connection {
                    id,
                    key,
                    arrival,
                    since: SystemTime::now(),
                    agreed: dialed.accepted.agreed().clone(),
                    handshake,
                    ticket: Ticket::new(dialed.node.clone()),
                    trace: span.map(|span| Box::new(span.context())),
                };
                Ok(Admitted::Leg(Box::new(Opened {
                    connection: Arc::new(connection),
                    dialed: *dialed,
                    place,
                })))
            }
            Routed::Answered(answered) => Ok(Admitted::Answered(answered, place)),
        }
    }

    pub(super) fn log_end(&self, connection: &Connection, end: End) {
        let node = connection.ticket.node();
        let seconds = connection.since.elapsed().unwrap_or_default().as_secs();
        tracing::info!(
            connection = %connection.id, key = %self.shown(&connection.key), remote = ?connection.remote(), via = ?connection.via(),
            %node, code = end.code, by = ?end.by, seconds, "connection ended"
        );
    }

    /// A key as it may be logged.
    pub(super) fn shown(&self, key: &Key) -> String {
        shown(key, self.inner.log_keys)
    }

    fn take_place(&self) -> Result<Place, Refusal> {
        let place = Place { proxy: self.clone(), guard: self.inner.drain.as_ref().map(Drain::guard) };
        if self.inner.held.fetch_add(1, Ordering::Relaxed) >= self.inner.max_connections {
            return Err(Refusal::TooManyConnections);
        }
        Ok(place)
    }
}

/// A key as it is logged: as it is if that is permitted, else hashed.
pub(crate) fn shown(key: &Key, plainly: bool) -> String {
    if plainly { key.to_string() } else { hashed(key) }
}

/// A key as anybody may see it.
pub(crate) fn hashed(key: &Key) -> String {
    format!("{:016x}", rendezvous::hash(key.as_str().as_bytes(), 0))
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("core", &self.core).field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// One of the connections that a proxy relays.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Held {
    /// The connection's id, the same over moves.
    pub id: Arc<str>,
    /// Its key, hashed unless [`Builder::log_keys`] permits it to be shown.
    pub key: String,
    /// Where it is relayed to.
    pub node: NodeId,
    /// Where the client comes from, if that is known.
    pub remote: Option<SocketAddr>,
    /// How it came here, if that is known.
    pub via: Option<Via>,
    /// When it was opened.
    pub since: SystemTime,
}

/// What became of a handshake that was not refused by us.
pub(super) enum Admitted {
    Leg(Box<Opened>),
    Answered(Box<super::connect::Answered<super::leg::LegStream>>, Place),
}

/// One of the places of `max_connections`, until it is dropped. A drain waits for it: from the handshake on, which is to
/// be answered.
pub(super) struct Place {
    proxy: Proxy,
    guard: Option<Guard>,
}

impl Place {
    pub(super) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Gives the place back; what the drain still waits for.
    pub(super) fn leave(mut self) -> Option<Guard> {
        self.guard.take()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.proxy.inner.held.fetch_sub(1, Ordering::Relaxed);
    }
}
