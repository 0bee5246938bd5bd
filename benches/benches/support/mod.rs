//! What the benchmarks of sidecars share: legs to pods, callers that count, and the middle of
//! several rounds.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, clippy::unwrap_used)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::accept_async;

pub use benches::sidecar::Pod;

/// Callers or clients at the same time: each waits for its answer before it goes on.
pub const CALLERS: usize = 64;

/// What is said and sent.
pub const PAYLOAD: [u8; 64] = [b'x'; 64];

const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(4);

/// What one round has shown.
#[derive(Clone, Copy)]
pub struct Rate {
    pub a_second: f64,
    /// What each took of all cores, in microseconds: more steady than the rate where others use the machine too.
    pub cpu: f64,
}

impl Rate {
    /// The middle of both.
    pub fn median(rounds: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(rounds.iter().map(value).collect());
        Self { a_second: of(|rate| rate.a_second), cpu: of(|rate| rate.cpu) }
    }

    /// One line of the result, with how it compares.
    pub fn line(self, what: &str, bare: Self) -> String {
        let (rate, cpu) = (self.a_second / bare.a_second, self.cpu / bare.cpu);
        let Self { a_second, cpu: each } = self;
        format!("{what:<24}{a_second:>8.0} a second ({rate:.2}), {each:>5.1} us of CPU each ({cpu:.2})")
    }
}

/// How often a second callers count who are started by `call`, by their numbers.
pub async fn rate<F>(call: impl Fn(usize, Arc<AtomicU64>) -> F) -> Rate
where
    F: Future<Output = ()> + Send + 'static,
{
    let count = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        callers.spawn(call(n, Arc::clone(&count)));
    }
    sleep(WARM_UP).await;
    let (before, cpu, began) = (count.load(Ordering::Relaxed), cpu_time(), Instant::now());
    sleep(ROUND).await;
    let counted = (count.load(Ordering::Relaxed) - before) as f64;
    let a_second = counted / began.elapsed().as_secs_f64();
    Rate { a_second, cpu: (cpu_time() - cpu).as_micros() as f64 / counted }
}

/// What this process has had of the cores so far. Zero where there is no `/proc`.
fn cpu_time() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before may hold spaces.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// POSTs over one connection, by hyper, again and again; each answer's body is given to `check`.
pub async fn post(addr: SocketAddr, path: String, count: Arc<AtomicU64>, check: impl Fn(Bytes)) {
    let io = TcpStream::connect(addr).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let posts = async {
        loop {
            let request = Request::post(&path).header("host", "pod").header("content-type", "text/plain");
            let body = Full::new(Bytes::from_static(&PAYLOAD));
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            check(response.into_body().collect().await.unwrap().to_bytes());
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = posts => {}
        _ = connection => {}
    }
}

/// A WebSocket whose handshake has these further header lines, ready for frames.
pub async fn handshake(addr: SocketAddr, fields: &str) -> TcpStream {
    let mut io = TcpStream::connect(addr).await.unwrap();
    io.set_nodelay(true).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await.unwrap();
    let mut held = Vec::new();
    while !held.ends_with(b"\r\n\r\n") {
        assert!(io.read_buf(&mut held).await.unwrap() > 0);
    }
    io
}

/// A client that reads and does nothing with it.
pub async fn read_all(mut io: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while io.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

/// An application that takes WebSockets and says nothing. Its address.
pub async fn silent_app() -> SocketAddr {
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

/// An HTTP server made of one function. Its address.
pub async fn http_server<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            io.set_nodelay(true).unwrap();
            let service = service_fn(answer.clone());
            tokio::spawn(server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service));
        }
    });
    addr
}
