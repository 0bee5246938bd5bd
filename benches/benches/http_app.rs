//! Echoes through an application behind HTTP, beside bare POSTs to the same application in the same run.
//!
//! `cargo bench -p benches --bench http_app`. Clients, sidecar and application share one process and its cores: a
//! sidecar's echo is a bare POST, and what it takes to make one of a WebSocket message and back.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use ws_routing::{
    Node, NodeId,
    app::{HttpApp, HttpSettings},
    drain,
    frame::{self, Header, Opcode},
    membership::{Fixed, View},
    metrics::Metrics,
    serve,
    session::{Sidecar, SidecarParts},
};

/// Each waits for its answer before it asks again.
const CLIENTS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(5);
const PAYLOAD: [u8; 64] = [b'x'; 64];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let app = app().await;
        let (sidecar, _parts) = sidecar(app).await;
        let (mut posts, mut echoes) = (Vec::new(), Vec::new());
        // Alternating, so that a noisy moment does not meet one of them only.
        for _ in 0..3 {
            posts.push(rate(|count| post(app, count)).await);
            echoes.push(rate(|count| echo(sidecar, count)).await);
        }
        let (posts, echoes) = (median(posts), median(echoes));
        println!("bare POSTs            {posts:>8.0} a second");
        println!("echoes by the sidecar {echoes:>8.0} a second");
        println!("ratio                 {:>8.2}", echoes / posts);
    });
}

/// How often a second `CLIENTS` of them count.
async fn rate<F: Future<Output = ()> + Send + 'static>(client: impl Fn(Arc<AtomicU64>) -> F) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&count)));
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

/// An echo server; its address.
async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            io.set_nodelay(true).unwrap();
            let connection = server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(io), service_fn(answer)));
        }
    });
    addr
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let kind = request.headers().get("content-type").cloned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::new(body));
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    Ok(response)
}

async fn sidecar(app: SocketAddr) -> (SocketAddr, (drain::Signal, JoinSet<()>)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let node = NodeId::from(addr);
    let (metrics, counts) = Metrics::for_sidecar("bench");
    let url = format!("http://{app}/").parse().unwrap();
    let (signal, drain) = drain::channel();
    let parts = SidecarParts {
        node: node.clone(),
        app: Arc::new(HttpApp::new(url, node.clone(), HttpSettings::default(), counts)),
        view: View::fixed(Fixed::new([Node::new(node)]).members(0)),
        drain,
        metrics: metrics.clone(),
        settings: Default::default(),
        limits: Default::default(),
    };
    let sidecar = Sidecar::new(parts, |builder| builder);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve::serve(listener, pending(), metrics, move |stream, peer| {
        let sidecar = sidecar.clone();
        async move { sidecar.serve(stream, peer).await }
    }));
    (addr, (signal, tasks))
}

/// POSTs over one connection, by hyper.
async fn post(app: SocketAddr, count: Arc<AtomicU64>) {
    let io = TcpStream::connect(app).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let posts = async {
        loop {
            let request = Request::post("/").header("host", "app").header("content-type", "text/plain");
            let body = Full::new(Bytes::from_static(&PAYLOAD));
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), PAYLOAD[..]);
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = posts => {}
        _ = connection => {}
    }
}

/// Echoes over one balancer's leg.
async fn echo(sidecar: SocketAddr, count: Arc<AtomicU64>) {
    let mut io = TcpStream::connect(sidecar).await.unwrap();
    io.set_nodelay(true).unwrap();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nws-routing-key: k\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    io.write_all(head.as_bytes()).await.unwrap();
    let mut held = Vec::new();
    while !held.ends_with(b"\r\n\r\n") {
        assert!(io.read_buf(&mut held).await.unwrap() > 0);
    }
    held.clear();
    let mut message = Vec::new();
    frame::write(&mut message, Opcode::Text, &PAYLOAD, Some([1, 2, 3, 4]));
    loop {
        io.write_all(&message).await.unwrap();
        while Header::parse(&held).unwrap().is_none_or(|h| held.len() < h.size + h.len as usize) {
            assert!(io.read_buf(&mut held).await.unwrap() > 0);
        }
        assert!(held.ends_with(&PAYLOAD));
        held.clear();
        count.fetch_add(1, Ordering::Relaxed);
    }
}
