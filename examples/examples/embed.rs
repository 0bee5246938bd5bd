//! Shows: a balancer inside a program that has an HTTP server already. `Proxy` is a tower service: here hyper serves it
//! beside a page of the program's own; axum takes it just so, as `Router::new().route_service("/ws", proxy)`.
//!
//! ```sh
//! cargo run -p examples --example embed -- 127.0.0.1:8090 static:127.0.0.1:7400,127.0.0.2:7400
//! ```
//!
//! WebSockets of `/ws` go to the node that owns `?ws-user-id=…`; everything else is answered here. The nodes are
//! sidecars, or plain WebSocket servers. `cargo test -p examples --test embed` runs it with real clients.

use std::{convert::Infallible, env, net::SocketAddr};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use tower_service::Service;
use ws_routing::{
    membership::{self, FollowOptions, MembersUri},
    proxy::{Body, ClientAddr, Proxy},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:8090".into());
    let members: MembersUri = arguments.next().unwrap_or_else(|| "static:127.0.0.1:7400".into()).parse()?;

    // Who the members are: a source is followed into a view.
    let source = members.open(0).await?;
    let (writer, view) = membership::channel(0);
    let mut parts = JoinSet::new();
    parts.spawn(membership::follow(source, writer, FollowOptions::default()));

    // The proxy: a service for handshakes, and a future that has connections move.
    let proxy = Proxy::builder(view).build();
    let moving = proxy.clone();
    parts.spawn(async move { moving.run().await });

    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let proxy = proxy.clone();
        parts.spawn(async move {
            let service = service_fn(move |request| answer(proxy.clone(), peer, request));
            // WebSockets are upgrades: without this none would pass.
            let served =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            if let Err(error) = served.await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

async fn answer(
    mut proxy: Proxy,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/ws" {
        request.extensions_mut().insert(ClientAddr(peer));
        return proxy.call(request).await;
    }
    let page = Full::new("a page of the program's own\n".into());
    Ok(Response::new(page.map_err(|never: Infallible| match never {}).boxed_unsync()))
}
