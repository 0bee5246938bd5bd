//! A connection's future belongs to no task: it may be polled in one, and then in another.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};
use ws_routing::{Members, Node, membership, proxy::Proxy};

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that answers every text with its own address, and says when it was joined.
async fn node(joined: mpsc::UnboundedSender<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let joined = joined.clone();
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                joined.send(addr).unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(Message::text(addr.to_string())).await.unwrap();
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn another_task_is_woken_by_bytes_and_by_moves() {
    let (joins, mut joined) = mpsc::unbounded_channel();
    let (old, new) = (node(joins.clone()).await, node(joins).await);
    let (mut writer, view) = membership::channel(0);
    let only = |addr: SocketAddr| Members::new([Node::new(addr.into())], 0);
    writer.publish(only(old));
    let proxy = Proxy::builder(view).build();
    let moves = proxy.clone();
    tokio::spawn(async move { moves.run().await });

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (hand_over, handed) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let mut serving = Box::pin(proxy.serve(stream, peer));
        tokio::select! {
            () = &mut serving => panic!("it ended"),
            _ = handed => {}
        }
        tokio::spawn(serving).await
    });

    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{addr}/?ws-user-id=ada"), stream).await.unwrap();
    let mut ask = async || {
        socket.send(Message::text("who?")).await.unwrap();
        timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap().into_text().unwrap().to_string()
    };
    assert_eq!(ask().await, old.to_string());
    hand_over.send(()).unwrap();
    assert_eq!(ask().await, old.to_string());
    assert_eq!(ask().await, old.to_string());
    assert_eq!(joined.recv().await, Some(old));
    // The client says nothing: what tells the task is the move.
    writer.publish(only(new));
    assert_eq!(timeout(PATIENCE, joined.recv()).await.unwrap(), Some(new));
    let moved = async { while ask().await != new.to_string() {} };
    timeout(PATIENCE, moved).await.expect("it moves");
}
