//! A drain while a handshake is under way.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::accept_async;
use ws_routing::{Members, Node, drain, membership, proxy::Proxy};

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_handshake_that_is_under_way_is_answered_before_the_process_is_empty() {
    let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut writer, view) = membership::channel(0);
    writer.publish(Members::new([Node::new(node.local_addr().unwrap().into())], 0));
    let (signal, drain) = drain::channel();
    let proxy = Proxy::builder(view).drain(drain.clone()).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        proxy.serve(stream, peer).await;
    });

    let mut client = TcpStream::connect(addr).await.unwrap();
    let handshake = "GET /?ws-user-id=ada HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(handshake.as_bytes()).await.unwrap();
    let (leg, _) = timeout(PATIENCE, node.accept()).await.unwrap().unwrap();
    // The node has been dialed and says nothing yet.
    signal.begin(Duration::from_secs(3600));
    let empty = tokio::spawn(async move { drain.empty().await });
    tokio::task::yield_now().await;
    assert!(!empty.is_finished(), "somebody waits for an answer");

    tokio::spawn(accept_async(leg));
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    timeout(PATIENCE, empty).await.expect("nobody is left").unwrap();
}
