//! Legs that share connections: what holds for legs with connections of their own holds for them, and they are few.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Cluster, Raw, Setup,
    client::{Driven, finish},
    process::scratch,
    raw,
    wait::{bounded, eventually, millis, secs},
};

const PACE: Duration = millis(50);
const CLIENTS: u32 = 60;

fn shared(setup: Setup) -> Setup {
    setup.balancer(&["--legs", "shared"])
}

async fn flow(clients: &[Driven], more: u64) {
    let goals: Vec<u64> = clients.iter().map(|client| client.sent() + more).collect();
    let reached = async || clients.iter().zip(&goals).all(|(client, goal)| client.sent() >= *goal);
    eventually(secs(20), "messages flow", reached).await;
}

/// How many connections the balancer has with anybody, its listeners and such included.
fn descriptors(cluster: &Cluster) -> u32 {
    u32::try_from(cluster.balancer.usage().descriptors).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_legs_have_few_connections_and_move_unnoticed() {
    let dir = scratch();
    let token = dir.join("shared-legs-token");
    std::fs::write(&token, "a-token-of-the-ring\n").unwrap();
    let flags = ["--peer-token-file", token.to_str().unwrap()];
    let mut cluster = shared(Setup::sidecars(3)).balancer(&flags).sidecar(&flags).start().await;
    let before = descriptors(&cluster);
    let clients = cluster.fleet(0..CLIENTS, PACE).await;
    flow(&clients, 3).await;
    let more = descriptors(&cluster) - before;
    assert!(more < CLIENTS + 30, "{more} descriptors for {CLIENTS} clients");
    cluster.join(4).await;
    cluster.settled(0..CLIENTS, secs(20)).await;
    flow(&clients, 3).await;
    cluster.drain(1);
    cluster.settled(0..CLIENTS, secs(20)).await;
    cluster.leave(1);
    cluster.stop(1).await;
    flow(&clients, 3).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    verdict.assert_clean();
    assert!(verdict.pause < secs(1), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_legs_of_a_lost_connection_are_replaced() {
    let mut cluster = shared(Setup::sidecars(3)).start().await;
    let clients = cluster.fleet(0..CLIENTS, PACE).await;
    flow(&clients, 3).await;
    cluster.kill(1);
    flow(&clients, 10).await;
    assert!(clients.iter().all(|client| !client.is_over()));
    finish(clients).await;
    assert!(cluster.verdict().closed.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_sidecar_gets_a_connection_for_each_leg() {
    let mut cluster = shared(Setup::plain(2)).start().await;
    let clients = cluster.fleet(0..20, PACE).await;
    flow(&clients, 3).await;
    cluster.join(3).await;
    cluster.settled(0..20, secs(20)).await;
    flow(&clients, 3).await;
    finish(clients).await;
    cluster.verdict().assert_clean();
    let suspects = cluster.balancer.admin("/metrics").await.text();
    assert!(
        suspects.lines().any(|line| line == "ws_suspect_nodes 0"),
        "not to share is no reason for suspicion"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_nobody_on_the_same_connection() {
    const FLOOD: usize = 32 << 20;
    let cluster = shared(Setup::sidecars(1)).start().await;
    let mut lazy = Raw::open(cluster.addr(), "lazy").await;
    lazy.frame(true, raw::TEXT, format!("!bytes {FLOOD}").as_bytes()).await.unwrap();
    let mut other = cluster.client(2).await;
    for _ in 0..50 {
        other.ask(secs(5)).await;
    }
    other.leave().await;
    assert_eq!(bounded(secs(60), "the flood", lazy.message()).await.unwrap().1.len(), FLOOD);
}

/// Who has the ring's token is a balancer; nobody else's legs are taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_shared_with_those_only_who_have_the_token() {
    let token = scratch().join("shared-legs-other-token");
    std::fs::write(&token, "a-token-of-the-ring\n").unwrap();
    let flags = ["--peer-token-file", token.to_str().unwrap()];
    let cluster = Setup::sidecars(1).balancer(&flags).sidecar(&flags).start().await;
    for proof in ["", "ws-routing-proof: 00ff\r\n"] {
        let ask = format!(
            "GET /v1/legs HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: ws-routing-legs/1\r\n{proof}\r\n"
        );
        let answer = support::http::exchange(cluster.pod_addr(1), ask.as_bytes(), secs(5)).await.unwrap();
        assert_eq!(answer.status, 401, "{proof:?}");
    }
}
