//! Messages between clients, by a field that names the recipient.
#![allow(clippy::unwrap_used)]

mod support;

use futures_util::{SinkExt as _, StreamExt as _};
use support::{
    Setup,
    api::Api,
    client::{Socket, key, open},
    eventually,
    range::API,
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

/// How many messages each of two senders has for a recipient whose app stands still, and how long they are: together more
/// than all buffers on their way.
const WAITING: usize = 15;
const LONG: usize = 600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_recipient_cannot_take_now_is_tried_again_until_it_can() {
    let cluster = Setup::sidecars(2).sidecar(&["--route-field", "recipientId"]).start().await;
    let bob = cluster.client_of(2, 0);
    let alice = cluster.client_of(1, 0);
    let carol = cluster.client_of(1, alice + 1);
    let mut sockets = Vec::new();
    for id in [bob, alice, carol] {
        let headers = [("ws-user-id", key(id)), ("x-client", id.to_string())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        sockets.push(open(cluster.addr(), "/", &headers).await.unwrap().0);
    }
    let [mut bob_heard, senders @ ..] = <[Socket; 3]>::try_from(sockets).unwrap();
    cluster.app(2).freeze(true);
    let to_bob = |sender: u32, n: usize| {
        let pad = "x".repeat(LONG);
        format!(r#"{{"recipientId":"{}","from":{sender},"n":{n},"pad":"{pad}"}}"#, key(bob))
    };
    let send = async |mut socket: Socket, sender: u32| {
        for n in 0..WAITING {
            say(&mut socket, &to_bob(sender, n)).await;
        }
        say(&mut socket, "mine").await;
        assert_eq!(hear(&mut socket).await, Message::text("mine"), "what was sent before is not lost");
    };
    let [alice_says, carol_says] = senders;
    let thaw = async {
        // The same way is closed to others: there is no room, which is said at once, or none within `--send-timeout`.
        let (mut api, mut refused) = (Api::new(cluster.range.addr(1, API)), [false, false]);
        eventually(secs(60), "both kinds of refusal", async || {
            let asked = tokio::time::Instant::now();
            if api.send(&key(bob), &"y".repeat(LONG), "?to=app").await.status == 429 {
                refused[usize::from(asked.elapsed() >= secs(1))] = true;
            }
            refused == [true, true]
        })
        .await;
        cluster.app(2).freeze(false);
    };
    let listen = async {
        let mut heard: [Vec<u64>; 2] = Default::default();
        while heard.iter().map(Vec::len).sum::<usize>() < 2 * WAITING {
            let Message::Text(text) = hear(&mut bob_heard).await else { panic!("an echo is text") };
            let Ok(told) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
            heard[usize::from(told["from"] == carol)].push(told["n"].as_u64().unwrap());
        }
        heard
    };
    let all = async { tokio::join!(thaw, send(alice_says, alice), send(carol_says, carol), listen) };
    let (.., heard) = bounded(secs(120), "all messages", all).await;
    let expected: Vec<u64> = (0..WAITING as u64).collect();
    assert_eq!(heard, [expected.clone(), expected], "each once, in the order of its sender");
}
