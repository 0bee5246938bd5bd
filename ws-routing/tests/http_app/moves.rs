//! A connection that comes from another node, and one that leaves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ws_routing::{app::HttpSettings, frame::Opcode, proxy::Settings};

use crate::{
    app::{Answer, HttpApp},
    pod::{Pod, ping, until},
};

const NONCE: u64 = 0x0123_4567_89ab_cdef;
const LIVE: u8 = 2;
const SETTLE: u8 = 3;
const CONFIRM: u8 = 4;
const KEEPALIVE: u8 = 1;

fn fields(more: &str) -> String {
    format!(
        "ws-routing-key: k\r\nws-routing-connection: c1\r\nws-routing-sequence: 5\r\n\
         ws-routing-nonce: {NONCE:016x}\r\n{more}"
    )
}

#[tokio::test]
async fn a_moved_connection_goes_on_counting_where_its_live_ping_says() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let moved = fields("ws-routing-moved-from: 10.0.0.9:7400\r\nws-routing-redelivered: 1\r\n");
    let mut leg = pod.leg(&moved).await.accepted().await;
    let connect = &app.of("connect")[0];
    assert_eq!(connect.header("ce-movedfrom"), "10.0.0.9:7400");
    assert_eq!(connect.header("ce-id"), "c1/5");
    leg.send(Opcode::Ping, &ping(NONCE, LIVE, 8)).await;
    leg.send(Opcode::Text, b"again").await;
    leg.send(Opcode::Text, b"new").await;
    let answers = [leg.frame().await, leg.frame().await, leg.frame().await].map(Option::unwrap);
    assert_eq!(answers[0], (Opcode::Pong, ping(NONCE, LIVE, 8)), "answered by the sidecar, once");
    assert_eq!(answers[1], (Opcode::Text, b"again".to_vec()));
    assert_eq!(answers[2], (Opcode::Text, b"new".to_vec()));
    let told: Vec<(String, String)> = app
        .of("message")
        .iter()
        .map(|request| (request.header("ce-id").into(), request.header("ce-redelivered").into()))
        .collect();
    assert_eq!(told, [("c1/9".into(), "true".into()), ("c1/10".into(), String::new())]);
}

#[tokio::test]
async fn a_connection_that_moved_away_is_no_disconnect() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut leg = pod.leg(&fields("")).await.accepted().await;
    let reason = format!("{NONCE:016x} 10.0.0.2:7400");
    leg.send(Opcode::Close, &[&1001_u16.to_be_bytes()[..], reason.as_bytes()].concat()).await;
    assert_eq!(leg.frame().await.unwrap().0, Opcode::Close);
    assert_eq!(leg.frame().await, None);
    // The next connection's disconnect comes alone.
    drop(pod.leg("ws-routing-key: other\r\n").await.accepted().await);
    until("a disconnect", || !app.of("disconnect").is_empty()).await;
    assert_eq!(app.of("disconnect")[0].header("ce-subject"), "other");
}

#[tokio::test]
async fn a_settle_ping_waits_for_the_open_request_and_a_keepalive_ping_does_not() {
    let held = Arc::new(AtomicBool::new(true));
    let holds = Arc::clone(&held);
    let app = HttpApp::start("127.0.0.1:0", move |request| match request.kind() {
        "message" if holds.load(Ordering::Relaxed) => Answer::status(503),
        _ => Answer::echo(request),
    })
    .await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut leg = pod.leg(&fields("")).await.accepted().await;
    leg.send(Opcode::Text, b"slow").await;
    leg.send(Opcode::Ping, &ping(NONCE, SETTLE, 1)).await;
    leg.send(Opcode::Ping, &ping(NONCE, KEEPALIVE, 1)).await;
    assert_eq!(leg.frame().await.unwrap(), (Opcode::Pong, ping(NONCE, KEEPALIVE, 1)));
    held.store(false, Ordering::Relaxed);
    assert_eq!(leg.frame().await.unwrap(), (Opcode::Text, b"slow".to_vec()));
    assert_eq!(leg.frame().await.unwrap(), (Opcode::Pong, ping(NONCE, SETTLE, 1)));
    leg.send(Opcode::Ping, &ping(NONCE, CONFIRM, 1)).await;
    leg.send(Opcode::Ping, b"the client's").await;
    assert_eq!(leg.frame().await.unwrap(), (Opcode::Pong, ping(NONCE, CONFIRM, 1)));
    assert_eq!(leg.frame().await.unwrap(), (Opcode::Pong, b"the client's".to_vec()));
}

#[tokio::test]
async fn what_a_client_said_before_it_left_is_handed_over() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = Pod::start(app.addr, HttpSettings::default()).await;
    let mut leg = pod.leg("ws-routing-key: k\r\n").await.accepted().await;
    for n in 0..50 {
        leg.send(Opcode::Text, format!("{n}").as_bytes()).await;
    }
    leg.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    drop(leg);
    until("a disconnect", || app.of("disconnect").len() == 1).await;
    assert_eq!(app.of("message").len(), 50);
    assert_eq!(app.seen().last().unwrap().kind(), "disconnect");
}

#[tokio::test]
async fn a_slow_app_is_not_taken_for_a_dead_node() {
    let app = HttpApp::start("127.0.0.1:0", |request| match request.kind() {
        "message" => Answer::Hang,
        _ => Answer::echo(request),
    })
    .await;
    let relay = Settings { ping_interval: Duration::from_millis(50), ..Settings::default() };
    let pod = Pod::start_with(app.addr, HttpSettings::default(), relay, None).await;
    let mut leg = pod.leg(&fields("")).await.accepted().await;
    // More than the sidecar takes while the app is busy: a ping behind it lies unread.
    for _ in 0..4 {
        leg.send(Opcode::Binary, &[0; 60_000]).await;
    }
    for _ in 0..3 {
        assert_eq!(leg.frame().await.unwrap(), (Opcode::Pong, ping(NONCE, KEEPALIVE, u64::MAX)));
    }
}
