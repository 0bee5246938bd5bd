//! What all connections of one process share: the view, the health of nodes, and how a leg is opened.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    io::DuplexStream,
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    connect::{self, Answered, DialError, OpenError, Opened},
    connection::Connection,
    error::{Refusal, SidecarRefusal},
    handshake::{Accepted, Handshake, LegHeaders},
    health::{Health, Pulse},
    journal::Journal,
    leg::LegStream,
    moves::Registry,
    network::Network,
    relay::{DialFailure, Leg, LegShape, Nonce, Settings},
    trunk::Trunks,
};
use crate::{
    contract::leg_nonce,
    key::Key,
    membership::{Members, View},
    metrics::{Metrics, MoveReason, UpstreamFailure},
    node::{NodeId, NodeState},
    peer::PeerTokens,
    trace::Tracer,
};

/// How legs are opened.
#[derive(Clone, Debug)]
pub struct DialSettings {
    /// The longest TCP connect. Default 2 s.
    pub dial_timeout: Duration,
    /// The longest wait for a node's answer to the handshake. Default 8 s.
    pub handshake_timeout: Duration,
    /// The first suspicion of a node; it doubles on repeats, up to a minute. Default 5 s.
    pub suspect_for: Duration,
    /// How many moves may be dialing at once. Default 64.
    pub move_concurrency: usize,
    /// How many moves may begin in a second. Default 5000.
    pub move_rate: usize,
    /// How often each node is probed. Default 1 s.
    pub probe_interval: Duration,
}

impl Default for DialSettings {
    fn default() -> Self {
        Self {
            dial_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(8),
            suspect_for: Duration::from_secs(5),
            move_concurrency: 64,
            move_rate: 5000,
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// The sidecar of this very process, as a node among the others.
pub(crate) trait LocalNode: Debug + Send + Sync {
    /// Which node it is.
    fn id(&self) -> &NodeId;
    /// Opens a leg to it.
    fn connect(&self) -> DuplexStream;
}

/// Shared by all connections.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) dial: DialSettings,
    pub(super) settings: Arc<Settings>,
    pub(super) view: View,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    pub(super) journal: Journal,
    pub(super) moving: Semaphore,
    pub(super) local: Option<Arc<dyn LocalNode>>,
    pub(super) network: Arc<dyn Network>,
    pub(super) tokens: Option<PeerTokens>,
    pub(super) tracer: Tracer,
    /// What legs share, if they do.
    pub(super) trunks: Option<Trunks>,
}

/// An opened leg.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) node: NodeId,
    pub(crate) io: LegStream,
    pub(crate) leftover: Bytes,
    pub(crate) accepted: Accepted,
    pub(crate) nonce: Nonce,
    pub(crate) sidecar: bool,
    pub(crate) moved: bool,
    /// It leads to the sidecar of this very process.
    pub(crate) own: bool,
}

impl Dialed {
    pub(crate) fn leg(&self, now: Duration, settings: &Settings, compressed: bool) -> Leg {
        let Self { nonce, sidecar, moved, own, .. } = *self;
        Leg::new(now, settings, LegShape { nonce, sidecar, moved, own, compressed })
    }
}

/// What a leg carries of its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// Client messages before its first.
    pub(crate) sequence: u64,
    /// So many of its first messages may be repeats.
    pub(crate) redelivered: u64,
}

/// Where a connection should be, and what is to be thought of where it is.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The node that it is at is draining, gone or suspect.
    pub(crate) leaving: bool,
    /// Where it belongs, and why; `None` when it is to stay.
    pub(crate) target: Option<(NodeId, MoveReason)>,
}

/// The answer to a client's handshake.
#[derive(Debug)]
pub(crate) enum Routed {
    /// A leg is open.
    Leg(Box<Dialed>),
    /// The app has answered otherwise.
    Answered(Box<Answered<LegStream>>),
}

impl Core {
    pub(crate) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn nonce() -> Nonce {
        Nonce(rand::random())
    }

    pub(crate) fn is_dead(&self, node: &NodeId) -> bool {
        self.health.is_dead(node)
    }

    /// A number that differs when [`Core::is_leaving`] may answer otherwise.
    pub(crate) fn generation(&self) -> u64 {
        self.health.generation()
    }

    pub(crate) fn pulse(&self, node: &NodeId) -> Arc<Pulse> {
        self.health.pulse(node)
    }

    /// Whether a Close of that node may mean the node rather than the client.
    pub(crate) fn is_leaving(&self, node: &NodeId) -> bool {
        let state = self.view.load().get(node).map(|n| n.state);
        state != Some(NodeState::Ready) || self.health.is_draining(node) || self.health.is_suspect(node)
    }

    /// Where a connection of `key` that is at `node` should be.
    pub(crate) fn standing(&self, key: &Key, node: &NodeId) -> Standing {
        let members = self.view.load();
        let state = members.get(node).map(|n| n.state);
        let suspect = self.health.is_suspect(node);
        let draining = state == Some(NodeState::Draining) || self.health.is_draining(node);
        let leaving = state.is_none() || draining || suspect;
        // A failed dial says nothing of live legs: they stay until the node is silent altogether.
        if suspect && state == Some(NodeState::Ready) && !draining && !self.health.is_dead(node) {
            return Standing { leaving, target: None };
        }
        let reason = match state {
            None => MoveReason::Removed,
            _ if draining => MoveReason::Draining,
            _ if suspect => MoveReason::Suspect,
            _ => MoveReason::Joined,
        };
        let target = self.ranking(&members, key, 1).into_iter().next().map(|target| (target, reason));
        Standing { leaving, target }
    }

    /// The best `n` nodes for `key` that may be used now, best first.
    fn ranking(&self, members: &Members, key: &Key, n: usize) -> Vec<NodeId> {
        let all =
            || members.walk(key, members.nodes().len()).filter(|node| !self.health.is_suspect(&node.id));
        let ready = all().filter(|node| !self.health.is_draining(&node.id));
        let ready: Vec<NodeId> = ready.take(n).map(|node| node.id.clone()).collect();
        if ready.is_empty() { all().take(n).map(|node| node.id.clone()).collect() } else { ready }
    }

    /// Opens a client's first leg: at the owner, else at the next of the ranking, three at most.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that the client is to be told.
    pub(crate) async fn route(&self, handshake: &Handshake, leg: &LegHeaders) -> Result<Routed, Refusal> {
        const TRIES: usize = 3;
        let members = self.view.load();
        if members.is_empty() {
            return Err(Refusal::NoMembers);
        }
        let ranking = self.ranking(&members, &leg.key, TRIES);
        if ranking.is_empty() {
            return Err(Refusal::AllSuspect);
        }
        for node in ranking {
            match self.try_node(&node, handshake, leg, false).await {
                Ok(routed) => return Ok(routed),
                Err(Failed::Nonsense(what)) => return Err(Refusal::AppNonsense(what)),
                Err(Failed::Node) => {}
            }
        }
        Err(Refusal::Unreachable)
    }

    /// Opens the leg of a move to `node`.
    pub(crate) fn open_move(
        core: &Arc<Self>,
        connection: &Arc<Connection>,
        node: NodeId,
        from: NodeId,
        carried: Carried,
    ) -> impl Future<Output = Result<Dialed, DialFailure>> + Send + use<> {
        let (core, connection) = (Arc::clone(core), Arc::clone(connection));
        async move {
            // The semaphore is never closed.
            let _permit = core.moving.acquire().await;
            core.reopen(&connection, &node, &from, carried).await
        }
    }

    /// Opens a leg in place of a lost one: at the owner, then down the ranking, again and again until `until`.
    pub(crate) fn open_replacement(
        core: &Arc<Self>,
        connection: &Arc<Connection>,
        from: NodeId,
        carried: Carried,
        until: Instant,
    ) -> impl Future<Output = Result<Dialed, DialFailure>> + Send + use<> {
        let (core, connection) = (Arc::clone(core), Arc::clone(connection));
        async move {
            let walk = core.walk(&connection, &from, carried);
            timeout_at(until, walk).await.unwrap_or(Err(DialFailure::Unreachable))
        }
    }

    async fn walk(
        &self,
        connection: &Connection,
        from: &NodeId,
        carried: Carried,
    ) -> Result<Dialed, DialFailure> {
        const PAUSE: Duration = Duration::from_millis(200);
        loop {
            let members = self.view.load();
            let mut nodes = self.ranking(&members, &connection.key, members.nodes().len());
            if self.is_home(&members, &connection.key, from) {
                // The app of this very process is looked for again, and nobody else's.
                nodes = vec![from.clone()];
            } else if nodes.is_empty() {
                // Held clients have nothing to lose: a suspect may be back.
                nodes = members.walk(&connection.key, members.nodes().len()).map(|n| n.id.clone()).collect();
            }
            for node in &nodes {
                match self.reopen(connection, node, from, carried).await {
                    Err(DialFailure::Unreachable) => {}
                    done => return done,
                }
            }
            sleep_until(Instant::now() + PAUSE).await;
        }
    }

    /// Whether that node is this very process, and the key's owner.
    fn is_home(&self, members: &Members, key: &Key, node: &NodeId) -> bool {
        self.is_local(node) && members.walk(key, 1).next().is_some_and(|owner| owner.id == *node)
    }

    fn is_local(&self, node: &NodeId) -> bool {
        self.local.as_ref().is_some_and(|local| local.id() == node)
    }

    /// Replays a connection's handshake at `node`.
    async fn reopen(
        &self,
        connection: &Connection,
        node: &NodeId,
        from: &NodeId,
        carried: Carried,
    ) -> Result<Dialed, DialFailure> {
        let leg = LegHeaders {
            connection: Some(connection.id.into()),
            sequence: carried.sequence,
            redelivered: carried.redelivered,
            moved_from: Some(from.clone()),
            view: Some(self.view.load().fingerprint()),
            ..LegHeaders::new(connection.key.clone())
        };
        match self.try_node(node, &connection.handshake, &leg, true).await {
            Ok(Routed::Leg(dialed)) if *dialed.accepted.agreed() == connection.agreed => Ok(*dialed),
            Ok(Routed::Leg(_)) => Err(DialFailure::Mismatch),
            Ok(Routed::Answered(answered)) => match answered.head.parts.status.as_u16() {
                // These pass by themselves.
                408 | 425 | 429 => Err(DialFailure::Unreachable),
                400..=499 => Err(DialFailure::Refused),
                _ => Err(DialFailure::Unreachable),
            },
            Err(Failed::Node | Failed::Nonsense(_)) => Err(DialFailure::Unreachable),
        }
    }

    /// Tries one node, and suspects it if the failure is its own; gives up as soon as somebody else finds it suspect.
    async fn try_node(
        &self,
        node: &NodeId,
        handshake: &Handshake,
        leg: &LegHeaders,
        moved: bool,
    ) -> Result<Routed, Failed> {
        let nonce = Self::nonce();
        let proof = self.tokens.as_ref().map(|tokens| tokens.prove(&leg.key, node, SystemTime::now()).into());
        let leg = LegHeaders { nonce: Some(leg_nonce(nonce.0).into()), proof, ..leg.clone() };
        let suspect = self.health.is_suspect(node);
        let head = handshake.to_node(&leg);
        let opened = tokio::select! {
            biased;
            opened = self.open(node, &head, handshake) => opened,
            () = self.health.suspected(node), if !suspect => return Err(Failed::Node),
        };
        match opened {
            Ok(Opened::Upgraded(up)) => {
                let accepted = up.answer.movable();
                let sidecar = accepted.state().is_some();
                self.health.answered(node, accepted.state());
                let own = self.is_local(node);
                let (node, io, leftover) = (node.clone(), up.io, up.leftover);
                Ok(Routed::Leg(Box::new(Dialed { node, io, leftover, accepted, nonce, sidecar, moved, own })))
            }
            Ok(Opened::Answered(answered)) if answered.head.sidecar_error().is_none() => {
                Ok(Routed::Answered(Box::new(answered)))
            }
            Ok(Opened::Answered(answered)) => {
                self.health.answered(node, answered.head.state());
                let error = answered.head.sidecar_error();
                let silent = [SidecarRefusal::AppSilent, SidecarRefusal::AppTimedOut];
                let silent = silent.iter().any(|refusal| error == Some(&*refusal.to_string()));
                self.blame(node, UpstreamFailure::Declined, !silent);
                Err(Failed::Node)
            }
            Err(failure) => Err(self.unopened(node, &failure)),
        }
    }

    fn unopened(&self, node: &NodeId, failure: &Unopened) -> Failed {
        let (failure, suspect) = match failure {
            Unopened::Dial(DialError::TimedOut) => (UpstreamFailure::DialTimeout, true),
            Unopened::Dial(_) => (UpstreamFailure::Refused, true),
            Unopened::Open(OpenError::TimedOut) => {
                // If it has said something meanwhile, if only to a probe, this handshake is to blame.
                let silent = self.health.pulse(node).age() >= self.dial.handshake_timeout;
                (UpstreamFailure::HandshakeTimeout, silent)
            }
            // A node that is really gone refuses the next dial.
            Unopened::Open(OpenError::Lost(_)) => (UpstreamFailure::Reset, false),
            Unopened::Open(OpenError::Nonsense(what)) => {
                self.blame(node, UpstreamFailure::Invalid, false);
                return Failed::Nonsense(what.what());
            }
        };
        self.blame(node, failure, suspect);
        Failed::Node
    }

    /// Counts a node's failure. It is made suspect only by what no client's handshake can bring about: else a single
    /// hostile client could take every node from all others.
    fn blame(&self, node: &NodeId, failure: UpstreamFailure, suspect: bool) {
        self.metrics.failures(failure).inc();
        if suspect {
            self.health.suspect(node, false);
        }
    }

    async fn open(
        &self,
        node: &NodeId,
        head: &[u8],
        handshake: &Handshake,
    ) -> Result<Opened<LegStream>, Unopened> {
        let io = match &self.local {
            Some(local) if local.id() == node => LegStream::Local(local.connect()),
            _ => self.reach(node).await.map_err(Unopened::Dial)?,
        };
        connect::open(io, head, handshake, self.dial.handshake_timeout).await.map_err(Unopened::Open)
    }

    /// A byte stream to a node, shared if that is wanted and the node agrees.
    async fn reach(&self, node: &NodeId) -> Result<LegStream, DialError> {
        let connect = || self.network.connect(node, self.dial.dial_timeout);
        match &self.trunks {
            Some(trunks) => trunks.open(node, connect, self.tokens.as_ref()).await,
            None => connect().await,
        }
    }

    /// The nodes are silent altogether: their legs are lost.
    pub(super) fn give_up(&self, nodes: &[NodeId]) {
        for node in nodes {
            self.metrics.failures(UpstreamFailure::Probe).inc();
            self.health.suspect(node, true);
            if let Some(trunks) = &self.trunks {
                // What the kernel still tries to send there would hold up new legs when the node is back.
                trunks.cut(node);
            }
        }
        if !nodes.is_empty() {
            self.registry.cut();
        }
    }
}

/// Why one node gave no leg.
enum Failed {
    /// The next one is tried.
    Node,
    /// Its app answered nonsense.
    Nonsense(&'static str),
}

enum Unopened {
    Dial(DialError),
    Open(OpenError),
}
