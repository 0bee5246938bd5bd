//! An application behind NATS. Skipped, with a word, where there is no `nats-server`.
#![cfg(feature = "nats")]
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations, dead_code)]

#[path = "nats/app.rs"]
mod app;
#[path = "nats/moves.rs"]
mod moves;
#[path = "http_app/pod.rs"]
mod pod;
#[path = "nats/server.rs"]
mod server;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use app::{Answer, Event, NatsApp, echo, status};
use futures_util::{SinkExt as _, StreamExt as _};
use pod::{PATIENCE, Pod, until};
use server::Server;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::CloseFrame},
};
use ws_routing::{
    app::{App, NatsSettings},
    membership::View,
    metrics::Metrics,
    proxy::Settings,
};

type Socket = WebSocketStream<TcpStream>;

async fn pod(server: SocketAddr, settings: NatsSettings, view: Option<View>) -> Pod {
    let url: ws_routing::app::NatsUrl = format!("nats://{server}/chat").parse().unwrap();
    let (_, metrics) = Metrics::for_sidecar("test");
    // The node's name is told to the application, and tells nothing here.
    let node = "127.0.0.1:1".parse().unwrap();
    let app = ws_routing::app::NatsApp::new(url, node, settings, metrics).await.unwrap();
    Pod::start_app(|_, _| Arc::new(app) as Arc<dyn App>, view, Settings::default(), None).await
}

async fn next(socket: &mut Socket) -> Message {
    timeout(PATIENCE, socket.next()).await.expect("silence").unwrap().unwrap()
}

#[tokio::test]
async fn a_connection_is_a_row_of_events() {
    let Some(server) = Server::start().await else { return };
    let app = NatsApp::start(server.addr, echo).await;
    let pod = pod(server.addr, NatsSettings::default(), None).await;
    let mut client = pod.client("a.b c>*", &[("cookie", "session=1"), ("ce-id", "forged")]).await;
    client.send(Message::text("hé")).await.unwrap();
    assert_eq!(next(&mut client).await, Message::text("hé"));
    client.send(Message::binary(vec![0xff, 0])).await.unwrap();
    assert_eq!(next(&mut client).await, Message::binary(vec![0xff, 0]));
    app.push("a%2Eb%20c%3E%2A", "pushed").await;
    assert_eq!(next(&mut client).await, Message::text("pushed"));
    client.close(Some(CloseFrame { code: 4001.into(), reason: "good bye".into() })).await.unwrap();
    until("a disconnect", || app.of("disconnect").len() == 1).await;

    let connect = &app.of("connect")[0];
    let connection = connect.header("ce-connectionid");
    assert!(!connection.is_empty());
    assert_eq!(connect.header("cookie"), "session=1");
    assert_eq!(connect.header("ce-target"), "/chat?room=1");
    assert_eq!(connect.header("ws-routing-key"), "a.b%20c%3E%2A");
    let seen = ["connect", "message", "disconnect"].map(|kind| app.of(kind)).concat();
    assert_eq!(seen.len(), 4);
    for (number, event) in seen.iter().enumerate() {
        assert_eq!(event.subject, "chat.in.a%2Eb%20c%3E%2A");
        assert_eq!(event.header("ce-specversion"), "1.0");
        assert_eq!(event.header("ce-source"), "127.0.0.1:1");
        assert_eq!(event.header("ce-subject"), "a.b%20c>*");
        assert_eq!(event.header("ce-connectionid"), connection);
        assert_eq!(event.header("ce-sequence"), number.to_string());
        assert_eq!(event.header("ce-id"), format!("{connection}/{number}"));
    }
    assert_eq!(seen[1].header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(seen[2].header("content-type"), "application/octet-stream");
    assert_eq!((seen[3].header("ce-code"), seen[3].header("ce-reason")), ("4001", "good%20bye"));
}

#[tokio::test]
async fn a_push_is_for_every_connection_of_its_key_or_for_one() {
    let Some(server) = Server::start().await else { return };
    let app = NatsApp::start(server.addr, echo).await;
    let pod = pod(server.addr, NatsSettings::default(), None).await;
    let (mut first, mut second) = (pod.client("k", &[]).await, pod.client("k", &[]).await);
    app.push("other", "not for them").await;
    app.push("k", "for both").await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-connectionid", app.of("connect")[1].header("ce-connectionid"));
    headers.insert("content-type", "application/octet-stream");
    app.client.publish_with_headers("chat.out.k", headers, "for one".into()).await.unwrap();
    app.push("k", "for both again").await;
    for expected in [Message::text("for both"), Message::text("for both again")] {
        assert_eq!(next(&mut first).await, expected);
    }
    for expected in [Message::text("for both"), Message::binary("for one"), Message::text("for both again")] {
        assert_eq!(next(&mut second).await, expected);
    }
}

#[tokio::test]
async fn a_refused_connect_is_the_clients_answer_and_nobody_there_is_the_sidecars() {
    let Some(server) = Server::start().await else { return };
    let pod = pod(server.addr, NatsSettings::default(), None).await;
    let (head, _) = pod.leg("ws-routing-key: k\r\n").await.answer().await;
    assert!(head.starts_with("http/1.1 502 ") && head.contains("ws-routing-error"), "{head}");
    let _app = NatsApp::start(server.addr, |_| status(403, "not you")).await;
    let (head, body) = pod.leg("ws-routing-key: k\r\n").await.answer().await;
    assert!(head.starts_with("http/1.1 403 ") && !head.contains("ws-routing-error"), "{head}");
    assert_eq!(body, "not you");
}

/// Fails three times at each message that says so.
fn reluctant() -> impl Fn(&Event) -> Answer {
    let failures = std::sync::atomic::AtomicUsize::new(0);
    move |event| match event.kind() {
        "message" if event.payload == b"bad" => status(422, "no"),
        "message" if event.payload == b"gone" => status(410, ""),
        "message" if event.payload == b"again" => {
            let failures = failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if failures < 3 { status(503, "") } else { echo(event) }
        }
        _ => echo(event),
    }
}

#[tokio::test]
async fn an_answer_means_what_it_means_over_http() {
    let Some(server) = Server::start().await else { return };
    let app = NatsApp::start(server.addr, reluctant()).await;
    let pod = pod(server.addr, NatsSettings::default(), None).await;
    let mut client = pod.client("k", &[]).await;
    for word in ["bad", "again", "last", "gone"] {
        client.send(Message::text(word)).await.unwrap();
    }
    assert_eq!(next(&mut client).await, Message::text("again"));
    assert_eq!(next(&mut client).await, Message::text("last"));
    let Message::Close(Some(close)) = next(&mut client).await else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1000);
    let ids: Vec<String> = app.of("message").iter().map(|event| event.header("ce-id").into()).collect();
    assert_eq!(ids.len(), 7);
    assert!(ids[1..5].iter().all(|id| *id == ids[1]), "{ids:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_has_cost_nothing() {
    let Some(mut server) = Server::start().await else { return };
    let app = NatsApp::start(server.addr, echo).await;
    let pod = pod(server.addr, NatsSettings::default(), None).await;
    let (mut sink, mut stream) = pod.client("k", &[]).await.split();
    let mut idle = pod.client("idle", &[]).await;
    for round in 0..3 {
        for n in 0..20 {
            sink.send(Message::text(format!("{round} {n}"))).await.unwrap();
            if n == 10 {
                server.kill();
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.restart().await;
        for n in 0..20 {
            let answered = timeout(PATIENCE, stream.next()).await.expect("silence").unwrap().unwrap();
            assert_eq!(answered, Message::text(format!("{round} {n}")));
        }
    }
    // What is pushed while nobody listens is lost: again until it comes.
    let pushed = async {
        loop {
            app.push("idle", "still here").await;
            if timeout(Duration::from_millis(50), idle.next()).await.is_ok() {
                break;
            }
        }
    };
    timeout(PATIENCE, pushed).await.expect("nothing is pushed any more");
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_application_that_is_lost() {
    let Some(mut server) = Server::start().await else { return };
    let _app = NatsApp::start(server.addr, echo).await;
    let settings = NatsSettings {
        retry: Duration::from_millis(300),
        dial_timeout: Duration::from_millis(100),
        ..NatsSettings::default()
    };
    let pod = pod(server.addr, settings, None).await;
    let mut client = pod.client("k", &[]).await;
    let mut leg =
        pod.leg("ws-routing-key: k\r\nws-routing-nonce: 0123456789abcdef\r\n").await.accepted().await;
    server.kill();
    assert_eq!(leg.frame().await, None, "a balancer's leg is cut, so that it is moved");
    let Message::Close(Some(close)) = next(&mut client).await else { panic!("no close") };
    assert_eq!(u16::from(close.code), 1011, "a client of its own is told");
    let (head, _) = pod.leg("ws-routing-key: k\r\n").await.answer().await;
    assert!(head.contains("ws-routing-error"), "{head}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_costs_nobody() {
    let Some(server) = Server::start().await else { return };
    let app = NatsApp::start(server.addr, echo).await;
    let settings = NatsSettings { max_message: 256 * 1024, ..NatsSettings::default() };
    let pod = pod(server.addr, settings, None).await;
    let (mut slow, mut other) = (pod.client("slow", &[]).await, pod.client("other", &[]).await);
    let big = "x".repeat(64 * 1024);
    let mut pushed = 0;
    // Kernel buffers take some megabytes first.
    while app.of("disconnect").is_empty() {
        app.push("slow", big.clone()).await;
        pushed += 1;
        assert!(pushed < 2000, "more waits than is bounded");
        other.send(Message::text("quick")).await.unwrap();
        assert_eq!(next(&mut other).await, Message::text("quick"));
    }
    assert_eq!(app.of("disconnect")[0].header("ce-subject"), "slow");
    loop {
        match next(&mut slow).await {
            Message::Text(text) => assert_eq!(text.len(), big.len()),
            Message::Close(Some(close)) => {
                assert_eq!(u16::from(close.code), 1008);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}
