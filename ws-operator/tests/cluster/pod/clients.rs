//! The clients, and what they and the applications have seen.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, lookup_host},
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    CONTROL, EVENTS, control, events,
    support::{
        checker::{Faults, check, silences},
        client::{Client, Driven, finish},
        log::{AppEntry, AppEvent, ClientEntry, ClientEvent, Logs},
    },
    told,
};

/// The pause between two messages of a client.
const PACE: Duration = Duration::from_millis(100);

/// The clients of one test.
struct Fleet {
    logs: Arc<Logs>,
    clients: Mutex<Vec<Driven>>,
    mark: Mutex<Instant>,
}

/// Connects `COUNT` clients to `TO`, and answers until it is killed.
pub async fn run() {
    let (to, count) = (told("TO"), told("COUNT").parse().unwrap());
    let fleet =
        Arc::new(Fleet { logs: Logs::new(), clients: Mutex::default(), mark: Mutex::new(Instant::now()) });
    let [events, control] = [EVENTS, CONTROL].map(|port| SocketAddr::from(([0; 4], port)));
    let events = TcpListener::bind(events).await.unwrap();
    let control = TcpListener::bind(control).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(events::hear(events, fleet.logs.clone(), ours));
    tasks.spawn(connect(fleet.clone(), to, count));
    tasks.spawn(control::serve(control, move |method, path| answer(fleet.clone(), method, path)));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Each fleet has numbers of its own: what applications still tell about clients of an earlier one is not counted.
fn ours(client: u32) -> bool {
    client / FLEET == first() / FLEET
}

/// Clients in one fleet, at most.
const FLEET: u32 = 1000;

fn first() -> u32 {
    told("FIRST").parse().unwrap()
}

async fn connect(fleet: Arc<Fleet>, to: String, count: u32) {
    let addr = loop {
        match lookup_host(&to).await.map(|mut found| found.next()) {
            Ok(Some(addr)) => break addr,
            Ok(None) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    };
    let ids = first()..first() + count;
    let connected = stream::iter(ids).map(|id| {
        let logs = fleet.logs.clone();
        async move { Client::connect(addr, id, &logs).await.drive(PACE) }
    });
    let mut connected = connected.buffered(32);
    while let Some(client) = connected.next().await {
        fleet.clients.lock().unwrap().push(client);
    }
}

async fn answer(fleet: Arc<Fleet>, method: String, path: String) -> Option<Value> {
    match (method.as_str(), path.as_str()) {
        ("GET", "/state") => Some(fleet.state()),
        ("GET", "/mark") => {
            *fleet.mark.lock().unwrap() = Instant::now();
            Some(fleet.state())
        }
        ("GET", "/finish") => {
            let clients = std::mem::take(&mut *fleet.clients.lock().unwrap());
            finish(clients).await;
            // What applications said last is on its way.
            sleep(Duration::from_millis(500)).await;
            Some(fleet.verdict())
        }
        _ => None,
    }
}

impl Fleet {
    /// How it goes since the mark, cheaply.
    fn state(&self) -> Value {
        let (clients, apps) = self.read();
        let (mark, now) = (*self.mark.lock().unwrap(), Instant::now());
        let longest = silences(&apps, mark, now);
        let last = last(&apps);
        let clients_now = self.clients.lock().unwrap();
        let connected: Vec<u32> =
            clients_now.iter().filter(|client| !client.is_over()).map(|client| client.id).collect();
        let since = |id| last.get(id).map_or(u64::MAX, |at| millis(now.saturating_duration_since(*at)));
        json!({
            "connected": connected.len(),
            "closed": closed(&clients),
            // Each client's longest time without a message of its at an application, since the mark: the longest.
            "silence_ms": longest.values().max().map(|silence| millis(*silence)),
            // And without one until now.
            "silent_ms": connected.iter().map(since).max(),
            // Of whom nothing was heard for a second.
            "silent": connected.iter().filter(|id| since(id) > 1000).collect::<Vec<_>>(),
            "pods": by_pod(&apps, mark),
        })
    }

    fn verdict(&self) -> Value {
        let (clients, apps) = self.read();
        let verdict = check(&clients, &apps);
        let mut told = self.state();
        told["clients"] = verdict.clients.into();
        told["sent"] = verdict.sent.into();
        told["said"] = verdict.said.into();
        told["moves"] = verdict.moves.into();
        told["up"] = faults(verdict.up);
        told["down"] = faults(verdict.down);
        told["text"] = verdict.to_string().into();
        told
    }

    /// Applications tell late what they have seen: the order is that of their clocks.
    fn read(&self) -> (Vec<ClientEntry>, Vec<AppEntry>) {
        let (clients, mut apps) = self.logs.read();
        apps.sort_by_key(|entry| entry.at);
        (clients, apps)
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// When each client was last heard.
fn last(apps: &[AppEntry]) -> BTreeMap<u32, Instant> {
    let got = apps.iter().filter(|entry| matches!(entry.event, AppEvent::Got(_)));
    got.map(|entry| (entry.client, entry.at)).collect()
}

fn by_pod(apps: &[AppEntry], mark: Instant) -> BTreeMap<&str, usize> {
    let mut pods = BTreeMap::new();
    for entry in apps.iter().filter(|e| e.at >= mark && matches!(e.event, AppEvent::Got(_))) {
        *pods.entry(&*entry.pod).or_default() += 1;
    }
    pods
}

fn closed(clients: &[ClientEntry]) -> Vec<Value> {
    let closed = clients.iter().filter_map(|entry| match entry.event {
        ClientEvent::Closed(code) => Some(json!([entry.client, code])),
        ClientEvent::Sent(_) | ClientEvent::Got { .. } | ClientEvent::Pushed { .. } => None,
    });
    closed.collect()
}

fn faults(faults: Faults) -> Value {
    let Faults { lost, repeated, announced, reordered, late, invented } = faults;
    json!({
        "lost": lost, "repeated": repeated, "announced": announced, "reordered": reordered, "late": late,
        "invented": invented,
    })
}
