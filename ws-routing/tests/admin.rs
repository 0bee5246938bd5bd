//! The admin port over a socket.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "proxy")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
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
    view: View,
    readiness: Readiness,
    signal: drain::Signal,
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
    Running { addr, writer, view, readiness, signal, stop, server }
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
    let mut running = start(|_| Routes::new());
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
async fn members_are_streamed_to_whoever_follows() {
    let mut running = start(|_| Routes::new());
    let latch = running.readiness.latch("members");
    let released = tokio::spawn(admin::release_on_members(running.view.clone(), latch));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(b"GET /v1/members/-/- HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    running.writer.publish(two_nodes());
    let mut answer = String::new();
    while !answer.contains("10.0.0.2:7400") {
        let mut some = [0; 1024];
        let n = stream.read(&mut some).await.unwrap();
        assert_ne!(n, 0, "ended after {answer}");
        answer.push_str(std::str::from_utf8(&some[..n]).unwrap());
    }
    assert!(answer.contains("application/x-ndjson"), "{answer}");
    released.await.unwrap();
    assert_eq!(running.get("/readyz").await.0, 200);
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
async fn a_call_under_way_is_still_answered_when_the_port_closes() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let running = start({
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        move |_| {
            Routes::new().get("/wait", move |_| {
                let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
                async move {
                    asked.notify_one();
                    go.notified().await;
                    Ok(answer("text/plain", "waited\n"))
                }
            })
        }
    });
    let mut idle = TcpStream::connect(running.addr).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();
    let close = async {
        asked.notified().await;
        running.stop.cancel();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        go.notify_one();
    };
    let (waited, ()) = tokio::join!(running.get("/wait"), close);
    assert_eq!(waited, (200, "waited\n".into()));
    running.server.await.unwrap();
}
