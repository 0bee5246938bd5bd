//! A caller of the sidecars' API: sends numbered messages to clients, one after another, and logs what it was told.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    api::Api,
    client::key,
    log::{Logs, SendEntry},
    numbered::Push,
};

/// How long a caller waits for an answer: longer than a sidecar may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// The pause between two sends.
const PACE: Duration = Duration::from_millis(10);

/// Where callers may ask, changed while they run.
pub type Doors = Arc<Mutex<Vec<SocketAddr>>>;

/// A caller on a task of its own.
pub struct Caller {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Caller {
    /// Sends to each of `clients` in turn. Every second send is to be confirmed by the client's own stack.
    pub fn start(id: u32, doors: &Doors, clients: Range<u32>, logs: &Arc<Logs>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let state = State { id, doors: doors.clone(), door: id as usize, api: None, logs: logs.clone() };
        Self { stop, task: tokio::spawn(state.run(clients, stopped)) }
    }

    /// Ends it, its last answer awaited.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

struct State {
    id: u32,
    doors: Doors,
    /// Which of them is asked.
    door: usize,
    api: Option<(SocketAddr, Api)>,
    logs: Arc<Logs>,
}

impl State {
    async fn run(mut self, clients: Range<u32>, stopped: watch::Receiver<bool>) {
        let first = self.id % clients.len() as u32;
        for (n, client) in (0..).zip(clients.cycle().skip(first as usize)) {
            if *stopped.borrow() {
                return;
            }
            let (asked, received) = (Instant::now(), n % 2 == 1);
            let answer = self.send(n, client, received).await;
            let status = match answer {
                // Nothing was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
                Err(_) => Some(None),
                Ok(status) => Some(Some(status)),
            };
            if !matches!(status, Some(Some(_))) {
                (self.api, self.door) = (None, self.door + 1);
            }
            if let Some(status) = status {
                let answered = Instant::now();
                let caller = self.id;
                self.logs.send(SendEntry { caller, n, client, asked, answered, received, status });
            }
            sleep(PACE).await;
        }
    }

    async fn send(&mut self, n: u64, client: u32, received: bool) -> io::Result<u16> {
        let door = {
            let doors = self.doors.lock().unwrap();
            *doors.get(self.door % doors.len().max(1)).ok_or(io::ErrorKind::ConnectionRefused)?
        };
        let (_, api) = match &mut self.api {
            Some((addr, _)) if *addr != door => self.api.insert((door, Api::new(door))),
            api => api.get_or_insert_with(|| (door, Api::new(door))),
        };
        let query = if received { "?ack=received" } else { "" };
        let path = format!("/v1/keys/{}/messages{query}", key(client));
        let text = Push { caller: self.id, n }.text();
        let call = api.try_call("POST", &path, &[("content-type", "text/plain")], text.as_bytes());
        Ok(timeout(PATIENCE, call).await.map_err(io::Error::other)??.status)
    }
}
