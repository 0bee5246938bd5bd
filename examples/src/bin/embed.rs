//! A balancer inside a program that has an HTTP server of its own: `/` is answered here, everything under `/ws` is a
//! WebSocket that goes to the node that owns its key, and moves when the members change.
//!
//! ```text
//! cargo run -p examples --bin embed -- 127.0.0.1:8082 static:127.0.0.1:3001,127.0.0.1:3002
//! cargo run -p examples --bin embed -- 127.0.0.1:8082 file:/etc/ws/members
//! ```
//!
//! Nodes are WebSocket servers, with or without a sidecar; clients bring their key as `?ws-user-id=KEY`.
#![allow(clippy::print_stdout)] // it is a program to look at

use std::{convert::Infallible, env, net::SocketAddr};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tower_service::Service as _;
use ws_routing::{
    membership::{self, FollowOptions, MembersUri},
    proxy::{Body, ClientAddr, Proxy},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let listen: SocketAddr = args.next().context("where to listen: IP:PORT")?.parse()?;
    let members: MembersUri = args.next().context("who the members are: a URI, as of --members")?.parse()?;

    // Who the members are, followed for as long as the program runs.
    let (writer, view) = membership::channel(0);
    let following = membership::follow(members.open(0).await?, writer, FollowOptions::default());

    // The proxy does its work in futures that somebody drives: here, moves and probes; below, one for each client.
    let proxy = Proxy::builder(view).build();

    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        () = following => Ok(()),
        () = proxy.run() => Ok(()),
        served = serve(listener, proxy.clone()) => served,
    }
}

/// A plain hyper server. All that the proxy asks of it: `with_upgrades`.
async fn serve(listener: TcpListener, proxy: Proxy) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        // WebSocket messages are small: without this each would wait for the last one's acknowledgement.
        stream.set_nodelay(true)?;
        let proxy = proxy.clone();
        let service = service_fn(move |request| answer(request, peer, proxy.clone()));
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()); // so that a head that never ends is timed out
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    mut proxy: Proxy,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with("/ws") {
        request.extensions_mut().insert(ClientAddr(peer));
        return proxy.call(request).await;
    }
    let page = Full::from("This page is the program's own; WebSockets are under /ws.\n");
    Ok(Response::new(page.map_err(|never| match never {}).boxed_unsync()))
}
