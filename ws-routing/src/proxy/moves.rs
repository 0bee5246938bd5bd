//! Who has to move: the registry of connections, and the mover that tells those concerned, paced.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{connection::Connection, core::Core};
use crate::{
    membership::Members,
    node::{NodeId, NodeState},
    rendezvous::{Entry, Placement},
};

/// What a connection's task is told from outside, and where the connection is.
#[derive(Debug)]
pub(crate) struct Ticket {
    orders: AtomicU8,
    whereabouts: Mutex<Whereabouts>,
}

#[derive(Debug)]
struct Whereabouts {
    /// Wakes the connection's task.
    waker: Waker,
    /// Where the connection is.
    node: NodeId,
}

/// What a connection's task is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Look whether you are where you belong.
    pub(crate) reconsider: bool,
    /// The process ends: close the client.
    pub(crate) leave: bool,
    /// Your node is silent altogether: the leg is lost.
    pub(crate) cut: bool,
}

const RECONSIDER: u8 = 1;
const LEAVE: u8 = 2;
const CUT: u8 = 4;

impl Ticket {
    pub(super) fn new(node: NodeId) -> Self {
        let whereabouts = Whereabouts { waker: Waker::noop().clone(), node };
        Self { orders: AtomicU8::new(0), whereabouts: Mutex::new(whereabouts) }
    }

    /// Who is woken for each order from here on. Earlier ones are to be taken after this.
    pub(super) fn wakes(&self, waker: &Waker) {
        self.lock().waker.clone_from(waker);
    }

    /// What was ordered since.
    pub(super) fn take(&self) -> Orders {
        // Nearly always there is none, and to look costs less than to take.
        if self.orders.load(Ordering::Acquire) == 0 {
            return Orders::default();
        }
        let orders = self.orders.swap(0, Ordering::AcqRel);
        Orders { reconsider: orders & RECONSIDER != 0, leave: orders & LEAVE != 0, cut: orders & CUT != 0 }
    }

    /// The connection is at that node now.
    pub(super) fn placed(&self, node: &NodeId) {
        self.lock().node.clone_from(node);
    }

    /// Where the connection is.
    pub(super) fn node(&self) -> NodeId {
        self.lock().node.clone()
    }

    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        let waker = self.lock().waker.clone();
        waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Whereabouts> {
        self.whereabouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connections of a process, by where their keys belong.
pub(crate) struct Registry {
    placement: Mutex<Placement<Arc<Connection>>>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { placement: Mutex::new(Placement::new([])) }
    }

    /// Takes a connection in and counts it, until what is returned is dropped.
    pub(super) fn register(core: &Arc<Core>, connection: &Arc<Connection>) -> Registered {
        core.metrics.connections().inc();
        let hash = core.view.load().key_hash(&connection.key);
        let entry = core.registry.lock().insert(hash, Arc::clone(connection));
        Registered { core: Arc::clone(core), entry: Some(entry) }
    }

    /// All connections, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().tokens().cloned().collect()
    }

    /// Has every connection close its client, the `n`-th of `count` after that share of `window`.
    pub(super) async fn leave(&self, window: Duration, percent: u8) {
        let connections = self.all();
        let count = connections.len() * usize::from(percent.min(100)) / 100;
        let start = Instant::now();
        for (n, connection) in (0_u32..).zip(connections.iter().take(count)) {
            let at = window.mul_f64(f64::from(n) / count as f64);
            sleep_until(start + at).await;
            connection.ticket.order(LEAVE);
        }
    }

    /// Has the connections at a node that is silent look for another.
    pub(super) fn cut(&self, node: &NodeId) {
        for connection in self.all().iter().filter(|connection| connection.ticket.node() == *node) {
            connection.ticket.order(CUT);
        }
    }

    /// Takes over the nodes that may own now; the connections whose owner changed by that, the most urgent first.
    fn update(&self, core: &Core, members: &Members) -> Vec<Arc<Connection>> {
        let usable = core.health.usable(members);
        let mut moved: Vec<Arc<Connection>> = {
            let mut placement = self.lock();
            placement.update(usable.iter().copied()).map(|moved| Arc::clone(moved.token)).collect()
        };
        let urgency = |connection: &Arc<Connection>| match members.get(&connection.ticket.node()) {
            None => 2,
            Some(node) if node.state == NodeState::Draining => 1,
            Some(node) => u8::from(core.health.is_suspect(&node.id)) * 2,
        };
        moved.sort_by_cached_key(|connection| Reverse(urgency(connection)));
        moved
    }

    fn lock(&self) -> MutexGuard<'_, Placement<Arc<Connection>>> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("connections", &self.lock().len()).finish()
    }
}

/// A connection in the registry and the gauge.
#[derive(Debug)]
pub(super) struct Registered {
    core: Arc<Core>,
    entry: Option<Entry>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.core.registry.lock().remove(entry);
        }
        self.core.metrics.connections().dec();
    }
}

/// Follows the view and the health of its nodes, and tells each connection whose owner changed, at the rate that is
/// set. Runs until the view's writer is gone.
pub(super) async fn run(core: Arc<Core>) {
    let (mut view, mut health) = (core.view.clone(), core.health.changes());
    let pace = Pace::new(core.dial.move_rate);
    let mut waiting: VecDeque<Arc<Connection>> = VecDeque::new();
    let mut turn = Instant::now();
    loop {
        let members = core.view.load();
        core.health.retain(&members);
        core.health.view_changed();
        if let Some(trunks) = &core.trunks {
            trunks.retain(&members);
        }
        core.metrics.suspects().set(core.health.suspects(&members));
        for connection in core.registry.update(&core, &members).into_iter().rev() {
            // The latest change is the most urgent one; who is told twice looks twice.
            waiting.push_front(connection);
        }
        loop {
            core.metrics.moves_pending().set(waiting.len());
            tokio::select! {
                biased;
                members = view.changed() => match members {
                    Some(_) => break,
                    None => return,
                },
                Ok(()) = health.changed() => break,
                () = sleep_until(turn), if !waiting.is_empty() => {
                    let batch = pace.batch.min(waiting.len());
                    waiting.drain(..batch).for_each(|connection| connection.ticket.order(RECONSIDER));
                    turn = Instant::now() + pace.pause;
                }
            }
        }
    }
}

/// How many connections are told at once, and how long it is until the next are.
struct Pace {
    batch: usize,
    pause: Duration,
}

impl Pace {
    fn new(rate: usize) -> Self {
        const TICK: Duration = Duration::from_millis(10);
        let batch = (rate / 100).max(1);
        Self { batch, pause: TICK.max(Duration::from_secs(1).div_f64(rate.max(1) as f64 / batch as f64)) }
    }
}
