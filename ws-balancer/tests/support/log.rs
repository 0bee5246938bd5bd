//! The two logs of a test: what the clients saw, and what the apps saw. The checker compares them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

#[derive(Clone, Debug)]
pub struct ClientEntry {
    pub at: Instant,
    pub client: u32,
    pub event: ClientEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// About to send message `n`.
    Sent(u64),
    /// Received an app's word.
    Got { leg: u64, serial: u64 },
    /// The connection ended, and not because the client wanted it: with this close code, or cut.
    Closed(Option<u16>),
}

#[derive(Clone, Debug)]
pub struct AppEntry {
    pub at: Instant,
    pub pod: Arc<str>,
    pub client: u32,
    pub leg: u64,
    pub event: AppEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppEvent {
    /// A connection began; its first `redelivered` messages may be repeats.
    Opened {
        redelivered: u64,
    },
    Got(u64),
    /// Has said word `serial`.
    Said(u64),
    Ended(Option<u16>),
}

/// Both logs; apps and clients of one test share it.
#[derive(Default)]
pub struct Logs {
    clients: Mutex<Vec<ClientEntry>>,
    apps: Mutex<Vec<AppEntry>>,
    legs: AtomicU64,
}

impl Logs {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A number for a new leg, in the order of opening.
    pub fn next_leg(&self) -> u64 {
        self.legs.fetch_add(1, Ordering::Relaxed)
    }

    pub fn client(&self, client: u32, event: ClientEvent) {
        let mut log = self.clients.lock().unwrap();
        log.push(ClientEntry { at: Instant::now(), client, event });
    }

    pub fn app(&self, pod: &Arc<str>, client: u32, leg: u64, event: AppEvent) {
        let mut log = self.apps.lock().unwrap();
        log.push(AppEntry { at: Instant::now(), pod: pod.clone(), client, leg, event });
    }

    /// What both sides saw so far.
    pub fn read(&self) -> (Vec<ClientEntry>, Vec<AppEntry>) {
        (self.clients.lock().unwrap().clone(), self.apps.lock().unwrap().clone())
    }
}
