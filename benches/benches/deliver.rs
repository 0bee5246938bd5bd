//! Sends through one sidecar and through a pair, beside a bare hyper POST that ends in a tungstenite write, in one run.
//!
//! `cargo bench -p benches --bench deliver`. Callers, sidecars, application and clients share one process and its
//! cores. Each caller waits for its answer before it sends again; `ack=written`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc};

use futures_util::SinkExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming};
use support::{CALLERS, Pod, Rate, handshake, http_server, post, rate, read_all, silent_app};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};
use ws_routing::{Key, Members, Node, app::WebSocketApp};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (bare, bare_keys) = bare().await;
        let app = silent_app().await;
        let url = move || Arc::new(format!("ws://{app}").parse::<WebSocketApp>().unwrap());
        let [first, second] = Pod::ring(move |_, _| url()).await;
        let keys = connected(&first, &second).await;
        let (mut posts, mut singles, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        // Alternating, so that a noisy moment does not meet one of them only.
        for _ in 0..3 {
            posts.push(sends(bare, &bare_keys).await);
            singles.push(sends(first.api, &keys).await);
            pairs.push(sends(second.api, &keys).await);
        }
        let bare = Rate::median(&posts);
        println!("{}", bare.line("bare POST and write", bare));
        println!("{}", Rate::median(&singles).line("through one sidecar", bare));
        println!("{}", Rate::median(&pairs).line("through a pair", bare));
    });
}

/// How many sends a second the callers make at `api`, each to a key of its own.
async fn sends(api: SocketAddr, keys: &[String]) -> Rate {
    rate(|n, count| post(api, format!("/v1/keys/{}/messages", keys[n]), count, drop)).await
}

/// A key for each caller, all of the first node and connected there.
async fn connected(first: &Pod, second: &Pod) -> Vec<String> {
    let members = Members::new([first.addr, second.addr].map(|addr| Node::new(addr.into())), 0);
    let owned = |key: &String| members.owner(&Key::new(key).unwrap()).unwrap().id == first.addr.into();
    let keys: Vec<String> = (0..).map(|n| format!("k{n}")).filter(owned).take(CALLERS).collect();
    for key in &keys {
        tokio::spawn(read_all(handshake(first.addr, &format!("ws-routing-key: {key}\r\n")).await));
    }
    keys
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// What a server does without all this: a POST, a map from key to socket, a write.
async fn bare() -> (SocketAddr, Vec<String>) {
    let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, keys) = (sockets.local_addr().unwrap(), (0..CALLERS).map(|n| format!("k{n}")));
    let keys: Vec<String> = keys.collect();
    let mut map: HashMap<String, Mutex<Socket>> = HashMap::new();
    for key in &keys {
        let client = tokio::spawn(handshake(addr, ""));
        let (io, _) = sockets.accept().await.unwrap();
        io.set_nodelay(true).unwrap();
        map.insert(key.clone(), Mutex::new(accept_async(io).await.unwrap()));
        tokio::spawn(read_all(client.await.unwrap()));
    }
    let map = Arc::new(map);
    (http_server(move |request| write(Arc::clone(&map), request)).await, keys)
}

async fn write(
    map: Arc<HashMap<String, Mutex<Socket>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let key = request.uri().path().split('/').nth(3).unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    map[&key].lock().await.send(Message::text(text)).await.unwrap();
    Ok(Response::new(Full::new(Bytes::from_static(b"{\"delivered\":1}\n"))))
}
