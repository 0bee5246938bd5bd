//! A sidecar in front of an application behind HTTP, and legs to it made of bytes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::client::IntoClientRequest as _};
use ws_routing::{
    Node, NodeId,
    app::{App, HttpApp, HttpSettings},
    drain,
    frame::{self, Header, Opcode},
    membership::{Fixed, View},
    metrics::{Metrics, SidecarMetrics},
    proxy::Settings,
    serve,
    session::{SendSettings, Sidecar, SidecarParts},
};

/// The longest that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running sidecar; dropping it ends it.
pub struct Pod {
    pub addr: SocketAddr,
    pub metrics: SidecarMetrics,
    _signal: drain::Signal,
    _tasks: JoinSet<()>,
}

impl Pod {
    pub async fn start(app: SocketAddr, settings: HttpSettings) -> Self {
        Self::start_with(app, settings, Settings::default(), None).await
    }

    pub async fn start_with(
        app: SocketAddr,
        settings: HttpSettings,
        relay: Settings,
        route_field: Option<&str>,
    ) -> Self {
        let url = format!("http://{app}/events").parse().unwrap();
        let app = move |node, metrics| Arc::new(HttpApp::new(url, node, settings, metrics)) as Arc<dyn App>;
        Self::start_app(app, None, relay, route_field).await
    }

    /// A sidecar in front of any application; it is alone unless there is a view.
    pub async fn start_app(
        app: impl FnOnce(NodeId, SidecarMetrics) -> Arc<dyn App>,
        view: Option<View>,
        relay: Settings,
        route_field: Option<&str>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let node = NodeId::from(addr);
        let (all, metrics) = Metrics::for_sidecar("test");
        let (signal, drain) = drain::channel();
        let alone = || View::fixed(Fixed::new([Node::new(node.clone())]).members(0));
        let parts = SidecarParts {
            app: app(node.clone(), metrics.clone()),
            view: view.unwrap_or_else(alone),
            node,
            drain,
            metrics: all.clone(),
            sidecar_metrics: metrics.clone(),
            tokens: None,
            sends: SendSettings::default(),
            route_field: route_field.map(Into::into),
            settings: relay,
            limits: Default::default(),
        };
        let sidecar = Sidecar::new(parts, |builder| builder);
        let mut tasks = JoinSet::new();
        let runs = sidecar.clone();
        tasks.spawn(async move { runs.run().await });
        tasks.spawn(serve::serve(listener, std::future::pending(), all, move |stream, peer| {
            let sidecar = sidecar.clone();
            async move { sidecar.serve(stream, peer).await }
        }));
        Self { addr, metrics, _signal: signal, _tasks: tasks }
    }

    /// A client without a balancer, for `key`, with further headers.
    pub async fn client(&self, key: &str, headers: &[(&'static str, &str)]) -> WebSocketStream<TcpStream> {
        let mut request = format!("ws://{}/chat?room=1", self.addr).into_client_request().unwrap();
        for (name, value) in [("ws-user-id", key)].iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.addr).await.unwrap();
        timeout(PATIENCE, client_async(request, stream)).await.unwrap().unwrap().0
    }

    /// A balancer's leg, with these header lines.
    pub async fn leg(&self, fields: &str) -> Leg {
        self.leg_at("/", fields).await
    }

    /// The same, of a client that asked for this path.
    pub async fn leg_at(&self, target: &str, fields: &str) -> Leg {
        let mut leg = Leg { io: TcpStream::connect(self.addr).await.unwrap(), held: Vec::new() };
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        leg.io.write_all(head.as_bytes()).await.unwrap();
        leg
    }
}

/// A client or a balancer made of bytes.
pub struct Leg {
    pub io: TcpStream,
    held: Vec<u8>,
}

impl Leg {
    /// The head of the answer, and the body if it has a length.
    pub async fn answer(&mut self) -> (String, String) {
        let end = loop {
            match self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(self.more().await, "no answer"),
            }
        };
        let head: Vec<u8> = self.held.drain(..end).collect();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.held.len() < length {
            assert!(self.more().await, "no whole body");
        }
        let body = self.held.drain(..length).collect();
        (head, String::from_utf8(body).unwrap())
    }

    pub async fn accepted(mut self) -> Self {
        let (head, _) = self.answer().await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        self
    }

    pub async fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, opcode, payload, Some([1, 2, 3, 4]));
        self.io.write_all(&bytes).await.unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<(Opcode, Vec<u8>)> {
        loop {
            if let Some(header) = Header::parse(&self.held).unwrap() {
                let end = header.size + header.len as usize;
                if self.held.len() >= end {
                    let frame: Vec<u8> = self.held.drain(..end).collect();
                    return Some((header.opcode, frame[header.size..].to_vec()));
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.io.read_buf(&mut self.held)).await.expect("silence");
        matches!(read, Ok(n) if n > 0)
    }
}

/// A ping of a balancer: its kind and number.
pub fn ping(nonce: u64, kind: u8, number: u64) -> Vec<u8> {
    [&nonce.to_be_bytes()[..], &[kind], &number.to_be_bytes()].concat()
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
