//! An application behind HTTP: what it is asked, and what becomes of what it answers.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations)]

#[path = "http_app/app.rs"]
mod app;
#[path = "http_app/misbehaviour.rs"]
mod misbehaviour;
#[path = "http_app/moves.rs"]
mod moves;
#[path = "http_app/pod.rs"]
mod pod;
#[path = "http_app/route_field.rs"]
mod route_field;

use std::sync::atomic::{AtomicUsize, Ordering};

use app::{Answer, HttpApp};
use futures_util::{SinkExt as _, StreamExt as _};
use pod::{Pod, until};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};
use ws_routing::{app::HttpSettings, metrics::AppRequest};

#[tokio::test]
async fn a_connection_is_a_row_of_events() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut client = pod.client("a b/ü", &[("cookie", "session=1"), ("ce-id", "forged")]).await;
    client.send(Message::text("hé")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("hé"));
    client.send(Message::binary(vec![0xff, 0])).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![0xff, 0]));
    client.close(Some(CloseFrame { code: 4001.into(), reason: "good bye".into() })).await.unwrap();
    until("a disconnect", || app.of("disconnect").len() == 1).await;

    let seen = app.seen();
    let kinds: Vec<&str> = seen.iter().map(|request| request.kind()).collect();
    assert_eq!(kinds, ["connect", "message", "message", "disconnect"]);
    let connection = seen[0].header("ce-connectionid");
    assert!(!connection.is_empty());
    for (number, request) in seen.iter().enumerate() {
        assert_eq!(request.line, "POST /events HTTP/1.1");
        assert_eq!(request.header("host"), app.addr.to_string());
        assert_eq!(request.header("ce-specversion"), "1.0");
        assert_eq!(request.header("ce-source"), pod.addr.to_string());
        assert_eq!(request.header("ce-subject"), "a%20b/%C3%BC");
        assert_eq!(request.header("ce-connectionid"), connection);
        assert_eq!(request.header("ce-sequence"), number.to_string());
        assert_eq!(request.header("ce-id"), format!("{connection}/{number}"));
        assert!(request.header("ce-time").ends_with('Z'));
        assert_eq!(request.header("ce-redelivered"), "");
        assert_eq!(request.connection, 0, "one connection serves them all");
    }
    assert_eq!(seen[0].header("cookie"), "session=1");
    assert_eq!(seen[0].header("ce-target"), "/chat?room=1");
    assert_eq!(seen[0].header("ws-routing-key"), "a%20b%2F%C3%BC");
    assert_eq!(seen[1].header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(seen[1].text(), "hé");
    assert_eq!(seen[2].header("content-type"), "application/octet-stream");
    assert_eq!(seen[3].header("ce-code"), "4001");
    assert_eq!(seen[3].header("ce-reason"), "good%20bye");
}

#[tokio::test]
async fn a_client_that_vanishes_is_told_of_too() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    drop(pod.leg("ws-routing-key: k\r\n").await.accepted().await);
    until("a disconnect", || app.of("disconnect").len() == 1).await;
    assert_eq!(app.of("disconnect")[0].header("ce-code"), "1006");
}

#[tokio::test]
async fn messages_are_answered_one_by_one_and_in_order() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let (mut sink, mut stream) = pod.client("k", &[]).await.split();
    for n in 0..200 {
        sink.send(Message::text(n.to_string())).await.unwrap();
    }
    for n in 0..200 {
        assert_eq!(stream.next().await.unwrap().unwrap(), Message::text(n.to_string()));
    }
    assert_eq!(pod.metrics.app_requests(AppRequest::Message, Some(200)).get(), 200);
}

#[tokio::test]
async fn a_message_is_handed_over_again_until_it_is_taken() {
    let failures = AtomicUsize::new(0);
    let app = HttpApp::start("127.0.0.1:0", move |request| match request.text() {
        "second" if failures.fetch_add(1, Ordering::Relaxed) < 3 => Answer::status(503),
        _ => Answer::echo(request),
    })
    .await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut client = pod.client("k", &[]).await;
    for word in ["first", "second", "third"] {
        client.send(Message::text(word)).await.unwrap();
    }
    for word in ["first", "second", "third"] {
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(word));
    }
    let ids: Vec<String> = app.of("message").iter().map(|request| request.header("ce-id").into()).collect();
    assert_eq!(ids.len(), 6);
    assert!(ids[1..5].iter().all(|id| *id == ids[1]), "{ids:?}");
}

#[tokio::test]
async fn a_drop_in_between_answers_nothing() {
    let app = HttpApp::start("127.0.0.1:0", |request| match (request.kind(), request.text()) {
        ("message", "bad") => Answer::with(422, "", b"no"),
        ("message", "quiet") => Answer::status(204),
        ("message", "elsewhere") => Answer::with(302, "Location: http://127.0.0.1:1/\r\n", b"x"),
        _ => Answer::echo(request),
    })
    .await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut client = pod.client("k", &[]).await;
    for word in ["bad", "quiet", "elsewhere", "good"] {
        client.send(Message::text(word)).await.unwrap();
    }
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("good"));
    assert_eq!(pod.metrics.app_requests(AppRequest::Message, Some(422)).get(), 1);
    assert_eq!(pod.metrics.app_requests(AppRequest::Message, Some(302)).get(), 1);
}

#[tokio::test]
async fn a_refused_connect_is_the_clients_answer() {
    let app = HttpApp::start("127.0.0.1:0", |_| {
        Answer::with(403, "Content-Type: text/plain\r\nX-Why: rule\r\nSet-Cookie: a=b\r\n", b"not you")
    })
    .await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut leg = pod.leg("ws-routing-key: k\r\n").await;
    let (head, body) = leg.answer().await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
    assert!(head.contains("x-why: rule") && head.contains("set-cookie: a=b"), "{head}");
    assert!(!head.contains("ws-routing-error"), "{head}");
    assert_eq!(body, "not you");
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_subprotocol_must_have_been_offered_and_no_extension_is_agreed() {
    let app = HttpApp::start("127.0.0.1:0", |request| {
        assert_eq!(request.header("sec-websocket-protocol"), "v1, v2");
        let (_, chosen) = request.header("ce-target").split_once('=').unwrap();
        Answer::with(200, &format!("Sec-WebSocket-Protocol: {chosen}\r\nSet-Cookie: a=b\r\n"), b"hello")
    })
    .await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let offered = "ws-routing-key: k\r\nSec-WebSocket-Protocol: v1, v2\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for (chosen, status) in [("v2", "101"), ("v3", "502")] {
        let mut leg = pod.leg_at(&format!("/?p={chosen}"), offered).await;
        let (head, _) = leg.answer().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        assert_eq!(head.contains("sec-websocket-protocol: v2\r\n"), status == "101", "{head}");
        assert_eq!(head.contains("set-cookie: a=b\r\n"), status == "101", "{head}");
    }
}

#[tokio::test]
async fn what_no_message_may_be_closes() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let settings = HttpSettings { max_message: 100, ..HttpSettings::default() };
    let pod = Pod::start(app.addr, settings).await;
    for (opcode, payload, code) in [
        (ws_routing::frame::Opcode::Text, &b"\xff"[..], 1007_u16),
        (ws_routing::frame::Opcode::Binary, &[0; 101], 1009),
    ] {
        let mut leg = pod.leg("ws-routing-key: k\r\n").await.accepted().await;
        leg.send(opcode, payload).await;
        let (opcode, payload) = leg.frame().await.unwrap();
        assert_eq!((opcode, &payload[..2]), (ws_routing::frame::Opcode::Close, &code.to_be_bytes()[..]));
    }
    assert!(app.of("message").is_empty());
    until("two disconnects", || app.of("disconnect").len() == 2).await;
}

#[tokio::test]
async fn idle_connections_that_have_died_are_replaced_unseen() {
    let app = HttpApp::start("127.0.0.1:0", |request| match Answer::echo(request) {
        // It says that the connection persists, and cuts it.
        Answer::Say(bytes) => Answer::Cut(bytes),
        other => other,
    })
    .await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut client = pod.client("k", &[]).await;
    for n in 0..20 {
        client.send(Message::text(n.to_string())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(n.to_string()));
    }
    assert_eq!(pod.metrics.app_requests(AppRequest::Message, Some(200)).get(), 20);
    assert_eq!(pod.metrics.app_requests(AppRequest::Message, None).get(), 0);
}
