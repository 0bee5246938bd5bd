//! The connections that this node serves, by key, what their tasks are told, and where those went that left.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use futures_util::task::AtomicWaker;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::mailbox::{Mailbox, NotTaken, Outcome, Phase, Post};
use crate::{key::Key, node::NodeId};

/// One connection at this node, as others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    guest: Guest,
    since: SystemTime,
    began: Instant,
    /// Milliseconds after `began`.
    last_active: AtomicU64,
    orders: AtomicU8,
    waker: AtomicWaker,
    mailbox: Mailbox,
}

/// Who takes a seat.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// The routing key.
    pub(crate) key: Key,
    /// The id of the client's connection, the same over moves.
    pub(crate) connection: Arc<str>,
    /// The node that it left, when it is not live here yet.
    pub(crate) moved_from: Option<NodeId>,
    /// The client's address, as far as it is known.
    pub(crate) remote: Option<Box<str>>,
    /// The subprotocol that was agreed.
    pub(crate) subprotocol: Option<Box<str>>,
}

/// What a session's task is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The node has begun to drain.
    pub(crate) drain: bool,
    /// The time to drain is over: close.
    pub(crate) leave: bool,
    /// Something was posted.
    pub(crate) posted: bool,
}

const DRAIN: u8 = 1;
const LEAVE: u8 = 2;
const POSTED: u8 = 4;

impl Seat {
    /// Posts something to the connection's task.
    pub(crate) fn post(self: &Arc<Self>, post: Post) -> Result<Posted, NotTaken> {
        let (number, told) = self.mailbox.post(post)?;
        self.order(POSTED);
        Ok(Posted { seat: Arc::clone(self), number, told })
    }

    /// Whether this is the connection's leg now, not yet, or not any more.
    pub(crate) fn phase(&self) -> Phase {
        self.mailbox.phase()
    }

    /// Whether a move keeps posts from being put for now: this is not the connection's leg yet, or `to_app` is meant and
    /// the app is being left.
    pub(crate) fn holds_back(&self, to_app: bool) -> bool {
        self.phase() == Phase::Waiting || (to_app && self.mailbox.is_settling())
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Since when it is at this node, and when a byte was last relayed.
    pub(crate) fn times(&self) -> (SystemTime, SystemTime) {
        (self.since, self.since + Duration::from_millis(self.last_active.load(Ordering::Relaxed)))
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// What was ordered since, and `waker` for what will be.
    pub(super) fn take(&self, waker: &Waker) -> Orders {
        self.waker.register(waker);
        let orders = self.orders.swap(0, Ordering::AcqRel);
        Orders { drain: orders & DRAIN != 0, leave: orders & LEAVE != 0, posted: orders & POSTED != 0 }
    }

    /// A byte was relayed.
    pub(super) fn touch(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_active.store(ms, Ordering::Relaxed);
    }

    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// A post on its way. Dropping it takes the post out again, if it is still there.
#[derive(Debug)]
pub(crate) struct Posted {
    seat: Arc<Seat>,
    number: u64,
    told: oneshot::Receiver<Outcome>,
}

impl Posted {
    /// Waits until something has become of it.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        (&mut self.told).await.unwrap_or(Outcome::Gone)
    }

    /// Takes it out again; false when it was handed over, or is gone.
    pub(crate) fn withdraw(&self) -> bool {
        self.seat.mailbox.withdraw(self.number)
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// All connections of a node. Cloning is a reference count.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    count: AtomicUsize,
    plan: Mutex<Plan>,
    draining: AtomicBool,
    arrivals: Notify,
}

#[derive(Debug, Default)]
struct Plan {
    keys: HashMap<Key, Vec<Arc<Seat>>>,
    departed: HashMap<Key, Vec<Departed>>,
    expiry: VecDeque<(Instant, Key)>,
}

/// A connection that left and is elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Departed {
    /// Its id.
    pub(crate) connection: Arc<str>,
    /// Where it went.
    pub(crate) to: Whither,
    /// When it left.
    pub(crate) at: Instant,
}

/// Where a connection went that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whither {
    /// To that node.
    To(NodeId),
    /// Wherever somebody finds a node for it.
    Sought,
    /// Nowhere, or to where somebody finds a node for it: its leg was lost without a word.
    Unsure,
}

/// How long it is known at the most where a connection went.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Seats {
    /// No connections yet. `bound`: the bytes that may wait for each.
    pub(crate) fn new(bound: usize) -> Self {
        let shared = Shared {
            bound,
            count: AtomicUsize::new(0),
            plan: Mutex::default(),
            draining: AtomicBool::new(false),
            arrivals: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a connection in until what is returned is dropped.
    pub(crate) fn take_seat(&self, guest: Guest) -> Seated {
        let orders = if self.shared.draining.load(Ordering::Acquire) { DRAIN } else { 0 };
        let phase = if guest.moved_from.is_some() { Phase::Waiting } else { Phase::Live };
        let seat = Arc::new(Seat {
            guest,
            since: SystemTime::now(),
            began: Instant::now(),
            last_active: AtomicU64::new(0),
            orders: AtomicU8::new(orders),
            waker: AtomicWaker::new(),
            mailbox: Mailbox::new(self.shared.bound, phase),
        });
        self.lock().arrive(&seat);
        self.shared.count.fetch_add(1, Ordering::Relaxed);
        self.shared.arrivals.notify_one();
        Seated { seats: self.clone(), seat, over: false }
    }

    /// The connections of a key, oldest first, and those that left it lately for elsewhere.
    pub(crate) fn of(&self, key: &Key) -> (Vec<Arc<Seat>>, Vec<Departed>) {
        let plan = self.lock();
        let seats = plan.keys.get(key).cloned().unwrap_or_default();
        let mut departed = plan.departed.get(key).cloned().unwrap_or_default();
        departed.retain(|gone| gone.at.elapsed() < REMEMBERED);
        (seats, departed)
    }

    /// All keys that have a connection here.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.lock().keys.keys().cloned().collect()
    }

    /// Waits for a connection that has come since this was last asked.
    pub(crate) async fn arrival(&self) {
        self.shared.arrivals.notified().await;
    }

    /// The node has begun to drain.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.order_all(DRAIN);
    }

    /// The time to drain is over.
    pub(crate) fn leave(&self) {
        self.order_all(LEAVE);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    fn order_all(&self, order: u8) {
        let seats: Vec<Arc<Seat>> = self.lock().keys.values().flatten().cloned().collect();
        seats.iter().for_each(|seat| seat.order(order));
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        // Nothing is left half done in there by a panic.
        self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn arrive(&mut self, seat: &Arc<Seat>) {
        let Guest { key, connection, .. } = &seat.guest;
        if let Some(departed) = self.departed.get_mut(key) {
            departed.retain(|gone| gone.connection != *connection);
        }
        self.keys.entry(key.clone()).or_default().push(Arc::clone(seat));
    }

    fn leave(&mut self, seat: &Arc<Seat>, to: Option<Whither>) {
        let Guest { key, connection, .. } = &seat.guest;
        let mut back = false;
        if let Some(seats) = self.keys.get_mut(key) {
            seats.retain(|other| !Arc::ptr_eq(other, seat));
            back = seats.iter().any(|other| other.guest.connection == *connection);
            if seats.is_empty() {
                self.keys.remove(key);
            }
        }
        let now = Instant::now();
        if let (Some(to), false) = (to, back) {
            let departed = Departed { connection: Arc::clone(connection), to, at: now };
            self.departed.entry(key.clone()).or_default().push(departed);
            self.expiry.push_back((now + REMEMBERED, key.clone()));
        }
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.expiry.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, key)) = self.expiry.pop_front() else { return };
            if let Some(departed) = self.departed.get_mut(&key) {
                departed.retain(|gone| now < gone.at + REMEMBERED);
                if departed.is_empty() {
                    self.departed.remove(&key);
                }
            }
        }
    }
}

/// A connection that is registered.
#[derive(Debug)]
pub(crate) struct Seated {
    seats: Seats,
    seat: Arc<Seat>,
    over: bool,
}

impl Seated {
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    #[cfg(test)]
    pub(super) fn seats(&self) -> &Seats {
        &self.seats
    }

    /// The leg is the connection's from here on.
    pub(super) fn live(&self) {
        self.seat.mailbox.set_phase(Phase::Live);
    }

    /// The leg is not the connection's any more. `departed`: that may go on elsewhere.
    pub(super) fn over(&mut self, departed: Option<Whither>) {
        if !std::mem::replace(&mut self.over, true) {
            // Whoever waits looks for it after this: it must be known by then where it went.
            self.seats.lock().leave(&self.seat, departed);
            self.seat.mailbox.set_phase(Phase::Over);
        }
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.over(None);
        self.seats.shared.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(connection: &str, moved_from: Option<&str>) -> Guest {
        Guest {
            key: Key::new("k").unwrap(),
            connection: connection.into(),
            moved_from: moved_from.map(|node| node.parse().unwrap()),
            remote: None,
            subprotocol: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_is_known_for_a_minute_unless_it_is_back() {
        let (seats, key) = (Seats::new(100), Key::new("k").unwrap());
        let mut first = seats.take_seat(guest("a", None));
        let second = seats.take_seat(guest("b", None));
        assert_eq!(seats.of(&key).0.len(), 2);
        first.over(Some(Whither::To("10.0.0.2:1".parse().unwrap())));
        drop(first);
        drop(second);
        assert_eq!(seats.of(&key).1.len(), 1, "who just left is nowhere");
        let mut back = seats.take_seat(guest("a", Some("10.0.0.2:1")));
        assert!(seats.of(&key).1.is_empty());
        back.over(Some(Whither::Sought));
        drop(back);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(seats.of(&key).1.is_empty());
        assert_eq!(seats.len(), 0);
    }
}
