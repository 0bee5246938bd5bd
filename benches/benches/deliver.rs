//! Sends through one sidecar and through a pair, beside a bare hyper POST that ends in a tungstenite write, in one run.
//!
//! `cargo bench -p benches --bench deliver`. Callers, sidecars, application and clients share one process and its
//! cores. Each caller waits for its answer before it sends again; `ack=written`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::{accept_async, tungstenite::Message};
use ws_routing::{
    Key, Members, Node, NodeId,
    app::WebSocketApp,
    drain,
    membership::View,
    metrics::Metrics,
    serve,
    session::{Sidecar, SidecarParts},
};

/// Callers, and as many connected keys: each sends to its own.
const CALLERS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(4);
const PAYLOAD: [u8; 64] = [b'x'; 64];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let app = app().await;
        let bare = bare().await;
        let pair = Pair::start(app).await;
        let (mut posts, mut singles, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        // Alternating, so that a noisy moment does not meet one of them only.
        for _ in 0..3 {
            posts.push(rate(bare.0, &bare.1).await);
            singles.push(rate(pair.apis[0], &pair.keys).await);
            pairs.push(rate(pair.apis[1], &pair.keys).await);
        }
        let (posts, singles, pairs) = (median(posts), median(singles), median(pairs));
        println!("bare POST and write     {posts:>8.0} a second");
        println!("through one sidecar     {singles:>8.0} a second, {:.2} of that", singles / posts);
        println!("through a pair          {pairs:>8.0} a second, {:.2} of that", pairs / posts);
    });
}

/// How many sends a second `CALLERS` of them make at `api`.
async fn rate(api: SocketAddr, keys: &[String]) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for key in keys {
        callers.spawn(send(api, format!("/v1/keys/{key}/messages"), Arc::clone(&count)));
    }
    sleep(WARM_UP).await;
    let (before, began) = (count.load(Ordering::Relaxed), Instant::now());
    sleep(ROUND).await;
    (count.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends over one connection, by hyper.
async fn send(api: SocketAddr, path: String, count: Arc<AtomicU64>) {
    let io = TcpStream::connect(api).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let sends = async {
        loop {
            let request = Request::post(&path).header("host", "api").header("content-type", "text/plain");
            let body = Full::new(Bytes::from_static(&PAYLOAD));
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = sends => {}
        _ = connection => {}
    }
}

/// An application that takes WebSockets and says nothing.
async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut socket = accept_async(io).await.unwrap();
                while socket.next().await.is_some_and(|message| message.is_ok()) {}
            });
        }
    });
    addr
}

/// Two sidecars; the first owns all keys.
struct Pair {
    apis: Vec<SocketAddr>,
    keys: Vec<String>,
    _signal: drain::Signal,
    _tasks: JoinSet<()>,
}

impl Pair {
    async fn start(app: SocketAddr) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let nodes: Vec<NodeId> = listeners.iter().map(|l| l.local_addr().unwrap().into()).collect();
        let members = Members::new(nodes.iter().cloned().map(Node::new), 0);
        let owned = |key: &String| members.owner(&Key::new(key).unwrap()).unwrap().id == nodes[0];
        let keys: Vec<String> = (0..).map(|n| format!("k{n}")).filter(owned).take(CALLERS).collect();
        let (signal, drain) = drain::channel();
        let (mut tasks, mut apis) = (JoinSet::new(), Vec::new());
        let first = listeners[0].local_addr().unwrap();
        for (listener, node) in listeners.into_iter().zip(&nodes) {
            let (metrics, sidecar_metrics) = Metrics::for_sidecar("bench");
            let parts = SidecarParts {
                node: node.clone(),
                app: Arc::new(format!("ws://{app}").parse::<WebSocketApp>().unwrap()),
                view: View::fixed(members.clone()),
                drain: drain.clone(),
                metrics: metrics.clone(),
                sidecar_metrics,
                tokens: None,
                route_field: None,
                sends: Default::default(),
                settings: Default::default(),
                limits: Default::default(),
            };
            let sidecar = Sidecar::new(parts, |builder| builder);
            let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
            apis.push(api.local_addr().unwrap());
            let calls = sidecar.api().clone();
            tasks.spawn(serve::serve(api, pending(), metrics.clone(), move |stream, peer| {
                let calls = calls.clone();
                async move { calls.serve(stream, peer).await }
            }));
            tasks.spawn(serve::serve(listener, pending(), metrics, move |stream, peer| {
                let sidecar = sidecar.clone();
                async move { sidecar.serve(stream, peer).await }
            }));
        }
        for key in &keys {
            tasks.spawn(drain_socket(handshake(first, &format!("ws-routing-key: {key}\r\n")).await));
        }
        Self { apis, keys, _signal: signal, _tasks: tasks }
    }
}

/// A client that reads and does nothing with it.
async fn drain_socket(mut io: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while io.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

async fn handshake(addr: SocketAddr, header: &str) -> TcpStream {
    let mut io = TcpStream::connect(addr).await.unwrap();
    io.set_nodelay(true).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{header}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await.unwrap();
    let mut held = Vec::new();
    while !held.ends_with(b"\r\n\r\n") {
        assert!(io.read_buf(&mut held).await.unwrap() > 0);
    }
    io
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// What a server does without all this: a POST, a map from key to socket, a write.
async fn bare() -> (SocketAddr, Vec<String>) {
    let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, keys) = (sockets.local_addr().unwrap(), (0..CALLERS).map(|n| format!("k{n}")));
    let keys: Vec<String> = keys.collect();
    let mut map: HashMap<String, Mutex<Socket>> = HashMap::new();
    for key in &keys {
        let client = tokio::spawn(handshake(addr, ""));
        let (io, _) = sockets.accept().await.unwrap();
        io.set_nodelay(true).unwrap();
        map.insert(key.clone(), Mutex::new(accept_async(io).await.unwrap()));
        tokio::spawn(drain_socket(client.await.unwrap()));
    }
    let (map, listener) = (Arc::new(map), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            io.set_nodelay(true).unwrap();
            let map = Arc::clone(&map);
            let service = service_fn(move |request| write(Arc::clone(&map), request));
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service));
        }
    });
    (addr, keys)
}

async fn write(
    map: Arc<HashMap<String, Mutex<Socket>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let key = request.uri().path().split('/').nth(3).unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    map[&key].lock().await.send(Message::text(text)).await.unwrap();
    Ok(Response::new(Full::new(Bytes::from_static(b"{\"delivered\":1}\n"))))
}
