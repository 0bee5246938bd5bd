//! The logs of a test: what the clients saw, what the apps saw, and what callers of the API were told. The checker
//! compares them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::{sync::mpsc, time::Instant};

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
    /// Received what a caller of the API has sent.
    Pushed { caller: u32, n: u64 },
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

/// One send through the API, and what became of it as far as the caller was told.
#[derive(Clone, Debug)]
pub struct SendEntry {
    pub caller: u32,
    pub n: u64,
    /// Whom it was for.
    pub client: u32,
    pub asked: Instant,
    pub answered: Instant,
    /// Whether the client's own stack was to confirm it.
    pub received: bool,
    /// The answer; `None`: the connection to the API broke.
    pub status: Option<u16>,
}

/// All logs; apps, clients and callers of one test share it.
#[derive(Default)]
pub struct Logs {
    sends: Mutex<Vec<SendEntry>>,
    clients: Mutex<Vec<ClientEntry>>,
    apps: Mutex<Vec<AppEntry>>,
    legs: AtomicU64,
    /// Who keeps the log of an app that is far from its clients.
    keeper: Option<mpsc::UnboundedSender<AppEntry>>,
}

impl Logs {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The logs of one app among several processes: what it sees goes to `keeper`, who [takes](Self::take) it.
    pub fn far(keeper: mpsc::UnboundedSender<AppEntry>) -> Arc<Self> {
        Arc::new(Self { keeper: Some(keeper), ..Self::default() })
    }

    /// A number for a new leg, in the order of opening: among several processes, the time.
    pub fn next_leg(&self) -> u64 {
        if self.keeper.is_none() {
            return self.legs.fetch_add(1, Ordering::Relaxed);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos().try_into().unwrap()
    }

    pub fn client(&self, client: u32, event: ClientEvent) {
        let mut log = self.clients.lock().unwrap();
        log.push(ClientEntry { at: Instant::now(), client, event });
    }

    pub fn app(&self, pod: &Arc<str>, client: u32, leg: u64, event: AppEvent) {
        let entry = AppEntry { at: Instant::now(), pod: pod.clone(), client, leg, event };
        match &self.keeper {
            None => self.take(entry),
            Some(keeper) => drop(keeper.send(entry)),
        }
    }

    /// Takes what an app has seen.
    pub fn take(&self, entry: AppEntry) {
        self.apps.lock().unwrap().push(entry);
    }

    pub fn send(&self, entry: SendEntry) {
        self.sends.lock().unwrap().push(entry);
    }

    /// What callers were told so far.
    pub fn sends(&self) -> Vec<SendEntry> {
        self.sends.lock().unwrap().clone()
    }

    /// What both sides saw so far.
    pub fn read(&self) -> (Vec<ClientEntry>, Vec<AppEntry>) {
        (self.clients.lock().unwrap().clone(), self.apps.lock().unwrap().clone())
    }
}
