//! Pods come and go, and nobody notices: the clients' sockets stay, every message arrives once and in order.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Cluster, Raw, Setup,
    checker::wrong_pod,
    client::{Driven, finish, key},
    eventually,
    wait::{millis, secs},
};
use tokio::time::Instant;

/// The load: 200 clients, 20 messages a second each.
const CLIENTS: u32 = 200;
const PACE: Duration = millis(50);

/// Each of these clients sends `more` messages from now on.
async fn flow(clients: &[Driven], more: u64) {
    let goals: Vec<u64> = clients.iter().map(|client| client.sent() + more).collect();
    let reached = async || clients.iter().zip(&goals).all(|(client, goal)| client.sent() >= *goal);
    eventually(secs(20), "messages flow", reached).await;
}

/// Waits until every client is at its owner, lets messages flow, and checks that they arrived there and nowhere else.
async fn at_home(cluster: &Cluster, clients: &[Driven]) {
    cluster.settled(clients.iter().map(|c| c.id), secs(20)).await;
    let since = Instant::now();
    flow(clients, 5).await;
    let owner = |client| cluster.pods[&cluster.owner(client)].id.clone();
    assert_eq!(wrong_pod(&cluster.logs.read().1, since, owner), 0, "messages at another pod than the owner");
}

async fn unnoticed(cluster: &Cluster, clients: Vec<Driven>) {
    finish(clients).await;
    let verdict = cluster.verdict();
    eprintln!("{verdict}");
    verdict.assert_clean();
    assert!(verdict.pause < secs(1), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_joins_another_drains_and_leaves_and_all_are_replaced_and_nobody_notices() {
    let mut cluster = Setup::sidecars(3).start().await;
    let clients = cluster.fleet(0..CLIENTS, PACE).await;
    at_home(&cluster, &clients).await;
    cluster.join(4).await;
    at_home(&cluster, &clients).await;
    cluster.drain(1);
    at_home(&cluster, &clients).await;
    cluster.leave(1);
    cluster.stop(1).await;
    for (old, new) in [(2, 5), (3, 6), (4, 7)] {
        cluster.join(new).await;
        at_home(&cluster, &clients).await;
        cluster.drain(old);
        at_home(&cluster, &clients).await;
        cluster.leave(old);
        cluster.stop(old).await;
    }
    assert!(cluster.pods.keys().eq([&5, &6, &7]));
    unnoticed(&cluster, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_nodes_are_moved_between_as_well() {
    let mut cluster = Setup::plain(3).start().await;
    let clients = cluster.fleet(0..60, PACE).await;
    at_home(&cluster, &clients).await;
    cluster.join(4).await;
    at_home(&cluster, &clients).await;
    cluster.leave(1);
    at_home(&cluster, &clients).await;
    unnoticed(&cluster, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_entered_at_a_sidecar_are_moved_as_well() {
    let mut cluster = Setup::sidecars(3).start().await;
    let door = cluster.pod_addr(2);
    let mut clients = Vec::new();
    for id in 0..30 {
        clients.push(support::Client::connect(door, id, &cluster.logs).await.drive(PACE));
    }
    at_home(&cluster, &clients).await;
    cluster.join(4).await;
    at_home(&cluster, &clients).await;
    cluster.drain(1);
    at_home(&cluster, &clients).await;
    unnoticed(&cluster, clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_move_too_and_talk_afterwards() {
    let mut cluster = Setup::sidecars(2).start().await;
    let mut clients = Vec::new();
    for id in 0..40 {
        clients.push(cluster.client(id).await);
    }
    cluster.join(3).await;
    cluster.settled(0..40, secs(15)).await;
    for mut client in clients {
        client.ask(secs(5)).await;
        client.leave().await;
    }
    cluster.verdict().assert_clean();
}

/// Conversations with an app of this temper while a pod joins and another drains.
async fn conversations(setup: Setup, clients: u32, think: Duration) -> support::checker::Verdict {
    let mut cluster = setup.start().await;
    let mut talking = Vec::new();
    for id in 0..clients {
        talking.push(cluster.client(id).await.converse(think));
    }
    flow(&talking, 3).await;
    cluster.join(4).await;
    cluster.settled(0..clients, secs(60)).await;
    // Whoever joins may be nobody's owner; who drains is somebody's.
    cluster.drain(cluster.owner(0));
    cluster.settled(0..clients, secs(60)).await;
    flow(&talking, 2).await;
    finish(talking).await;
    let verdict = cluster.verdict();
    eprintln!("{verdict}");
    assert!(verdict.moves > 0, "{verdict}");
    verdict
}

fn answering(answers: support::app::Answers) -> Setup {
    Setup::sidecars(3).manners(|m| m.answers = answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_answers_after_600_ms_loses_nothing() {
    conversations(answering(support::app::Answers::After(millis(600))), 20, millis(50)).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_busy_for_600_ms_with_each_message_loses_nothing() {
    conversations(answering(support::app::Answers::Busy(millis(600))), 20, millis(50)).await.assert_clean();
}

/// `--move-quiet` ends at 2 s: such an answer may come too late, everything else holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_answers_after_2_s_may_lose_that_answer_and_nothing_else() {
    let verdict = conversations(answering(support::app::Answers::After(secs(2))), 12, millis(500)).await;
    assert_eq!((verdict.closed.len(), verdict.up), (0, support::checker::Faults::default()));
    assert_eq!((verdict.down.repeated, verdict.down.reordered, verdict.down.invented), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_busy_for_2_s_is_moved_when_it_rests() {
    conversations(answering(support::app::Answers::Busy(secs(2))), 6, millis(2500)).await.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_answers_in_bursts_loses_nothing() {
    let setup = answering(support::app::Answers::Bursts(millis(500)));
    let mut cluster = setup.start().await;
    let clients = cluster.fleet(0..30, PACE).await;
    flow(&clients, 20).await;
    cluster.join(4).await;
    cluster.settled(0..30, secs(20)).await;
    finish(clients).await;
    cluster.verdict().assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_talks_unasked_is_heard_in_order() {
    let mut cluster = Setup::sidecars(3).manners(|m| m.ticks = Some(millis(300))).start().await;
    let clients = cluster.fleet(0..30, millis(100)).await;
    flow(&clients, 10).await;
    cluster.join(4).await;
    cluster.settled(0..30, secs(20)).await;
    flow(&clients, 10).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    assert_eq!((verdict.closed.len(), verdict.up), (0, support::checker::Faults::default()), "{verdict}");
    assert_eq!((verdict.down.lost, verdict.down.repeated, verdict.down.reordered), (0, 0, 0), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_on_every_connection_can_be_skipped_on_a_moved_one() {
    let setup = Setup::sidecars(2).manners(|m| m.greets = true).sidecar(&["--skip-on-move", "1"]);
    let mut cluster = setup.start().await;
    let clients = cluster.fleet(0..20, PACE).await;
    cluster.join(3).await;
    at_home(&cluster, &clients).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    assert!(verdict.moves > 0 && verdict.closed.is_empty(), "{verdict}");
    assert_eq!(verdict.down.lost, verdict.moves, "one greeting for each move: {verdict}");
    assert_eq!((verdict.up, verdict.down.reordered), (support::checker::Faults::default(), 0), "{verdict}");
}

#[tokio::test]
async fn the_handshake_is_replayed_and_marked() {
    let mut cluster = Setup::sidecars(1).start().await;
    let id = cluster.mover(1, 2, &[1, 2]);
    let headers = [("ws-user-id", &*key(id)), ("x-client", &*id.to_string()), ("cookie", "a=b")];
    let (socket, _) = support::client::open(cluster.addr(), "/room?x=1", &headers).await.unwrap();
    let mut raw = Raw { stream: socket.into_inner(), answer: cluster.balancer.admin("/livez").await };
    for n in 0..3 {
        raw.frame(true, support::raw::TEXT, format!("hello {n}").as_bytes()).await.unwrap();
        raw.message().await.unwrap();
    }
    cluster.join(2).await;
    cluster.settled(std::iter::once(id), secs(10)).await;
    let (first, second) = (cluster.app(1).handshakes().remove(0), cluster.app(2).handshakes().remove(0));
    assert_eq!(second.target, first.target);
    for same in ["cookie", "ws-user-id", "ws-routing-key", "ws-routing-connection", "sec-websocket-version"] {
        assert_eq!(second.header(same), first.header(same), "{same}");
    }
    assert_eq!(second.header("ws-routing-moved-from"), Some(cluster.pods[&1].id.as_str()));
    assert_eq!(
        (first.header("ws-routing-sequence"), second.header("ws-routing-sequence")),
        (Some("0"), Some("3"))
    );
    let fingerprint = cluster.balancer.admin("/v1/members").await.json()["fingerprint"].clone();
    assert_eq!(second.header("ws-routing-view"), fingerprint.as_str());
    raw.frame(true, support::raw::TEXT, b"still here").await.unwrap();
    assert_eq!(raw.message().await.unwrap().1, b"still here");
}

/// Fragments, pings between them and sizes around the buffers' edges, while the far end changes again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_shape_stay_whole_in_motion() {
    let mut cluster = Setup::sidecars(2).start().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut talks = tokio::task::JoinSet::new();
    for id in 0..12 {
        let headers = format!("ws-user-id: {}\r\nx-client: {id}\r\n", key(id));
        let raw = Raw::connect(cluster.addr(), "/", &headers).await.unwrap();
        talks.spawn(shapes(raw, stopped.clone()));
    }
    for (new, old) in [(3, 1), (4, 2), (5, 3)] {
        cluster.join(new).await;
        cluster.settled(0..12, secs(20)).await;
        cluster.drain(old);
        cluster.settled(0..12, secs(20)).await;
        cluster.leave(old);
        cluster.stop(old).await;
    }
    stop.send_replace(true);
    let mut echoes = 0;
    while let Some(talked) = talks.join_next().await {
        echoes += talked.unwrap();
    }
    assert!(echoes > 100, "only {echoes} messages");
}

/// Says messages of all shapes, one after another, until it is told to stop; panics unless each comes back as it was.
async fn shapes(mut raw: Raw, stopped: tokio::sync::watch::Receiver<bool>) -> usize {
    const SIZES: [usize; 8] = [0, 1, 126, 4_096, 65_535, 65_536, 65_537, 300_000];
    for n in 0.. {
        if *stopped.borrow() {
            return n;
        }
        let payload = support::app::pattern(SIZES[n % SIZES.len()] + n);
        let third = payload.len() / 3;
        raw.frame(false, support::raw::BINARY, &payload[..third]).await.unwrap();
        raw.frame(true, support::raw::PING, &[n.to_be_bytes()[7]]).await.unwrap();
        raw.frame(false, support::raw::CONTINUATION, &payload[third..2 * third]).await.unwrap();
        raw.frame(true, support::raw::CONTINUATION, &payload[2 * third..]).await.unwrap();
        let (opcode, echo) = raw.message().await.unwrap();
        assert!((opcode, &echo) == (support::raw::BINARY, &payload), "message {n} came back changed");
    }
    unreachable!("the numbers do not end")
}
