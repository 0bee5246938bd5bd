//! A client that sends numbered messages and logs all that it sees.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message, client::IntoClientRequest as _, handshake::client::Response, http::HeaderName,
    },
};

use super::{
    log::{ClientEvent, Logs},
    numbered::{Call, Push, Word},
    wait::{bounded, secs},
};

/// How long a leaving client waits for the answers that it still misses, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

pub type Socket = WebSocketStream<TcpStream>;

/// Opens a WebSocket at `addr`; `headers` are added to the handshake.
///
/// # Errors
///
/// The library's, [`tungstenite::Error::Http`] with any answer but 101.
pub async fn open(
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> tungstenite::Result<(Socket, Response)> {
    let mut request = format!("ws://{addr}{path}").into_client_request()?;
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    bounded(secs(20), "an answer to the handshake", client_async(request, stream)).await
}

/// The key of the client with that id.
pub fn key(id: u32) -> String {
    format!("user-{id}")
}

/// One client, driven step by step.
pub struct Client<S = TcpStream> {
    pub id: u32,
    pub socket: WebSocketStream<S>,
    /// How long it waits, when it leaves, for the answers that it still misses.
    pub patience: Duration,
    logs: Arc<Logs>,
    next: u64,
    answered: BTreeMap<u64, u64>,
}

impl Client {
    /// Connects client `id` under its own [`key`].
    pub async fn connect(addr: SocketAddr, id: u32, logs: &Arc<Logs>) -> Self {
        let (key, number) = (key(id), id.to_string());
        let (socket, _) = open(addr, "/", &[("ws-user-id", &key), ("x-client", &number)])
            .await
            .unwrap_or_else(|e| panic!("client {id}: {e}"));
        Self::new(id, socket, logs)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Client<S> {
    /// Client `id`, whose handshake is done.
    pub fn new(id: u32, socket: WebSocketStream<S>, logs: &Arc<Logs>) -> Self {
        Self { id, socket, patience: PATIENCE, logs: logs.clone(), next: 0, answered: BTreeMap::new() }
    }

    /// Sends its next message.
    pub async fn send(&mut self) -> bool {
        let call = Call { client: self.id, n: self.next };
        self.next += 1;
        self.logs.client(self.id, ClientEvent::Sent(call.n));
        self.socket.send(Message::text(call.text())).await.is_ok()
    }

    /// Waits for one message, and logs it. False when the connection has ended.
    pub async fn hear(&mut self) -> bool {
        let code = match self.socket.next().await {
            Some(Ok(Message::Text(text))) => {
                self.note(&text);
                return true;
            }
            Some(Ok(Message::Close(frame))) => frame.map(|f| f.code.into()),
            Some(Ok(_)) => return true,
            Some(Err(_)) | None => None,
        };
        self.logs.client(self.id, ClientEvent::Closed(code));
        false
    }

    fn note(&mut self, text: &str) {
        if let Some(Push { caller, n }) = Push::parse(text) {
            return self.logs.client(self.id, ClientEvent::Pushed { caller, n });
        }
        let word = Word::parse(text).unwrap_or_else(|| panic!("client {}: {text:?}", self.id));
        self.logs.client(self.id, ClientEvent::Got { leg: word.leg, serial: word.serial });
        if let Some(n) = word.answers {
            *self.answered.entry(n).or_default() += 1;
        }
    }

    /// Sends its next message and waits until it is answered.
    pub async fn ask(&mut self, within: Duration) {
        let (id, n) = (self.id, self.next);
        assert!(self.send().await, "client {id}: cannot send");
        let asked = async {
            while !self.answered.contains_key(&n) {
                if !self.hear().await {
                    return false;
                }
            }
            true
        };
        match timeout(within, asked).await {
            Ok(true) => {}
            Ok(false) => panic!("client {id} was closed"),
            Err(_) => panic!("client {id}: no answer to {n} within {within:?}"),
        }
    }

    /// Waits for the answers that are missing, then closes politely.
    pub async fn leave(mut self) {
        let end = Instant::now() + self.patience;
        while self.answered.len() < usize::try_from(self.next).unwrap() {
            match tokio::time::timeout_at(end, self.hear()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => break,
            }
        }
        drop(self.socket.close(None).await);
        // What still comes until the answer to the close is logged, its end is not.
        let rest = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Text(text) = message {
                    self.note(&text);
                }
            }
        };
        drop(timeout(secs(5), rest).await);
    }

    /// Lets it send a message at every interval on a task of its own.
    pub fn drive(self, every: Duration) -> Driven {
        Driven::start(self.id, |sent, stopped| drive(self, every, sent, stopped))
    }

    /// Lets it send, wait for the answer, think, and send again, on a task of its own.
    pub fn converse(self, think: Duration) -> Driven {
        Driven::start(self.id, |sent, stopped| converse(self, think, sent, stopped))
    }
}

/// A client on a task of its own.
pub struct Driven {
    pub id: u32,
    sent: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Driven {
    fn start<F>(id: u32, body: impl FnOnce(Arc<AtomicU64>, watch::Receiver<bool>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let sent = Arc::new(AtomicU64::new(0));
        Self { id, sent: sent.clone(), stop, task: tokio::spawn(body(sent, stopped)) }
    }

    /// How many messages it has sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether it has left, or was closed.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops sending, waits for all answers, leaves.
    pub async fn finish(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// Ends all of them at the same time.
pub async fn finish(clients: Vec<Driven>) {
    for client in &clients {
        client.stop.send_replace(true);
    }
    for client in clients {
        client.finish().await;
    }
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut client: Client<S>,
    every: Duration,
    sent: Arc<AtomicU64>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut clock = interval(every);
    // A client that was held up goes on at its pace: a catch-up burst would be a load of the test's own.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = async { drop(stopped.wait_for(|stop| *stop).await) } => return client.leave().await,
            _ = clock.tick() => {
                client.send().await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            alive = client.hear() => if !alive { return },
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut client: Client<S>,
    think: Duration,
    sent: Arc<AtomicU64>,
    mut stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let n = client.next;
        client.send().await;
        sent.fetch_add(1, Ordering::Relaxed);
        while !client.answered.contains_key(&n) {
            tokio::select! {
                // A lost answer must not hold the test up: `leave` waits, with a bound.
                () = async { drop(stopped.wait_for(|stop| *stop).await) } => break,
                alive = client.hear() => if !alive { return },
            }
        }
        let thought = Instant::now() + think;
        while let Ok(alive) = tokio::time::timeout_at(thought, client.hear()).await {
            if !alive {
                return;
            }
        }
    }
    client.leave().await;
}
