//! Who has to move: the registry of connections, and the mover that tells those concerned, paced.

use std::{
    cmp::Reverse,
    collections::{HashSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{connection::Connection, core::Core};
use crate::{
    membership::Members,
    metrics::Gauge,
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
        let count = (connections.len() * usize::from(percent.min(100))).div_ceil(100);
        let start = Instant::now();
        for (n, connection) in (0_u32..).zip(connections.iter().take(count)) {
            let at = window.mul_f64(f64::from(n) / count as f64);
            sleep_until(start + at).await;
            connection.ticket.order(LEAVE);
        }
    }

    /// Has the connections at nodes that went silent look for others, and those on their way there.
    pub(super) fn cut(&self) {
        // Where a connection is on its way to only its own task knows.
        for connection in self.all() {
            connection.ticket.order(CUT);
        }
    }

    /// Takes over the nodes that may own now; the connections whose owner changed by that, in no order.
    fn update(&self, core: &Core, members: &Members) -> Vec<Arc<Connection>> {
        let usable = core.health.usable(members);
        let mut placement = self.lock();
        placement.update(usable.iter().copied()).map(|moved| Arc::clone(moved.token)).collect()
    }

    /// The connections at any of those nodes.
    fn at<'a>(&self, nodes: impl Fn(&NodeId) -> bool + 'a) -> impl Iterator<Item = Arc<Connection>> + 'a {
        self.all().into_iter().filter(move |connection| nodes(&connection.ticket.node()))
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

/// Follows the view and the health of its nodes, and tells each connection whose owner changed, or whose node is being
/// left, at the rate that is set. Runs until the view's writer is gone.
pub(super) async fn run(core: Arc<Core>) {
    let (mut view, mut health) = (core.view.clone(), core.health.changes());
    let pace = Pace::new(core.dial.move_rate);
    let mut waiting = Waiting::new(core.metrics.moves_pending().clone());
    let mut staying = HashSet::new();
    let mut turn = Instant::now();
    loop {
        let members = core.view.load();
        core.health.retain(&members);
        core.health.view_changed();
        if let Some(trunks) = &core.trunks {
            trunks.retain(&members);
        }
        core.metrics.suspects().set(core.health.suspects(&members));
        let mut told = core.registry.update(&core, &members);
        told.extend(left_behind(&core, &members, &mut staying));
        waiting.add(told, |connection| urgency(&core, &members, connection));
        loop {
            tokio::select! {
                biased;
                members = view.changed() => match members {
                    Some(_) => break,
                    None => return,
                },
                Ok(()) = health.changed() => break,
                () = sleep_until(turn), if !waiting.is_empty() => {
                    waiting.next(pace.batch).for_each(|connection| connection.ticket.order(RECONSIDER));
                    turn = Instant::now() + pace.pause;
                }
            }
        }
    }
}

/// The connections at nodes that were fine to be at, and are not any more. `staying`: those nodes; it is brought up to
/// date.
///
/// A node that is suspect owns nothing, so that no key changes its owner when it begins to drain or leaves the view.
fn left_behind(core: &Core, members: &Members, staying: &mut HashSet<NodeId>) -> Vec<Arc<Connection>> {
    let fine = members
        .nodes()
        .iter()
        .filter(|node| node.state == NodeState::Ready && !core.health.is_draining(&node.id));
    let fine: HashSet<NodeId> = fine.map(|node| node.id.clone()).collect();
    let before = std::mem::replace(staying, fine);
    let left: HashSet<NodeId> = before.into_iter().filter(|node| !staying.contains(node)).collect();
    match left.is_empty() {
        true => Vec::new(),
        false => core.registry.at(|node| left.contains(node)).collect(),
    }
}

/// How urgent it is that a connection moves: away from who is dead or gone first, then from who drains, then to who
/// joined.
fn urgency(core: &Core, members: &Members, connection: &Connection) -> u8 {
    match members.get(&connection.ticket.node()) {
        None => 2,
        Some(node) if node.state == NodeState::Draining => 1,
        Some(node) if core.health.is_suspect(&node.id) => 2,
        Some(node) => u8::from(core.health.is_draining(&node.id)),
    }
}

/// Who waits to be told, the most urgent first. One that has ended takes no room.
#[derive(Debug)]
struct Waiting<T> {
    queue: VecDeque<Weak<T>>,
    gauge: Gauge,
}

impl<T> Waiting<T> {
    fn new(gauge: Gauge) -> Self {
        Self { queue: VecDeque::new(), gauge }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds those that were `told` of a change, and orders all anew: what was urgent may be no more, and the other way
    /// round. Among equally urgent ones the latest change comes first.
    fn add(&mut self, told: Vec<Arc<T>>, urgency: impl Fn(&T) -> u8) {
        if told.is_empty() && self.queue.is_empty() {
            return;
        }
        let before = self.queue.len();
        let waiting = std::mem::take(&mut self.queue).into_iter().filter_map(|weak| weak.upgrade());
        let mut seen = HashSet::new();
        let mut all: Vec<Arc<T>> =
            told.into_iter().chain(waiting).filter(|one| seen.insert(Arc::as_ptr(one))).collect();
        all.sort_by_cached_key(|one| Reverse(urgency(one)));
        self.queue = all.iter().map(Arc::downgrade).collect();
        self.gauge.changed(before, self.queue.len());
    }

    /// Takes the next `n`.
    fn next(&mut self, n: usize) -> impl Iterator<Item = Arc<T>> + '_ {
        let n = n.min(self.queue.len());
        self.gauge.changed(n, 0);
        self.queue.drain(..n).filter_map(|weak| weak.upgrade())
    }
}

/// Counts a connection that is not where it belongs, until it is dropped.
#[derive(Debug)]
pub(super) struct Late(Gauge);

impl Late {
    pub(super) fn new(core: &Core) -> Self {
        let gauge = core.metrics.moves_pending().clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.0.dec();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_once_the_most_urgent_first_and_who_has_ended_not_at_all() {
        let gauge = Gauge::default();
        let mut waiting = Waiting::new(gauge.clone());
        let all: Vec<Arc<u8>> = (0..5).map(Arc::new).collect();
        waiting.add(all[..4].to_vec(), |_| 0);
        // Two of those that wait drain now, and one that was told already is told again.
        waiting.add(vec![Arc::clone(&all[0]), Arc::clone(&all[4])], |n| u8::from(*n == 2 || *n == 3));
        assert_eq!(gauge.get(), 5);
        let ended = 3;
        let living: Vec<Arc<u8>> = all.into_iter().filter(|one| **one != ended).collect();
        assert_eq!(waiting.next(1).map(|one| *one).collect::<Vec<_>>(), [2]);
        waiting.add(Vec::new(), |_| 0);
        assert_eq!(gauge.get(), 3, "who has ended waits no more");
        assert_eq!(waiting.next(9).map(|one| *one).collect::<Vec<_>>(), [0, 4, 1]);
        assert_eq!((gauge.get(), living.len()), (0, 4));
    }
}
