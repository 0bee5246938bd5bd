//! What a client that never reads costs the others: how long sends to them take until their WebSocket stacks have
//! confirmed them, with it and without it, in turns in one run.
//!
//! `cargo bench -p benches --bench never_reading`. A balancer, a sidecar, an application, clients and callers share one
//! process and its cores. Its own callers send it 16 KiB at a time, without pause but for what its 429s take.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use support::{PAYLOAD, Pod, handshake, silent_app};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest as _};
use ws_routing::{Members, Node, app::WebSocketApp, membership::View, metrics::Metrics, proxy::Proxy, serve};

const OTHERS: usize = 32;
const STUCK_CALLERS: usize = 4;
const STUCK_PAYLOAD: usize = 16 * 1024;

/// How long the callers of others wait between two sends: the cores are not at their limit.
const PAUSE: Duration = Duration::from_millis(5);
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let app = silent_app().await;
        let [pod] = Pod::ring(|_, _| Arc::new(format!("ws://{app}").parse::<WebSocketApp>().unwrap())).await;
        let balancer = balancer(&pod).await;
        let mut clients = JoinSet::new();
        for n in 0..OTHERS {
            let mut request = format!("ws://{balancer}/").into_client_request().unwrap();
            request.headers_mut().insert("ws-user-id", format!("other-{n}").parse().unwrap());
            let io = TcpStream::connect(balancer).await.unwrap();
            io.set_nodelay(true).unwrap();
            let (mut socket, _) = client_async(request, io).await.unwrap();
            clients.spawn(async move { while socket.next().await.is_some_and(|heard| heard.is_ok()) {} });
        }
        let (mut without, mut with, mut refused) = (Vec::new(), Vec::new(), 0);
        round(pod.api).await;
        for _ in 0..ROUNDS {
            without.extend(round(pod.api).await);
            let stuck = Stuck::start(balancer, pod.api).await;
            with.extend(round(pod.api).await);
            refused += stuck.end().await;
        }
        let (without, with) = (Percentiles::of(without), Percentiles::of(with));
        println!("without                 {}", without.line());
        println!("with one, refused {refused:>5} {}", with.line());
        println!("p99 with it             {:.2} times that without", with.p99 / without.p99);
    });
}

async fn balancer(pod: &Pod) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let view = View::fixed(Members::new([Node::new(pod.addr.into())], 0));
    let proxy = Proxy::builder(view).build();
    let runs = proxy.clone();
    tokio::spawn(async move { runs.run().await });
    let metrics = Metrics::new("bench");
    tokio::spawn(serve::serve(listener, pending(), metrics, move |stream, peer| proxy.serve(stream, peer)));
    addr
}

/// Sends to all others for a while. How long each took, in milliseconds.
async fn round(api: SocketAddr) -> Vec<f64> {
    let mut callers = JoinSet::new();
    for n in 0..OTHERS {
        callers.spawn(async move {
            let (mut api, path) = (connect(api).await, format!("/v1/keys/other-{n}/messages?ack=received"));
            let (end, mut took) = (Instant::now() + ROUND, Vec::new());
            while Instant::now() < end {
                let began = Instant::now();
                assert_eq!(send(&mut api, &path, Bytes::from_static(&PAYLOAD)).await, 200);
                took.push(began.elapsed().as_secs_f64() * 1000.0);
                sleep(PAUSE).await;
            }
            took
        });
    }
    callers.join_all().await.concat()
}

/// A client that never reads, and its callers.
struct Stuck {
    _client: TcpStream,
    callers: JoinSet<u64>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Stuck {
    async fn start(balancer: SocketAddr, api: SocketAddr) -> Self {
        let client = handshake(balancer, "ws-user-id: stuck\r\n").await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut callers = JoinSet::new();
        for _ in 0..STUCK_CALLERS {
            let stopped = stopped.clone();
            callers.spawn(async move {
                let (mut api, mut refused) = (connect(api).await, 0);
                while !*stopped.borrow() {
                    let body = Bytes::from_static(&[b'x'; STUCK_PAYLOAD]);
                    refused += u64::from(send(&mut api, "/v1/keys/stuck/messages", body).await == 429);
                }
                refused
            });
        }
        Self { _client: client, callers, stop }
    }

    /// How often it was refused.
    async fn end(self) -> u64 {
        self.stop.send_replace(true);
        self.callers.join_all().await.iter().sum()
    }
}

async fn connect(api: SocketAddr) -> SendRequest<Full<Bytes>> {
    let io = TcpStream::connect(api).await.unwrap();
    io.set_nodelay(true).unwrap();
    let (sender, connection) = client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(api: &mut SendRequest<Full<Bytes>>, path: &str, body: Bytes) -> u16 {
    api.ready().await.unwrap();
    let request = Request::post(path).header("host", "pod").header("content-type", "text/plain");
    let response = api.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

/// Of how long sends took, in milliseconds.
struct Percentiles {
    count: usize,
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(mut took: Vec<f64>) -> Self {
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        Self { count: took.len(), p50: at(0.5), p99: at(0.99) }
    }

    fn line(&self) -> String {
        format!("{:>7} sends, p50 {:.2} ms, p99 {:.2} ms", self.count, self.p50, self.p99)
    }
}
