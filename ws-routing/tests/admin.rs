//! The admin port over a socket.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "proxy")]

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use ws_routing::{
    Members, Node,
    admin::{self, Admin, Readiness, Routes, answer},
    drain,
    membership::{self, View, Writer},
    metrics::Metrics,
    serve,
};

struct Running {
    addr: SocketAddr,
    writer: Writer,
    readiness: Readiness,
    signal: drain::Signal,
    drain: drain::Drain,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

fn start(more: impl FnOnce(&View) -> Routes) -> Running {
    let (signal, drain) = drain::channel();
    let (writer, view) = membership::channel(0);
    let (readiness, metrics, stop) =
        (Readiness::new(drain.clone()), Metrics::new("1.2.3"), CancellationToken::new());
    let routes = admin::standard(readiness.clone(), metrics.clone(), view.clone()).merge(more(&view));
    let admin = Admin::new(routes, stop.clone());
    let listener = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn({
        let stop = stop.clone();
        async move {
            let handle = |stream, peer| admin.connection(stream, peer);
            serve::serve(listener, stop.cancelled(), metrics, handle).await;
        }
    });
    Running { addr, writer, readiness, signal, drain, stop, server }
}

impl Running {
    async fn ask(&self, method: &str, target: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let request = format!("{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, target: &str) -> (u16, String) {
        let answer = self.ask("GET", target).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

fn two_nodes() -> Members {
    let nodes = ["10.0.0.1:7400", "10.0.0.2:7400"].map(|id| Node::new(id.parse().unwrap()));
    Members::new(nodes, 0)
}

#[tokio::test]
async fn health_follows_the_latches_and_the_drain() {
    let running = start(|_| Routes::new());
    let latch = running.readiness.latch("members");
    assert_eq!(running.get("/livez").await, (200, "alive\n".into()));
    let (status, body) = running.get("/readyz").await;
    assert!(status == 503 && body.contains("\"missing\":[\"members\"]"), "{body}");
    latch.release();
    assert_eq!(running.get("/readyz").await, (200, "ready\n".into()));
    running.signal.begin(Duration::from_secs(1));
    let (status, body) = running.get("/readyz").await;
    assert!(status == 503 && body.contains("draining"), "{body}");
    assert_eq!(running.get("/livez").await.0, 200);
}

#[tokio::test]
async fn it_tells_the_members_and_owners() {
    let running = start(|_| Routes::new());
    assert_eq!(running.get("/v1/owner/a").await.0, 503);
    let members = two_nodes();
    let owner = members.owner(&"a/b".parse().unwrap()).unwrap().id.to_string();
    let fingerprint = members.fingerprint().to_string();
    running.writer.publish(members);
    let (status, body) = running.get("/v1/members").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["fingerprint"]), (200, &fingerprint.into()));
    assert_eq!(
        body["nodes"][1],
        serde_json::json!({"id": "10.0.0.2:7400", "weight": 100, "zone": null, "state": "ready"})
    );
    let (_, body) = running.get("/v1/owner/a%2Fb?n=5").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["key"], &body["owner"], &body["ranked"][0]),
        (&"a/b".into(), &owner.clone().into(), &owner.into())
    );
    assert_eq!(body["ranked"].as_array().unwrap().len(), 2);
    assert_eq!(running.get("/v1/owner/a?n=0").await.0, 400);
    assert_eq!(running.get("/v1/owner/").await.0, 400);
}

#[tokio::test]
async fn metrics_come_in_both_formats() {
    let running = start(|_| Routes::new());
    let (status, page) = running.get("/metrics").await;
    assert!(status == 200 && page.contains("# TYPE ws_connections_opened_total counter\n"), "{page}");
    let answer = running.ask("HEAD", "/metrics").await;
    assert!(answer.contains("text/plain; version=0.0.4") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(running.ask("POST", "/metrics").await.contains("allow: GET, HEAD\r\n"));
}

#[tokio::test]
async fn a_call_that_waits_is_still_answered_when_the_port_closes() {
    let running = start(|_| {
        Routes::new().get("/wait", |_| async {
            tokio::task::yield_now().await;
            Ok(answer("text/plain", "waited\n"))
        })
    });
    let mut idle = TcpStream::connect(running.addr).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(running.get("/wait").await, (200, "waited\n".into()));
    running.stop.cancel();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    running.server.await.unwrap();
    assert_eq!(running.drain.count(), 0);
}
