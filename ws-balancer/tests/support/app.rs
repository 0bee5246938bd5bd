//! A WebSocket application inside the test, whose manners can be changed while it runs.
//!
//! It answers calls by words (see `numbered`), echoes everything else, and obeys four commands of its clients:
//! `!close CODE REASON`, `!bytes N` (says that many binary bytes), `!headers` (says the handshake's headers) and `!die`
//! (drops the connection, as if it had crashed on that message).

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpListener,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

use super::{
    log::{AppEvent, Logs},
    numbered::{Call, Word},
    wait::eventually,
};

/// How an app behaves. Read at each handshake, and [`Answers`] at each message.
#[derive(Clone, Debug)]
pub struct Manners {
    pub answers: Answers,
    /// Says a word of its own at the start of each connection.
    pub greets: bool,
    /// Says a word of its own at this interval.
    pub ticks: Option<Duration>,
    /// Refuses every handshake with this status, and a cookie and a body.
    pub refuses: Option<u16>,
    /// Agrees this subprotocol, offered or not.
    pub subprotocol: Option<&'static str>,
    /// False: accepts connections and never reads them.
    pub reads: bool,
    /// How long it takes to answer a Close.
    pub lingers: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    AtOnce,
    /// Each answer comes this much later; others are read meanwhile.
    After(Duration),
    /// The handler works this long on each message, and the app reads nothing meanwhile, pings included.
    Busy(Duration),
    /// All answers of an interval at once.
    Bursts(Duration),
    Never,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            answers: Answers::AtOnce,
            greets: false,
            ticks: None,
            refuses: None,
            subprotocol: None,
            reads: true,
            lingers: Duration::ZERO,
        }
    }
}

/// One handshake as the app saw it.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

/// A running app; dropping it is its sudden death.
pub struct App {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    pod: Arc<str>,
    logs: Arc<Logs>,
    manners: Mutex<Manners>,
    handshakes: Mutex<Vec<Handshake>>,
    frozen: watch::Sender<bool>,
    closed: watch::Sender<()>,
    legs: Mutex<BTreeMap<u64, Handle>>,
}

struct Handle {
    client: u32,
    orders: mpsc::UnboundedSender<Message>,
}

impl App {
    /// Listens on `addr` as the app of `pod`.
    pub async fn start(addr: SocketAddr, pod: &str, logs: &Arc<Logs>, manners: Manners) -> Self {
        let mut listener = None;
        // An app that was there before may be about to let go of the port.
        eventually(Duration::from_secs(5), format!("{addr} can be listened on"), async || {
            listener = TcpListener::bind(addr).await.ok();
            listener.is_some()
        })
        .await;
        let listener = listener.expect("bound above");
        let shared = Shared::new(pod, logs, manners);
        let task = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Self { addr, shared, task }
    }

    /// The app of `pod`, which is handed its connections and listens nowhere.
    pub fn within(
        mut connections: mpsc::UnboundedReceiver<DuplexStream>,
        pod: &str,
        logs: &Arc<Logs>,
        manners: Manners,
    ) -> Self {
        let shared = Shared::new(pod, logs, manners);
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            let mut served = JoinSet::new();
            while let Some(stream) = connections.recv().await {
                served.spawn(serve(stream, serving.clone()));
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { addr: nowhere, shared, task: task.abort_handle() }
    }

    /// Changes its manners from now on.
    pub fn set(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.shared.manners.lock().unwrap());
    }

    /// Stops it as a signal would stop its process: connections are accepted by the kernel, and nobody reads or says
    /// anything; or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        self.shared.frozen.send_replace(frozen);
    }

    /// Takes no new connections, as an app does first that is told to end. It keeps those that it has.
    pub fn stop_listening(&self) {
        self.shared.closed.send_replace(());
    }

    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.handshakes.lock().unwrap().clone()
    }

    /// The clients that it holds now.
    pub fn clients(&self) -> Vec<u32> {
        self.shared.legs.lock().unwrap().values().map(|leg| leg.client).collect()
    }

    /// How many handshakes it has accepted or refused for that client.
    pub fn shook(&self, client: u32) -> usize {
        self.handshakes().iter().filter(|seen| seen.client() == Some(client)).count()
    }

    /// Says `message` to a client that it holds.
    pub fn say(&self, client: u32, message: Message) {
        let legs = self.shared.legs.lock().unwrap();
        let leg = legs.values().find(|leg| leg.client == client).expect("the app does not hold that client");
        drop(leg.orders.send(message));
    }

    /// Closes a client that it holds.
    pub fn close(&self, client: u32, code: u16, reason: &str) {
        self.say(client, close(code, reason));
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn new(pod: &str, logs: &Arc<Logs>, manners: Manners) -> Arc<Self> {
        Arc::new(Self {
            pod: pod.into(),
            logs: logs.clone(),
            manners: Mutex::new(manners),
            handshakes: Mutex::default(),
            frozen: watch::Sender::new(false),
            closed: watch::Sender::new(()),
            legs: Mutex::default(),
        })
    }

    async fn thawed(&self) {
        drop(self.frozen.subscribe().wait_for(|frozen| !*frozen).await);
    }
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() }))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut closed = shared.closed.subscribe();
    let mut listener = Some(listener);
    loop {
        tokio::select! {
            Ok(()) = closed.changed() => listener = None,
            accepted = async { listener.as_ref().expect("it listens").accept().await }, if listener.is_some() => {
                if let Ok((stream, _)) = accepted {
                    drop(stream.set_nodelay(true));
                    connections.spawn(serve(stream, shared.clone()));
                }
            }
            Some(ended) = connections.join_next() => drop(ended),
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    shared.thawed().await;
    let manners = shared.manners.lock().unwrap().clone();
    let mut seen = None;
    #[allow(clippy::result_large_err)] // the library's signature
    let shake = |request: &Request, response: Response| {
        let handshake = Handshake::of(request);
        shared.handshakes.lock().unwrap().push(handshake.clone());
        seen = Some(handshake);
        answer(&shared.pod, &manners, response)
    };
    let Ok(socket) = accept_hdr_async(stream, shake).await else { return };
    let leg = Leg::open(socket, shared.clone(), seen.expect("seen in the handshake"));
    let id = leg.id;
    leg.run(manners).await;
    shared.legs.lock().unwrap().remove(&id);
}

#[allow(clippy::result_large_err)] // the library's signature
fn answer(pod: &str, manners: &Manners, mut response: Response) -> Result<Response, ErrorResponse> {
    let cookie = "session=from-app; Path=/".parse().unwrap();
    if let Some(status) = manners.refuses {
        let body = format!("refused by {pod}");
        let mut refusal = ErrorResponse::new(Some(body.clone()));
        *refusal.status_mut() = status.try_into().unwrap();
        refusal.headers_mut().insert("content-length", body.len().into());
        refusal.headers_mut().insert("set-cookie", cookie);
        return Err(refusal);
    }
    response.headers_mut().insert("set-cookie", cookie);
    response.headers_mut().insert("x-pod", pod.parse().unwrap());
    if let Some(protocol) = manners.subprotocol {
        response.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    Ok(response)
}

impl Handshake {
    fn of(request: &Request) -> Self {
        let headers = request.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Self { target: request.uri().to_string(), headers: headers.collect() }
    }

    /// The value of a header, lower case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The id that the client's own header gives.
    pub fn client(&self) -> Option<u32> {
        self.number("x-client")?.try_into().ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }
}

/// One connection of the app.
struct Leg<S> {
    id: u64,
    client: u32,
    shared: Arc<Shared>,
    socket: WebSocketStream<S>,
    orders: mpsc::UnboundedReceiver<Message>,
    handshake: Handshake,
    /// Answers to come: when, and to which call.
    due: VecDeque<(Instant, u64)>,
    serial: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Leg<S> {
    fn open(socket: WebSocketStream<S>, shared: Arc<Shared>, handshake: Handshake) -> Self {
        let id = shared.logs.next_leg();
        let client = handshake.client().unwrap_or(u32::MAX);
        let redelivered = handshake.number("ws-routing-redelivered").unwrap_or(0);
        let (sender, orders) = mpsc::unbounded_channel();
        shared.logs.app(&shared.pod, client, id, AppEvent::Opened { redelivered });
        shared.legs.lock().unwrap().insert(id, Handle { client, orders: sender });
        Self { id, client, shared, socket, orders, handshake, due: VecDeque::new(), serial: 0 }
    }

    async fn run(mut self, manners: Manners) {
        if manners.greets {
            self.word(None).await;
        }
        let mut tick = tokio::time::interval(manners.ticks.unwrap_or(Duration::from_secs(3600)));
        tick.reset();
        loop {
            let next_due = self.due.front().map(|(at, _)| *at);
            let alive = tokio::select! {
                biased;
                () = sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() => {
                    let (_, n) = self.due.pop_front().expect("it was due");
                    self.word(Some(n)).await
                }
                _ = tick.tick() => self.word(None).await,
                Some(order) = self.orders.recv() => self.socket.send(order).await.is_ok(),
                message = self.socket.next(), if manners.reads => match message {
                    Some(Ok(message)) => {
                        self.shared.thawed().await;
                        self.hear(message).await
                    }
                    Some(Err(_)) | None => false,
                },
            };
            if !alive {
                return;
            }
            self.shared.thawed().await;
        }
    }

    async fn hear(&mut self, message: Message) -> bool {
        match message {
            Message::Text(text) => match (Call::parse(&text), text.strip_prefix('!')) {
                (Some(call), _) => self.answer(call.n).await,
                (None, Some(command)) => self.obey(command).await,
                (None, None) => self.socket.send(Message::Text(text)).await.is_ok(),
            },
            Message::Binary(bytes) => self.socket.send(Message::Binary(bytes)).await.is_ok(),
            Message::Close(frame) => {
                self.log(AppEvent::Ended(frame.map(|f| f.code.into())));
                let lingers = self.shared.manners.lock().unwrap().lingers;
                // The library answers it when it is called again.
                sleep(lingers).await;
                true
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => true,
        }
    }

    async fn obey(&mut self, command: &str) -> bool {
        if command == "die" {
            return false;
        }
        let mut words = command.splitn(3, ' ');
        let reply = match (words.next(), words.next(), words.next()) {
            (Some("close"), Some(code), reason) => close(code.parse().unwrap(), reason.unwrap_or("")),
            (Some("bytes"), Some(n), _) => Message::binary(pattern(n.parse().unwrap())),
            (Some("headers"), ..) => Message::text(serde_json::to_string(&self.handshake.headers).unwrap()),
            _ => panic!("unknown command {command:?}"),
        };
        self.socket.send(reply).await.is_ok()
    }

    async fn answer(&mut self, n: u64) -> bool {
        self.log(AppEvent::Got(n));
        let answers = self.shared.manners.lock().unwrap().answers;
        match answers {
            Answers::AtOnce => return self.word(Some(n)).await,
            Answers::Busy(work) => {
                sleep(work).await;
                return self.word(Some(n)).await;
            }
            Answers::After(delay) => self.due.push_back((Instant::now() + delay, n)),
            Answers::Bursts(interval) => {
                let at = self.due.front().map_or_else(|| Instant::now() + interval, |(at, _)| *at);
                self.due.push_back((at, n));
            }
            Answers::Never => {}
        }
        true
    }

    async fn word(&mut self, answers: Option<u64>) -> bool {
        let word = Word { leg: self.id, serial: self.serial, answers };
        self.serial += 1;
        // An app that was told to stop cannot say anything: only what the socket took was said.
        let said = self.socket.send(Message::text(word.text())).await.is_ok();
        if said {
            self.log(AppEvent::Said(word.serial));
        }
        said
    }

    fn log(&self, event: AppEvent) {
        self.shared.logs.app(&self.shared.pod, self.client, self.id, event);
    }
}

/// Bytes that show where they belong.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i ^ (i >> 8) ^ (i >> 16)) & 0xff).unwrap()).collect()
}
