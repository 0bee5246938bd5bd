//! Messages that name another key reach that key's app on its connection.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;
use ws_routing::{app::HttpSettings, frame::Opcode, proxy::Settings};

use crate::{
    app::{Answer, HttpApp, Request},
    pod::{Pod, until},
};

async fn start(app: &HttpApp) -> Pod {
    Pod::start_with(app.addr, HttpSettings::default(), Settings::default(), Some("recipientId")).await
}

fn told(request: &Request) -> (&str, &str) {
    (request.header("ce-subject"), request.text())
}

#[tokio::test]
async fn a_message_that_names_a_recipient_is_delivered_as_if_that_client_had_sent_it() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = start(&app).await;
    let (mut alice, mut bob) = (pod.client("alice", &[]).await, pod.client("bob", &[]).await);
    let hello = r#"{"recipientId":"bob","text":"hello"}"#;
    alice.send(Message::text(hello)).await.unwrap();
    assert_eq!(bob.next().await.unwrap().unwrap(), Message::text(hello), "the echo of bob's app");
    bob.send(Message::text("mine")).await.unwrap();
    assert_eq!(bob.next().await.unwrap().unwrap(), Message::text("mine"));
    let messages = app.of("message");
    assert_eq!(messages.iter().map(told).collect::<Vec<_>>(), [("bob", hello), ("bob", "mine")]);
    assert_eq!(messages[0].header("ce-sequence"), "");
    assert!(!messages[0].header("ce-id").is_empty());
    assert_eq!(messages[1].header("ce-sequence"), "1", "bob's own count goes on");
}

#[tokio::test]
async fn other_messages_go_to_the_app_as_usual() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = start(&app).await;
    let mut alice = pod.client("alice", &[]).await;
    for text in ["hello", "{", "[1]", r#"{"recipientId":7}"#, r#"{"recipientId":""}"#, r#"{"other":"bob"}"#] {
        alice.send(Message::text(text)).await.unwrap();
        assert_eq!(alice.next().await.unwrap().unwrap(), Message::text(text));
    }
    let binary = Message::binary(br#"{"recipientId":"bob"}"#.to_vec());
    alice.send(binary.clone()).await.unwrap();
    assert_eq!(alice.next().await.unwrap().unwrap(), binary);
}

#[tokio::test]
async fn an_unknown_recipient_is_told_to_the_senders_app() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = start(&app).await;
    let mut alice = pod.client("alice", &[]).await;
    alice.send(Message::text(r#"{"recipientId":"nobody"}"#)).await.unwrap();
    let report = r#"{"error":"not-connected","recipient":"nobody"}"#;
    assert_eq!(alice.next().await.unwrap().unwrap(), Message::text(report), "the echo of alice's app");
    alice.send(Message::text("next")).await.unwrap();
    assert_eq!(alice.next().await.unwrap().unwrap(), Message::text("next"));
    let messages = app.of("message");
    assert_eq!(messages.iter().map(told).collect::<Vec<_>>(), [("alice", report), ("alice", "next")]);
    assert_eq!(messages[0].header("ce-sequence"), "");
    assert_eq!(messages[1].header("ce-sequence"), "2", "the balancer counts every message");
    alice.close(None).await.unwrap();
    until("a disconnect", || app.of("disconnect").len() == 1).await;
}

#[tokio::test]
async fn a_message_over_the_limit_closes_its_sender() {
    let app = HttpApp::start("127.0.0.1:0", Answer::echo).await;
    let pod = start(&app).await;
    let mut leg = pod.leg("ws-routing-key: k\r\n").await.accepted().await;
    leg.send(Opcode::Text, b"before").await;
    assert_eq!(leg.frame().await.unwrap(), (Opcode::Text, b"before".to_vec()));
    leg.send(Opcode::Text, b"\xff").await;
    let (opcode, payload) = leg.frame().await.unwrap();
    assert_eq!((opcode, &payload[..2]), (Opcode::Close, &1007_u16.to_be_bytes()[..]));
}
