//! Echoes through an application behind HTTP, beside bare POSTs to the same application in the same run.
//!
//! `cargo bench -p benches --bench http_app`. Clients, sidecar and application share one process and its cores: a
//! sidecar's echo is a bare POST, and what it takes to make one of a WebSocket message and back.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming};
use support::{PAYLOAD, Pod, Rate, handshake, http_server, post, rate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ws_routing::{
    app::{HttpApp, HttpSettings},
    frame::{self, Header, Opcode},
};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let app = http_server(answer).await;
        let [pod] = Pod::ring(|node, metrics| {
            let url = format!("http://{app}/").parse().unwrap();
            Arc::new(HttpApp::new(url, node.clone(), HttpSettings::default(), metrics.clone()))
        })
        .await;
        let (mut posts, mut echoes) = (Vec::new(), Vec::new());
        // Alternating, so that a noisy moment does not meet one of them only.
        for _ in 0..3 {
            let same = |body: Bytes| assert_eq!(body, PAYLOAD[..]);
            posts.push(rate(|_, count| post(app, "/".into(), count, same)).await);
            echoes.push(rate(|_, count| echo(pod.addr, count)).await);
        }
        let bare = Rate::median(&posts);
        println!("{}", bare.line("bare POSTs", bare));
        println!("{}", Rate::median(&echoes).line("echoes by the sidecar", bare));
    });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let kind = request.headers().get("content-type").cloned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::new(body));
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    Ok(response)
}

/// Echoes over one balancer's leg.
async fn echo(sidecar: SocketAddr, count: Arc<AtomicU64>) {
    let mut io = handshake(sidecar, "ws-routing-key: k\r\n").await;
    let (mut held, mut message) = (Vec::new(), Vec::new());
    frame::write(&mut message, Opcode::Text, &PAYLOAD, Some([1, 2, 3, 4]));
    loop {
        io.write_all(&message).await.unwrap();
        while Header::parse(&held).unwrap().is_none_or(|h| held.len() < h.size + h.len as usize) {
            assert!(io.read_buf(&mut held).await.unwrap() > 0);
        }
        assert!(held.ends_with(&PAYLOAD));
        held.clear();
        count.fetch_add(1, Ordering::Relaxed);
    }
}
