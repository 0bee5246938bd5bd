//! Clients that send numbered messages all the time, and count what happens to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use examples::deployment::Owners;

/// Each client sends that often.
const PACE: Duration = Duration::from_millis(250);
/// How long the end waits for answers that are missing.
const PATIENCE: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TcpStream>;

pub(crate) struct Crowd {
    clients: Vec<Arc<Mutex<Tally>>>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// What happened to one client.
#[derive(Default)]
struct Tally {
    key: String,
    sent: BTreeMap<u64, Instant>,
    total: u64,
    answered: BTreeSet<u64>,
    highest: Option<u64>,
    pod: String,
    moved: usize,
    repeated: usize,
    reordered: usize,
    closed: bool,
    pause: Duration,
}

/// What happened to all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Table {
    pub(crate) connections: usize,
    pub(crate) messages: u64,
    pub(crate) moved: usize,
    pub(crate) closed: usize,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    pub(crate) reordered: usize,
    pub(crate) pause: Duration,
}

impl Table {
    pub(crate) fn is_clean(&self) -> bool {
        self.closed + self.lost + self.repeated + self.reordered == 0 && self.messages > 0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, messages, moved, closed, lost, repeated, reordered, pause } = self;
        let pause = format!("{} ms", pause.as_millis());
        writeln!(f, "connections  messages  moved  closed  lost  repeated  reordered  longest pause")?;
        write!(
            f,
            "{connections:>11}  {messages:>8}  {moved:>5}  {closed:>6}  {lost:>4}  {repeated:>8}  {reordered:>9}  \
             {pause:>13}"
        )
    }
}

impl Crowd {
    /// Connects that many clients, each with a key of its own, and lets them send.
    pub(crate) async fn connect(addr: SocketAddr, clients: usize) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let keys = (0..clients).map(|n| format!("crowd-{n}"));
        let dials = keys.map(|key| async move { Ok((dial(addr, &key).await?, key)) });
        let dialled: Vec<anyhow::Result<_>> = stream::iter(dials).buffered(16).collect().await;
        let (mut tasks, mut tallies) = (JoinSet::new(), Vec::new());
        for client in dialled {
            let (socket, key) = client?;
            let tally = Arc::new(Mutex::new(Tally { key, ..Tally::default() }));
            tallies.push(tally.clone());
            tasks.spawn(talk(socket, tally, stopped.clone()));
        }
        Ok(Self { clients: tallies, tasks, stop })
    }

    /// What has happened so far. Messages under way are not lost yet: `lost` counts only those that later answers
    /// have overtaken, until all clients have [left](Self::leave).
    pub(crate) fn table(&self) -> Table {
        let mut table = Table { connections: self.clients.len(), ..Table::default() };
        for client in &self.clients {
            let tally = lock(client);
            table.messages += tally.total;
            table.moved += tally.moved;
            table.closed += usize::from(tally.closed);
            table.lost += tally.missing();
            table.repeated += tally.repeated;
            table.reordered += tally.reordered;
            table.pause = table.pause.max(tally.pause);
        }
        table
    }

    /// How many clients each pod answers.
    pub(crate) fn homes(&self) -> HashMap<String, usize> {
        let mut homes = HashMap::new();
        for client in &self.clients {
            *homes.entry(lock(client).pod.clone()).or_default() += 1;
        }
        homes
    }

    /// How many clients were not answered by the owner of their key at last.
    pub(crate) fn misplaced(&self, owners: &Owners) -> usize {
        let away = |tally: &Tally| owners.of(&tally.key).as_ref() != Some(&tally.pod);
        self.clients.iter().filter(|client| away(&lock(client))).count()
    }

    /// Stops sending, waits for the missing answers, and closes all connections.
    pub(crate) async fn leave(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Tally {
    fn answer(&mut self, n: u64, pod: &str) {
        if let Some(sent) = self.sent.remove(&n) {
            self.pause = self.pause.max(sent.elapsed());
        }
        if !self.answered.insert(n) {
            self.repeated += 1;
        } else if self.highest.is_some_and(|highest| n < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(n));
        if self.pod != pod {
            self.moved += usize::from(!self.pod.is_empty());
            pod.clone_into(&mut self.pod);
        }
    }

    /// Messages without an answer although a later one has its own; all without one, once the client has stopped.
    fn missing(&self) -> usize {
        let highest = self.highest.unwrap_or(0);
        self.sent.keys().filter(|n| **n < highest).count()
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn dial(addr: SocketAddr, key: &str) -> anyhow::Result<Socket> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let handshake = client_async(format!("ws://{addr}/?ws-user-id={key}"), stream);
    Ok(handshake.await.with_context(|| format!("client {key}"))?.0)
}

async fn talk(mut socket: Socket, tally: Arc<Mutex<Tally>>, mut stopped: watch::Receiver<bool>) {
    let mut clock = interval(PACE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let alive = tokio::select! {
            () = async { drop(stopped.wait_for(|stop| *stop).await) } => return leave(socket, &tally).await,
            _ = clock.tick() => {
                let n = lock(&tally).next();
                socket.send(Message::text(json!({ "n": n }).to_string())).await.is_ok()
            }
            alive = hear(&mut socket, &tally) => alive,
        };
        if !alive {
            lock(&tally).closed = true;
            return;
        }
    }
}

impl Tally {
    fn next(&mut self) -> u64 {
        let n = self.total;
        self.total += 1;
        self.sent.insert(n, Instant::now());
        n
    }
}

/// Takes one message. False when the connection has ended.
async fn hear(socket: &mut Socket, tally: &Mutex<Tally>) -> bool {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => {
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            if let (Some(n), Some(pod)) = (answer["n"].as_u64(), answer["pod"].as_str()) {
                lock(tally).answer(n, pod);
            }
            true
        }
        Some(Ok(Message::Close(_)) | Err(_)) | None => false,
        Some(Ok(_)) => true,
    }
}

async fn leave(mut socket: Socket, tally: &Mutex<Tally>) {
    let end = Instant::now() + PATIENCE;
    while !lock(tally).sent.is_empty() {
        match timeout_at(end, hear(&mut socket, tally)).await {
            Ok(true) => {}
            Ok(false) => {
                lock(tally).closed = true;
                break;
            }
            Err(_) => break,
        }
    }
    // Whatever is missing now is lost.
    lock(tally).highest = Some(u64::MAX);
    drop(socket.close(None).await);
    drop(timeout_at(end, async { while hear(&mut socket, tally).await {} }).await);
}
