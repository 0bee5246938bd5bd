//! With `--redelivery on` a crash loses no client message, and every possible repeat is announced.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Cluster, Raw, Setup,
    client::{Driven, finish, key},
    eventually,
    raw::{self, CLOSE, CONTINUATION, TEXT},
    wait::{bounded, millis, secs},
};
use tokio::{io::AsyncWriteExt as _, time::Instant};

async fn flow(clients: &[Driven], more: u64) {
    let goals: Vec<u64> = clients.iter().map(|client| client.sent() + more).collect();
    let reached = async || clients.iter().zip(&goals).all(|(client, goal)| client.sent() >= *goal);
    eventually(secs(20), "messages flow", reached).await;
}

fn held(cluster: &Cluster) -> usize {
    cluster.pods.values().filter_map(|pod| pod.app.as_ref()).map(|app| app.clients().len()).sum()
}

async fn counter(cluster: &Cluster, name: &str) -> u64 {
    let metrics = cluster.balancer.admin("/metrics").await.text();
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name)).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Pod 2 dies under load.
async fn crash(setup: Setup) {
    let mut cluster = setup.balancer(&["--redelivery", "on"]).start().await;
    let clients = cluster.fleet(0..40, millis(20)).await;
    flow(&clients, 10).await;
    cluster.kill(2);
    eventually(secs(10), "the survivors hold everybody", async || held(&cluster) == 40).await;
    flow(&clients, 20).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    assert!(verdict.closed.is_empty(), "{verdict}");
    let up = verdict.up;
    assert_eq!((up.lost, up.repeated, up.reordered, up.invented), (0, 0, 0, 0), "{verdict}");
    assert!(up.announced > 0, "what was read within the hold comes again: {verdict}");
    let counted = counter(&cluster, "ws_redelivered_messages_total").await;
    assert!(counted >= up.announced as u64, "{counted} counted: {verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_dies_loses_nothing() {
    crash(Setup::sidecars(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_node_that_dies_loses_nothing() {
    crash(Setup::plain(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graceful_moves_redeliver_nothing() {
    let mut cluster = Setup::sidecars(2).balancer(&["--redelivery", "on"]).start().await;
    let clients = cluster.fleet(0..40, millis(20)).await;
    flow(&clients, 10).await;
    cluster.join(3).await;
    cluster.settled(0..40, secs(20)).await;
    flow(&clients, 10).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    verdict.assert_clean();
    assert!(verdict.moves > 0, "{verdict}");
    assert_eq!(counter(&cluster, "ws_redelivered_messages_total").await, 0);
}

#[tokio::test]
async fn a_message_larger_than_the_buffer_passes_and_is_counted() {
    let flags = ["--redelivery", "on", "--redelivery-buffer", "64KiB"];
    let cluster = Setup::sidecars(1).balancer(&flags).start().await;
    let mut raw = Raw::open(cluster.addr(), "k").await;
    let large = vec![b'x'; 300 * 1024];
    raw.frame(true, TEXT, &large).await.unwrap();
    assert_eq!(raw.message().await.unwrap().1, large);
    for n in 0..200 {
        let text = format!("{n}{}", "y".repeat(2000));
        raw.frame(true, TEXT, text.as_bytes()).await.unwrap();
        assert_eq!(raw.message().await.unwrap().1, text.as_bytes());
    }
    assert_eq!(counter(&cluster, "ws_unkept_messages_total").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_stands_still_gives_nobody_up() {
    let cluster = Setup::sidecars(3).start().await;
    let clients = cluster.fleet(0..30, millis(50)).await;
    flow(&clients, 10).await;
    cluster.balancer.signal("STOP");
    tokio::time::sleep(secs(10)).await;
    cluster.balancer.signal("CONT");
    flow(&clients, 20).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    verdict.assert_clean();
    assert_eq!(verdict.moves, 0, "{verdict}");
}

#[tokio::test]
async fn a_sidecars_own_client_is_closed_when_its_app_does_not_come_back() {
    let mut cluster = Setup::sidecars(2).start().await;
    let id = (0..).find(|id| cluster.owner(*id) == 1).unwrap();
    let mut raw = Raw::open(cluster.pod_addr(1), &key(id)).await;
    raw.frame(true, TEXT, b"hello").await.unwrap();
    raw.message().await.unwrap();
    let lost = Instant::now();
    cluster.pods.get_mut(&1).unwrap().app = None;
    let close = loop {
        let frame = raw.read().await.unwrap();
        if frame.opcode == CLOSE {
            break frame;
        }
    };
    assert_eq!(close.code(), Some(1011));
    assert!((millis(1900)..secs(5)).contains(&lost.elapsed()), "{:?}", lost.elapsed());
}

/// A raw client with a number of its own, by which the apps know it.
async fn numbered(cluster: &Cluster, id: u32) -> Raw {
    let headers = format!("ws-user-id: {}\r\nx-client: {id}\r\n", key(id));
    let raw = Raw::connect(cluster.addr(), "/", &headers).await.unwrap();
    assert_eq!(raw.answer.status, 101);
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_kills_app_after_app_is_delivered_three_times_and_ends_its_client() {
    let cluster = Setup::sidecars(3).balancer(&["--redelivery", "on"]).start().await;
    let mut raw = numbered(&cluster, 1).await;
    raw.frame(true, TEXT, b"!die").await.unwrap();
    let (opcode, payload) = bounded(secs(20), "the close", raw.message()).await.unwrap();
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1011_u16.to_be_bytes()[..]));
    let announced: Vec<_> = (1..=3)
        .flat_map(|host| cluster.app(host).handshakes())
        .map(|seen| seen.header("ws-routing-redelivered").map(str::to_owned))
        .collect();
    assert_eq!(announced.iter().filter(|n| n.is_none()).count(), 1, "{announced:?}");
    assert_eq!(announced.iter().filter(|n| n.as_deref() == Some("1")).count(), 2, "{announced:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_which_a_fragment_was_sent_when_its_pod_died_arrives_whole() {
    let mut cluster = Setup::sidecars(2).balancer(&["--redelivery", "on"]).start().await;
    let (id, other) = (cluster.client_of(1, 0), 2);
    let mut raw = numbered(&cluster, id).await;
    raw.frame(true, TEXT, b"whole").await.unwrap();
    assert_eq!(raw.message().await.unwrap(), (TEXT, b"whole".to_vec()));
    raw.frame(false, TEXT, b"one ").await.unwrap();
    raw.frame(true, raw::PING, b"it has passed").await.unwrap();
    assert_eq!(raw.read().await.unwrap().payload, b"it has passed");
    cluster.kill(1);
    eventually(secs(10), "the other pod has it", async || cluster.app(other).shook(id) == 1).await;
    raw.frame(true, CONTINUATION, b"two").await.unwrap();
    // The first is repeated where its hold was not over, and announced.
    let mut message = raw.message().await.unwrap();
    if message.1 == b"whole" {
        message = raw.message().await.unwrap();
    }
    assert_eq!(message, (TEXT, b"one two".to_vec()));
}

/// How long the app takes to answer all of `count` messages, which are sent without waiting.
async fn stream(cluster: &Cluster, count: usize) -> Duration {
    let raw = Raw::open(cluster.addr(), "k").await;
    let (mut input, mut output) = raw.stream.into_split();
    let began = Instant::now();
    let said = async {
        let frames = raw::masked(true, TEXT, &[b'x'; 500]).repeat(count);
        output.write_all(&frames).await.unwrap();
    };
    let heard = async {
        for _ in 0..count {
            while raw::read_frame(&mut input).await.unwrap().opcode != TEXT {}
        }
    };
    bounded(secs(60), "all answers", async { tokio::join!(said, heard) }).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_answers_pings_is_not_slowed_to_the_size_of_the_buffer() {
    const COUNT: usize = 10_000;
    let off = Setup::sidecars(1).start().await;
    let on = Setup::sidecars(1).balancer(&["--redelivery", "on"]).start().await;
    let (mut without, mut with) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        without = without.min(stream(&off, COUNT).await);
        with = with.min(stream(&on, COUNT).await);
    }
    eprintln!("redelivery on: {:.2} of the throughput without", without.div_duration_f64(with));
    // Twenty times the buffer. Held for its whole second each time, it would take as many seconds.
    assert!(with < without * 4 + secs(1), "{without:?} without, {with:?} with");
}
