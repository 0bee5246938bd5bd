//! Messages between clients, by a field that names the recipient.
#![allow(clippy::unwrap_used)]

mod support;

use futures_util::{SinkExt as _, StreamExt as _};
use support::{
    Setup,
    client::{Socket, key, open},
    wait::{bounded, secs},
};
use tokio_tungstenite::tungstenite::Message;

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

async fn hear(socket: &mut Socket) -> Message {
    loop {
        match bounded(secs(20), "a message", socket.next()).await.unwrap().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_recipients_app_at_another_pod_and_over_a_move() {
    let mut cluster = Setup::sidecars(2).sidecar(&["--route-field", "recipientId"]).start().await;
    let (alice, bob) = (cluster.client_of(1, 0), cluster.mover(2, 1, &[1]));
    let mut sockets = Vec::new();
    for id in [alice, bob] {
        let headers = [
            ("ws-user-id", key(id)),
            ("x-client", id.to_string()),
            ("sec-websocket-extensions", "permessage-deflate".into()),
        ];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let (socket, answer) = open(cluster.addr(), "/", &headers).await.unwrap();
        assert!(!answer.headers().contains_key("sec-websocket-extensions"));
        sockets.push(socket);
    }
    let mut bobs = sockets.pop().unwrap();
    let mut alices = sockets.pop().unwrap();

    for n in 0..20 {
        let hello = format!(r#"{{"recipientId":"{}","n":{n}}}"#, key(bob));
        say(&mut alices, &hello).await;
        assert_eq!(hear(&mut bobs).await, Message::text(hello.as_str()), "the echo of bob's app");
        match n {
            // Bob goes to alice's pod.
            5 => cluster.drain(2),
            10 => cluster.settled([alice, bob].into_iter(), secs(20)).await,
            _ => {}
        }
    }
    say(&mut alices, "mine").await;
    assert_eq!(hear(&mut alices).await, Message::text("mine"));
    say(&mut alices, r#"{"recipientId":"nobody"}"#).await;
    let report = r#"{"error":"not-connected","recipient":"nobody"}"#;
    assert_eq!(hear(&mut alices).await, Message::text(report));
    alices.close(None).await.unwrap();
    assert!(matches!(hear(&mut alices).await, Message::Close(_)));
}
