//! The connections that this node serves, and what their tasks are told.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;

use crate::key::Key;

/// One connection at this node, as others see it.
#[derive(Debug)]
pub(crate) struct Seat {
    key: Key,
    connection: Arc<str>,
    live: AtomicBool,
    orders: AtomicU8,
    waker: AtomicWaker,
}

/// What a session's task is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The node has begun to drain.
    pub(crate) drain: bool,
    /// The time to drain is over: close.
    pub(crate) leave: bool,
}

const DRAIN: u8 = 1;
const LEAVE: u8 = 2;

impl Seat {
    /// What was ordered since, and `waker` for what will be.
    pub(super) fn take(&self, waker: &Waker) -> Orders {
        self.waker.register(waker);
        let orders = self.orders.swap(0, Ordering::AcqRel);
        Orders { drain: orders & DRAIN != 0, leave: orders & LEAVE != 0 }
    }

    /// Whether this is the connection's leg now.
    pub(super) fn set_live(&self, live: bool) {
        if self.live.load(Ordering::Relaxed) != live {
            self.live.store(live, Ordering::Release);
        }
    }

    pub(super) fn connection(&self) -> &str {
        &self.connection
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// All connections of a node. Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    seats: Mutex<HashMap<u64, Arc<Seat>>>,
    draining: AtomicBool,
}

impl Seats {
    /// Takes a connection in until what is returned is dropped.
    pub(crate) fn take_seat(&self, key: Key, connection: Arc<str>, live: bool) -> Seated {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let orders = if self.shared.draining.load(Ordering::Acquire) { DRAIN } else { 0 };
        let seat = Arc::new(Seat {
            key,
            connection,
            live: AtomicBool::new(live),
            orders: AtomicU8::new(orders),
            waker: AtomicWaker::new(),
        });
        self.lock().insert(number, Arc::clone(&seat));
        Seated { seats: self.clone(), number, seat }
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
        self.lock().len()
    }

    fn order_all(&self, order: u8) {
        let seats: Vec<Arc<Seat>> = self.lock().values().cloned().collect();
        seats.iter().for_each(|seat| seat.order(order));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Seat>>> {
        // Nothing is left half done in there by a panic.
        self.shared.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is registered.
#[derive(Debug)]
pub(crate) struct Seated {
    seats: Seats,
    number: u64,
    seat: Arc<Seat>,
}

impl Seated {
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.number);
    }
}
