//! permessage-deflate is agreed between a real client and a real server, and still right after a move.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{
    Cluster, Setup,
    client::key,
    python::{self, Script},
    range::APP,
    wait::{millis, secs},
};

/// Lets the client send one message: which pod answered, and whether the echo was right.
async fn ask(client: &mut Script) -> (String, bool) {
    client.say("go").await;
    let line = client.line().await.expect("the client has ended");
    let (pod, judged) = line.split_once(' ').unwrap();
    (pod.to_owned(), judged == "right")
}

/// Replaces the app of pod `host` by one that compresses.
async fn compress(cluster: &mut Cluster, python: &Path, host: u8) -> Script {
    cluster.pods.get_mut(&host).unwrap().app = None;
    let addr = cluster.range.addr(host, APP);
    let args = [format!("pod-{host}"), addr.ip().to_string(), addr.port().to_string()];
    // The old listener's task ends a moment after it was told to.
    for _ in 0..20 {
        let mut script = Script::start(python, include_str!("deflate/server.py"), &args);
        if let Some(line) = script.line().await {
            assert_eq!(line, "listening");
            return script;
        }
    }
    panic!("no server at {addr}");
}

async fn still_right_after_a_move(setup: Setup) {
    let Some(python) = python::with_websockets() else { return };
    let mut cluster = setup.start().await;
    let _one = compress(&mut cluster, python, 1).await;
    let id = cluster.mover(1, 2, &[1, 2]);
    let uri = format!("ws://{}/", cluster.addr());
    let mut client = Script::start(python, include_str!("deflate/client.py"), &[uri, key(id)]);
    let agreed = client.line().await.expect("the client has ended");
    assert!(agreed.starts_with("agreed permessage-deflate"), "{agreed}");
    assert!(agreed.contains("client_no_context_takeover"), "a move needs it: {agreed}");
    for _ in 0..20 {
        assert_eq!(ask(&mut client).await, ("pod-1".to_owned(), true));
    }
    cluster.add(2).await;
    let _two = compress(&mut cluster, python, 2).await;
    let node = cluster.pods[&2].id.clone();
    cluster.members.join(&node);
    let end = tokio::time::Instant::now() + secs(15);
    loop {
        let (pod, right) = ask(&mut client).await;
        assert!(right, "a wrong echo from {pod}");
        if pod == "pod-2" {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "it never moved");
        tokio::time::sleep(millis(20)).await;
    }
    for _ in 0..20 {
        assert_eq!(ask(&mut client).await, ("pod-2".to_owned(), true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_behind_sidecars_survives_a_move() {
    still_right_after_a_move(Setup::sidecars(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_of_plain_nodes_survives_a_move() {
    still_right_after_a_move(Setup::plain(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_messages_are_delivered_again_to_the_next_pod() {
    let Some(python) = python::with_websockets() else { return };
    let mut cluster = Setup::sidecars(2).balancer(&["--redelivery", "on"]).start().await;
    let _apps = [compress(&mut cluster, python, 1).await, compress(&mut cluster, python, 2).await];
    let id = cluster.client_of(1, 0);
    let uri = format!("ws://{}/", cluster.addr());
    let mut client = Script::start(python, include_str!("deflate/client.py"), &[uri, key(id)]);
    let agreed = client.line().await.expect("the client has ended");
    assert!(agreed.starts_with("agreed permessage-deflate"), "{agreed}");
    for _ in 0..20 {
        assert_eq!(ask(&mut client).await, ("pod-1".to_owned(), true));
    }
    // Longer than the hold: this client takes every answer for that to its latest message.
    tokio::time::sleep(millis(1500)).await;
    cluster.pods[&1].signal("STOP");
    client.say("go").await;
    // It may not be on its way yet: then it waits for the new leg, and is right there as well.
    tokio::time::sleep(millis(200)).await;
    cluster.kill(1);
    assert_eq!(client.line().await.as_deref(), Some("pod-2 right"));
    for _ in 0..20 {
        assert_eq!(ask(&mut client).await, ("pod-2".to_owned(), true));
    }
}
