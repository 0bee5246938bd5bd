//! What a client costs the balancer, in clear, by TLS, and as a stream of HTTP/2.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::{
    authority::connect,
    streams::Scene,
    support::{
        Raw, Setup, client, raw,
        wait::{bounded, secs},
    },
};

/// Bytes that the balancer holds for an idle client, however it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_an_idle_client_is_small() {
    const CLIENTS: u32 = 300;
    let scene = Scene::start(Setup::plain(1)).await;
    let anonymous = || u32::try_from(scene.cluster.balancer.usage().anonymous).unwrap();
    let each = |before: u32| anonymous().saturating_sub(before) / CLIENTS;
    let fields = |n: u32| format!("ws-user-id: user-{n}\r\n");
    // The first of each kind pays for what is there once.
    let mut plain = vec![Raw::open(scene.cluster.addr(), "first").await];
    let config = scene.authority.client(&[&TLS13], &["http/1.1"]);
    let secure = async |n: u32| {
        let mut stream = connect(&config, scene.cluster.tls_addr()).await.unwrap();
        stream.write_all(raw::handshake("/", &fields(n)).as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        bounded(secs(20), "an answer", stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        stream
    };
    let mut tls = vec![secure(0).await];
    let first = scene.connect().await;
    let key = |n: u32| format!("user-{n}");
    let mut streams = vec![first.open("/", &[("ws-user-id", &key(0))]).await];

    let before = anonymous();
    for n in 0..CLIENTS {
        plain.push(Raw::open(scene.cluster.addr(), &key(n)).await);
    }
    let in_clear = each(before);
    let before = anonymous();
    for n in 0..CLIENTS {
        tls.push(secure(n).await);
    }
    let by_tls = each(before);
    let before = anonymous();
    let mut connections = Vec::new();
    for n in 0..CLIENTS {
        if n % 100 == 0 {
            connections.push(scene.connect().await);
        }
        streams.push(connections.last().unwrap().open("/", &[("ws-user-id", &key(n))]).await);
    }
    let by_http2 = each(before);
    eprintln!("bytes for an idle client: in clear {in_clear}, by TLS {by_tls}, by HTTP/2 {by_http2}");
    assert!(in_clear < 32 << 10 && by_tls < 32 << 10 && by_http2 < 32 << 10);
}

/// Processor time of the balancer for a round trip, in microseconds; to be compared, and with an optimised balancer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a machine that does nothing else"]
async fn the_cost_of_a_round_trip() {
    const CLIENTS: u32 = 64;
    let scene = Scene::start(Setup::plain(1)).await;
    let connection = scene.connect().await;
    let config = scene.authority.client(&[&TLS13], &["http/1.1"]);
    let (mut plain, mut tls, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..CLIENTS {
        let key = client::key(n);
        plain.push(client::open(scene.cluster.addr(), "/", &[("ws-user-id", &key)]).await.unwrap().0);
        let stream = connect(&config, scene.cluster.tls_addr()).await.unwrap();
        let mut request = format!("wss://{}/", scene.cluster.tls_addr()).into_client_request().unwrap();
        request.headers_mut().insert("ws-user-id", key.parse().unwrap());
        tls.push(client_async(request, stream).await.unwrap().0);
        streams.push(connection.open("/", &[("ws-user-id", &key)]).await.0.websocket().await);
    }
    for _ in 0..3 {
        for size in [64, 1024, 16 * 1024] {
            let clear = round_trips(&scene, &mut plain, size).await;
            let by_tls = round_trips(&scene, &mut tls, size).await;
            let by_http2 = round_trips(&scene, &mut streams, size).await;
            let ratio = |cost: f64| cost / clear;
            eprintln!(
                "{size:>5} B: in clear {clear:.1} µs; by TLS {by_tls:.1} ({:.2}); by HTTP/2 {by_http2:.1} ({:.2})",
                ratio(by_tls),
                ratio(by_http2),
            );
        }
    }
}

/// The balancer's microseconds for each of many round trips of these clients.
async fn round_trips<S>(scene: &Scene, clients: &mut [WebSocketStream<S>], size: usize) -> f64
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const EACH: u32 = 200;
    let text = Message::text("x".repeat(size));
    let cpu = || scene.cluster.balancer.usage().cpu;
    let before = cpu();
    let count = clients.len();
    join_all(clients.iter_mut().map(async |client| {
        for _ in 0..EACH {
            client.send(text.clone()).await.unwrap();
            while !client.next().await.unwrap().unwrap().is_text() {}
        }
    }))
    .await;
    let spent: Duration = cpu() - before;
    spent.as_secs_f64() * 1e6 / f64::from(EACH) / count as f64
}
