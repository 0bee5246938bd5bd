//! What a [`Proxy`] is made of.

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use tokio::sync::Semaphore;

use super::{
    Proxy, Settings,
    core::{Core, DialSettings, LocalNode},
    handshake::{AllowedOrigins, head::Limits},
    health::Health,
    journal::Journal,
    leg::Legs,
    moves::Registry,
    network::{Network, Tcp},
    service::Inner,
    trunk::Trunks,
};
use crate::{
    drain::Drain,
    key::{KeySources, TokenReader},
    membership::View,
    metrics::Metrics,
    peer::PeerTokens,
    trace::Tracer,
};

/// Makes a [`Proxy`]. Everything but the view has a default.
#[derive(Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct Builder {
    view: View,
    metrics: Option<Metrics>,
    drain: Option<Drain>,
    keys: KeySources,
    reader: Option<Arc<dyn TokenReader>>,
    strip_token: bool,
    origins: Option<AllowedOrigins>,
    limits: Limits,
    max_connections: usize,
    dial: DialSettings,
    relay: Settings,
    log_keys: bool,
    local: Option<Arc<dyn LocalNode>>,
    network: Arc<dyn Network>,
    tokens: Option<PeerTokens>,
    legs: Legs,
    tracer: Tracer,
}

impl Builder {
    pub(super) fn new(view: View) -> Self {
        Self {
            view,
            metrics: None,
            drain: None,
            keys: KeySources::default(),
            reader: None,
            strip_token: false,
            origins: None,
            limits: Limits::default(),
            max_connections: 100_000,
            dial: DialSettings::default(),
            relay: Settings::default(),
            log_keys: false,
            local: None,
            network: Arc::new(Tcp),
            tokens: None,
            legs: Legs::default(),
            tracer: Tracer::default(),
        }
    }

    /// Where it counts. Default: metrics of its own that nobody reads.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// The drain that it follows: new handshakes are refused once that has begun. Default: it never drains.
    pub fn drain(mut self, drain: Drain) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Where a request's key is found. Default: the header, then the query parameter `ws-user-id`.
    pub fn keys(mut self, keys: KeySources) -> Self {
        self.keys = keys;
        self
    }

    /// Who verifies tokens, which [`KeySource::Jwt`](crate::key::KeySource::Jwt) needs. Default: nobody, and handshakes
    /// with a token are answered 401 where one is looked for.
    pub fn token_reader(mut self, reader: Option<Arc<dyn TokenReader>>) -> Self {
        self.reader = reader;
        self
    }

    /// Whether the token that a key came in, or the subprotocol of
    /// [`KeySource::Protocol`](crate::key::KeySource::Protocol), is kept from nodes and applications. Default: no.
    ///
    /// Where it was a subprotocol and the application agrees none of the others, the client is answered that one, as
    /// browsers fail a connection for which none of those that they offered is agreed.
    pub fn strip_token(mut self, strip: bool) -> Self {
        self.strip_token = strip;
        self
    }

    /// The origins that browsers may come from. Default: any.
    pub fn origins(mut self, origins: Option<AllowedOrigins>) -> Self {
        self.origins = origins;
        self
    }

    /// What a handshake's head may cost.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many connections may be held at once. Default 100,000.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = most;
        self
    }

    /// How legs are opened.
    pub fn dial(mut self, dial: DialSettings) -> Self {
        self.dial = dial;
        self
    }

    /// How connections are relayed.
    pub fn relay(mut self, relay: Settings) -> Self {
        self.relay = relay;
        self
    }

    /// Whether keys are logged as they are. Default: hashed.
    pub fn log_keys(mut self, plainly: bool) -> Self {
        self.log_keys = plainly;
        self
    }

    /// What was said of keys: [`log_keys`](Self::log_keys).
    pub(crate) fn logs_keys(&self) -> bool {
        self.log_keys
    }

    /// What proves to sidecars that legs come from a peer. Default: nothing does.
    pub fn peer_tokens(mut self, tokens: Option<PeerTokens>) -> Self {
        self.tokens = tokens;
        self
    }

    /// How nodes are reached. Default: [`Tcp`] to their addresses.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    pub(crate) fn known_network(&self) -> &Arc<dyn Network> {
        &self.network
    }

    /// What legs to nodes travel in. Default: a TCP connection for each.
    pub fn legs(mut self, legs: Legs) -> Self {
        self.legs = legs;
        self
    }

    /// What makes a span of each handshake and each move. Default: nothing does.
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    pub(crate) fn known_tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The sidecar of this very process.
    pub(crate) fn local(mut self, local: Arc<dyn LocalNode>) -> Self {
        self.local = Some(local);
        self
    }

    /// The proxy. It moves connections only while [`Proxy::run`] is driven.
    #[must_use]
    pub fn build(self) -> Proxy {
        let Self {
            view,
            metrics,
            drain,
            keys,
            reader,
            strip_token,
            origins,
            limits,
            max_connections,
            dial,
            relay,
            log_keys,
            local,
            network,
            tokens,
            legs,
            tracer,
        } = self;
        let core = Core {
            settings: Arc::new(relay),
            health: Health::new(dial.suspect_for),
            moving: Semaphore::new(dial.move_concurrency),
            metrics: metrics.unwrap_or_else(|| Metrics::new(env!("CARGO_PKG_VERSION"))),
            registry: Registry::new(),
            journal: Journal::default(),
            view,
            dial,
            local,
            network,
            tokens,
            tracer,
            trunks: (legs == Legs::Shared).then(Trunks::default),
        };
        let inner = Inner {
            core: Arc::new(core),
            drain,
            keys,
            reader,
            strip_token,
            origins,
            limits,
            max_connections,
            held: AtomicUsize::new(0),
            log_keys,
            upgraded: Mutex::default(),
        };
        Proxy::from_inner(inner)
    }
}
