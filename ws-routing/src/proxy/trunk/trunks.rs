//! The trunks of one process to its nodes: opened at the first dial, or found not to be had.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::AbortHandle, time::timeout};

use super::{Shared, SharedLeg, accept, carrier::Carrier};
use crate::{
    contract,
    membership::Members,
    node::NodeId,
    peer::PeerTokens,
    proxy::{
        LegStream,
        connect::{self, DialError},
    },
};

/// How long a node may take to agree; then each of its legs gets a connection of its own until the node leaves.
const AGREE: Duration = Duration::from_secs(1);

/// The most trunks to one node.
const LANES: usize = 4;

/// Trunks by node.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Trunks {
    nodes: Mutex<HashMap<NodeId, Arc<Lanes>>>,
}

/// The trunks to one node.
#[derive(Debug)]
struct Lanes {
    lanes: Vec<Lane>,
    turn: AtomicUsize,
    /// The node has not agreed.
    plain: AtomicBool,
}

#[derive(Debug, Default)]
struct Lane {
    trunk: Mutex<Option<Trunk>>,
    /// Held by whoever opens it.
    opening: tokio::sync::Mutex<()>,
}

/// A trunk that was opened from here. Its carrier ends with it, and its legs.
#[derive(Debug)]
struct Trunk {
    shared: Arc<Shared>,
    carrier: AbortHandle,
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Trunks {
    /// Opens a leg to `node`, which is a connection of its own when the node does not share. `connect` makes one.
    ///
    /// # Errors
    ///
    /// [`DialError`], those of `connect`.
    pub(in crate::proxy) async fn open<F>(
        &self,
        node: &NodeId,
        connect: impl Fn() -> F,
        tokens: Option<&PeerTokens>,
    ) -> Result<LegStream, DialError>
    where
        F: Future<Output = Result<LegStream, DialError>>,
    {
        let lanes = self.lanes(node);
        if !lanes.plain.load(Ordering::Relaxed)
            && let Some(leg) = lanes.shared(node, &connect, tokens).await?
        {
            return Ok(leg);
        }
        connect().await
    }

    /// Cuts the trunks to a node.
    pub(in crate::proxy) fn cut(&self, node: &NodeId) {
        if let Some(lanes) = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(node) {
            lanes.lanes.iter().for_each(|lane| *lane.trunk() = None);
        }
    }

    /// Forgets nodes that have left, but for those that still have legs.
    pub(in crate::proxy) fn retain(&self, members: &Members) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|node, lanes| members.get(node).is_some() || lanes.legs() > 0);
    }

    fn lanes(&self, node: &NodeId) -> Arc<Lanes> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(nodes.entry(node.clone()).or_insert_with(|| Arc::new(Lanes::new())))
    }
}

impl Lanes {
    fn new() -> Self {
        // One keeps a core busy.
        let count = available_parallelism().map_or(1, usize::from).div_ceil(2).min(LANES);
        let lanes = (0..count).map(|_| Lane::default()).collect();
        Self { lanes, turn: AtomicUsize::new(0), plain: AtomicBool::new(false) }
    }

    /// A leg on one of the trunks, which is opened if it is not there: `None` when the node does not agree to that.
    async fn shared<F>(
        &self,
        node: &NodeId,
        connect: impl FnOnce() -> F,
        tokens: Option<&PeerTokens>,
    ) -> Result<Option<LegStream>, DialError>
    where
        F: Future<Output = Result<LegStream, DialError>>,
    {
        let lane = &self.lanes[self.turn.fetch_add(1, Ordering::Relaxed) % self.lanes.len()];
        if let Some(leg) = lane.leg() {
            return Ok(Some(leg));
        }
        let _opening = lane.opening.lock().await;
        if let Some(leg) = lane.leg() {
            return Ok(Some(leg));
        }
        if self.plain.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let io = match connect().await? {
            LegStream::Tcp(io) => io,
            // Not over the network: there is nothing to be saved.
            other => return Ok(Some(other)),
        };
        let Some((io, input)) = timeout(AGREE, agree(io, node, tokens)).await.ok().flatten() else {
            tracing::info!(%node, "the node shares no connections: each leg gets its own");
            self.plain.store(true, Ordering::Relaxed);
            return Ok(None);
        };
        Ok(lane.begin(io, input, node.clone()))
    }

    fn legs(&self) -> usize {
        self.lanes.iter().filter_map(|lane| Some(lane.trunk().as_ref()?.shared.mux().len())).sum()
    }
}

impl Lane {
    fn trunk(&self) -> std::sync::MutexGuard<'_, Option<Trunk>> {
        self.trunk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leg on the trunk that there is.
    fn leg(&self) -> Option<LegStream> {
        self.trunk().as_ref()?.leg()
    }

    /// Has a connection that agreed carried; the first leg on it.
    fn begin(&self, io: TcpStream, input: BytesMut, node: NodeId) -> Option<LegStream> {
        // The far end opens none.
        let (carrier, shared) = Carrier::new(io, input, 0);
        let carrier = tokio::spawn(async move {
            match carrier.run(drop).await {
                Ok(()) => tracing::debug!(%node, "trunk ended"),
                Err(error) => tracing::info!(%node, %error, "trunk was cut"),
            }
        });
        let trunk = Trunk { shared, carrier: carrier.abort_handle() };
        let leg = trunk.leg();
        *self.trunk() = Some(trunk);
        leg
    }
}

impl Trunk {
    fn leg(&self) -> Option<LegStream> {
        let leg = self.shared.mux().open()?;
        Some(LegStream::Shared(SharedLeg::new(leg, Arc::clone(&self.shared))))
    }
}

/// Asks the node to share this connection; what came behind its answer, if it does.
async fn agree(
    mut io: TcpStream,
    node: &NodeId,
    tokens: Option<&PeerTokens>,
) -> Option<(TcpStream, BytesMut)> {
    let proof = tokens.map(|tokens| tokens.prove(&accept::key(), node, SystemTime::now()));
    let proof = proof.map_or_else(String::new, |proof| format!("{}: {proof}\r\n", contract::PROOF));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {node}\r\nConnection: Upgrade\r\nUpgrade: {}\r\n{proof}\r\n",
        contract::TRUNK,
        contract::TRUNK_PROTOCOL
    );
    io.write_all(request.as_bytes()).await.ok()?;
    let (answer, rest) = connect::final_answer(&mut io).await.ok()?;
    let agreed = answer.parts.status.as_u16() == 101 && accept::names(&answer.parts.headers);
    agreed.then_some((io, rest))
}
