//! The proxy as a service of an axum app: beside the app's own routes, with the clients' addresses, through a move.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, clippy::result_large_err)] // tungstenite's callback

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo, middleware, routing::get};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    accept_hdr_async, client_async,
    tungstenite::{Message, handshake::server},
};
use ws_routing::{
    Members, Node, membership,
    proxy::{ClientAddr, Proxy},
};

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that answers every text with its own address and the client's.
async fn node() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = String::new();
                let read = |request: &server::Request, response: server::Response| {
                    client = request.headers()["x-forwarded-for"].to_str().unwrap().to_owned();
                    Ok(response)
                };
                let mut socket = accept_hdr_async(stream, read).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(Message::text(format!("{addr} {client}"))).await.unwrap();
                    }
                }
            });
        }
    });
    addr
}

/// An app with a page of its own, and the proxy under `/ws`.
async fn app(proxy: Proxy) -> SocketAddr {
    let who = middleware::map_request(
        |ConnectInfo(addr): ConnectInfo<SocketAddr>, mut request: axum::extract::Request| async move {
            request.extensions_mut().insert(ClientAddr(addr));
            request
        },
    );
    let router = Router::new()
        .route_service("/ws", proxy)
        .layer(who)
        .route("/", get(|| async { "the app's own page" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    addr
}

async fn page(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn an_axum_app_routes_and_moves_websockets() {
    let (old, new) = (node().await, node().await);
    let (mut writer, view) = membership::channel(0);
    let only = |addr: SocketAddr| Members::new([Node::new(addr.into())], 0);
    writer.publish(only(old));
    let proxy = Proxy::builder(view).build();
    let moves = proxy.clone();
    tokio::spawn(async move { moves.run().await });
    let addr = app(proxy).await;

    let stream = TcpStream::connect(addr).await.unwrap();
    let client = stream.local_addr().unwrap().ip();
    let (mut socket, _) = client_async(format!("ws://{addr}/ws?ws-user-id=ada"), stream).await.unwrap();
    let mut ask = async || {
        socket.send(Message::text("who?")).await.unwrap();
        timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap().into_text().unwrap().to_string()
    };
    assert_eq!(ask().await, format!("{old} {client}"));
    writer.publish(only(new));
    let moved = async { while ask().await != format!("{new} {client}") {} };
    timeout(PATIENCE, moved).await.expect("it moves");

    assert!(page(addr, "/").await.ends_with("the app's own page"));
    let refused = page(addr, "/ws").await;
    assert!(refused.starts_with("HTTP/1.1 426 "), "{refused}");
}
