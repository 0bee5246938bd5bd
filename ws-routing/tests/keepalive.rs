//! When a silent client is asked whether it is there, by the clock: one proxy, one client, one app, and no network.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::{Instant, sleep},
};
use ws_routing::{
    Members, Node, NodeId,
    membership::View,
    proxy::{Connecting, LegStream, Network, Proxy},
};

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nws-user-id: k\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// What the proxy can put towards a client that does not read.
const TAKEN: usize = 1024;
const PING: u8 = 0x89;

/// Gives the far end of each leg away.
#[derive(Debug)]
struct Apps(mpsc::UnboundedSender<DuplexStream>);

impl Network for Apps {
    fn connect<'a>(&'a self, _: &'a NodeId, _: Duration) -> Connecting<'a> {
        let (near, far) = duplex(64 * 1024);
        self.0.send(far).unwrap();
        Box::pin(async { Ok(LegStream::from(near)) })
    }
}

/// A client and its app, with the proxy between them.
async fn connected() -> (DuplexStream, DuplexStream) {
    let (legs, mut apps) = mpsc::unbounded_channel();
    let view = View::fixed(Members::new([Node::new("10.0.0.1:1".parse().unwrap())], 0));
    let proxy = Proxy::builder(view).network(Arc::new(Apps(legs))).build();
    let (mut client, edge) = duplex(TAKEN);
    tokio::spawn(proxy.serve(edge, SocketAddr::from(([127, 0, 0, 1], 1))));
    client.write_all(REQUEST).await.unwrap();
    let mut app = apps.recv().await.unwrap();
    head(&mut app).await;
    app.write_all(ACCEPTED).await.unwrap();
    head(&mut client).await;
    (client, app)
}

async fn head(io: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
}

/// The client is asked after so long from `since`, and cut when it does not answer.
async fn asked(client: &mut DuplexStream, since: Instant, after: Duration) {
    assert_eq!(client.read_u8().await.unwrap(), PING);
    let late = since.elapsed().abs_diff(after);
    assert!(late < Duration::from_millis(100), "asked {:?} after its last byte", since.elapsed());
    let asked = Instant::now();
    client.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(asked.elapsed().abs_diff(Duration::from_secs(10)) < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_is_asked_20_seconds_after_its_last_byte() {
    let (mut client, mut app) = connected().await;
    let mut message = [0; 8];
    for _ in 0..31 {
        sleep(Duration::from_secs(1)).await;
        client.write_all(b"\x82\x82\0\0\0\0hi").await.unwrap();
        app.read_exact(&mut message).await.unwrap();
        app.write_all(b"\x82\x02hi").await.unwrap();
        client.read_exact(&mut message[..4]).await.unwrap();
    }
    asked(&mut client, Instant::now(), Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_took_nothing_for_a_while_is_asked_20_seconds_after_it_took_the_rest() {
    let (mut client, mut app) = connected().await;
    sleep(Duration::from_secs(19)).await;
    let frame = [&b"\x82\x7e\x10\x00"[..], &[7; 4096]].concat();
    app.write_all(&frame).await.unwrap();
    // The time at which it would have been asked goes by while it takes nothing.
    sleep(Duration::from_millis(1500)).await;
    let mut got = vec![0; frame.len()];
    client.read_exact(&mut got).await.unwrap();
    assert!(got == frame);
    asked(&mut client, Instant::now(), Duration::from_secs(20)).await;
}
