//! An app behind HTTP, through balancer and sidecar, over a move.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

#[path = "../../ws-routing/tests/http_app/app.rs"]
mod http_app;
mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http_app::{Answer, HttpApp, Request};
use support::{
    Cluster, Setup,
    client::{key, open},
    eventually,
    wait::{bounded, millis, secs},
};
use tokio_tungstenite::tungstenite::Message;

const MESSAGES: u64 = 200;

/// Fails every fiftieth message three times, and echoes else.
async fn app(cluster: &Cluster, host: u8) -> HttpApp {
    let failed: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let manners = move |request: &Request| {
        let number: u64 = request.header("ce-sequence").parse().unwrap();
        if request.kind() == "message" && number.is_multiple_of(50) {
            let mut failed = failed.lock().unwrap();
            let times = failed.entry(request.header("ce-id").into()).or_default();
            *times += 1;
            if *times <= 3 {
                return Answer::status(503);
            }
        }
        Answer::echo(request)
    };
    HttpApp::start(&cluster.app_addr(host).to_string(), manners).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_messages_are_answered_in_order_over_failures_and_a_move() {
    let mut cluster = Setup::http(2).start().await;
    let apps = [app(&cluster, 1).await, app(&cluster, 2).await];
    let id = cluster.mover(1, 2, &[2]);
    let (socket, _) = open(cluster.addr(), "/", &[("ws-user-id", &key(id))]).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    let send = async {
        for n in 1..=MESSAGES {
            sink.send(Message::text(n.to_string())).await.unwrap();
            if n == MESSAGES / 2 {
                cluster.drain(1);
                let dialled = async || !apps[1].of("connect").is_empty();
                eventually(secs(20), "a connect at the other pod", dialled).await;
            }
            // From here on one at a time, until one arrives at the other pod; the last ones must.
            if n > MESSAGES / 2 && apps[1].of("message").is_empty() {
                tokio::time::sleep(millis(if n < MESSAGES - 5 { 20 } else { 2000 })).await;
            }
        }
        sink
    };
    let hear = async {
        for n in 1..=MESSAGES {
            let heard = bounded(secs(20), format!("the answer to {n}"), stream.next()).await;
            assert_eq!(heard.unwrap().unwrap(), Message::text(n.to_string()));
        }
    };
    let (mut sink, ()) = tokio::join!(send, hear);
    sink.close().await.unwrap();
    eventually(secs(20), "a disconnect", async || apps[1].of("disconnect").len() == 1).await;

    assert!(apps[0].of("disconnect").is_empty(), "it only moved away");
    assert_eq!(apps[1].of("connect")[0].header("ce-movedfrom"), cluster.pods[&1].id);
    let connection = apps[0].of("connect")[0].header("ce-connectionid").to_owned();
    assert_eq!(apps[1].of("connect")[0].header("ce-connectionid"), connection);
    let told: Vec<Request> = apps.iter().flat_map(|app| app.of("message")).collect();
    let mut expected = Vec::new();
    for n in 1..=MESSAGES {
        let times = if n.is_multiple_of(50) { 4 } else { 1 };
        expected.extend((0..times).map(|_| (format!("{connection}/{n}"), n.to_string())));
    }
    let told: Vec<(String, String)> =
        told.iter().map(|request| (request.header("ce-id").into(), request.text().into())).collect();
    assert_eq!(told, expected, "each in order, with its own id, at one pod only");
    assert!(!apps[1].of("message").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_pod_may_have_had_comes_again_under_the_same_id_and_says_so() {
    let mut cluster = Setup::http(2).balancer(&["--redelivery", "on"]).start().await;
    let hangs = |request: &Request| match (request.kind(), request.text()) {
        ("message", "hang") => Answer::Hang,
        _ => Answer::echo(request),
    };
    let first = HttpApp::start(&cluster.app_addr(1).to_string(), hangs).await;
    let second = HttpApp::start(&cluster.app_addr(2).to_string(), Answer::echo).await;
    let id = cluster.client_of(1, 0);
    let (mut socket, _) = open(cluster.addr(), "/", &[("ws-user-id", &key(id))]).await.unwrap();
    let said = ["one", "two", "hang", "unread"];
    for text in said {
        socket.send(Message::text(text)).await.unwrap();
    }
    for text in &said[..2] {
        let heard = bounded(secs(20), "an answer", socket.next()).await.unwrap().unwrap();
        assert_eq!(heard, Message::text(*text));
    }
    eventually(secs(20), "the app has it", async || first.of("message").len() == 3).await;
    cluster.kill(1);
    socket.send(Message::text("new")).await.unwrap();
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| *last != Message::text("new")) {
        heard.push(bounded(secs(20), "an answer", socket.next()).await.unwrap().unwrap());
    }
    // What was answered within the hold comes again, too.
    let all: Vec<Message> = said.iter().chain(&["new"]).map(|text| Message::text(*text)).collect();
    assert_eq!(heard[heard.len() - 3..], all[2..]);
    assert!(all.ends_with(&heard));
    let told = second.of("message");
    assert_eq!(told.len(), heard.len());
    let (new, again) = told.split_last().unwrap();
    assert_eq!((new.text(), new.header("ce-redelivered")), ("new", ""));
    let known: BTreeMap<String, String> =
        first.of("message").iter().map(|had| (had.text().into(), had.header("ce-id").into())).collect();
    for request in again {
        assert_eq!(request.header("ce-redelivered"), "true", "{request:?}");
        if let Some(id) = known.get(request.text()) {
            assert_eq!(request.header("ce-id"), id);
        }
    }
    let ids: Vec<&str> = told.iter().map(|request| request.header("ce-id")).collect();
    assert_eq!(ids.last().unwrap().split_once('/').unwrap().1, "5", "{ids:?}");
}
