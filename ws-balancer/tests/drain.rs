//! Ends of life: a balancer tells its clients to come back, a sidecar's clients move away, and both exit 0.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use support::{
    Cluster, Raw, Setup, eventually, http,
    process::Process,
    raw::CLOSE,
    wait::{bounded, millis, secs},
};
use tokio::time::Instant;

const DRAIN: &[&str] = &["--drain", "3s"];

async fn connect(cluster: &Cluster, addr: std::net::SocketAddr, clients: usize) -> Vec<Raw> {
    let raws =
        join_all((0..clients).map(|n| async move { Raw::open(addr, &format!("user-{n}")).await })).await;
    let held = async || cluster.pods.values().map(|p| p.app.as_ref().unwrap().clients().len()).sum::<usize>();
    eventually(secs(5), "all apps hold them", async || held().await >= clients).await;
    raws
}

/// Waits until each client is closed; the codes, and when each came.
async fn closes(clients: Vec<Raw>, since: Instant) -> Vec<(Option<u16>, Duration)> {
    let closed = clients.into_iter().map(|mut raw| async move {
        loop {
            let frame = raw.read().await.expect("a close before the end");
            if frame.opcode == CLOSE {
                let code = frame.code();
                let at = since.elapsed();
                drop(raw.frame(true, CLOSE, &frame.payload).await);
                return (code, at);
            }
        }
    });
    bounded(secs(15), "every client closed", join_all(closed)).await
}

/// What a process says of what it is told to do.
async fn ask(process: &Process, path: &str) -> String {
    let admin = process.admin.unwrap();
    let request =
        format!("POST {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let answer = http::exchange(admin, request.as_bytes(), secs(5)).await.unwrap();
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).unwrap()
}

fn assert_spread(closed: &[(Option<u16>, Duration)], window: Duration) {
    assert!(closed.iter().all(|(code, _)| *code == Some(1012)), "{closed:?}");
    let mut times: Vec<_> = closed.iter().map(|(_, at)| *at).collect();
    times.sort();
    let middle = times[times.len() / 2];
    assert!((window / 5..window).contains(&middle), "half of them were closed at {middle:?}");
    assert!(times[times.len() - 1] < window + secs(2), "{times:?}");
    assert!(times[times.len() - 1] - times[0] > window / 3, "not spread: {times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_told_to_end_spreads_1012_over_its_window_and_exits_0() {
    let mut cluster = Setup::sidecars(2).balancer(DRAIN).start().await;
    let clients = connect(&cluster, cluster.addr(), 60).await;
    let since = Instant::now();
    cluster.balancer.signal("TERM");
    eventually(secs(2), "unready at once", async || cluster.balancer.admin("/readyz").await.status == 503)
        .await;
    if let Ok(late) = Raw::connect(cluster.addr(), "/", "ws-user-id: late\r\n").await {
        assert_eq!(late.answer.status, 503);
    }
    let closed = closes(clients, since).await;
    assert_spread(&closed, secs(3));
    assert_eq!(cluster.balancer.exit(secs(5)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nobody_connected_the_end_is_at_once() {
    let mut cluster = Setup::sidecars(1).start().await;
    cluster.balancer.signal("TERM");
    assert_eq!(cluster.balancer.exit(secs(3)).await.code(), Some(0));
    let sidecar = cluster.pods.get_mut(&1).unwrap().sidecar.as_mut().unwrap();
    sidecar.signal("TERM");
    assert_eq!(sidecar.exit(secs(3)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_when_the_last_client_has_gone() {
    let mut cluster = Setup::plain(1).balancer(&["--drain", "60s"]).start().await;
    let clients = connect(&cluster, cluster.addr(), 3).await;
    cluster.balancer.signal("TERM");
    eventually(secs(2), "unready at once", async || cluster.balancer.admin("/readyz").await.status == 503)
        .await;
    drop(clients);
    assert_eq!(cluster.balancer.exit(secs(5)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_exits_at_once() {
    let mut cluster = Setup::plain(1).balancer(&["--drain", "60s"]).start().await;
    let _clients = connect(&cluster, cluster.addr(), 3).await;
    cluster.balancer.signal("TERM");
    eventually(secs(2), "unready at once", async || cluster.balancer.admin("/readyz").await.status == 503)
        .await;
    cluster.balancer.signal("TERM");
    cluster.balancer.exit(secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_hastens_a_drain_that_was_asked_for() {
    let mut cluster = Setup::sidecars(2).balancer(DRAIN).start().await;
    let clients = connect(&cluster, cluster.addr(), 60).await;
    let answer = ask(&cluster.balancer, "/v1/drain?rate=1").await;
    let told: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(told["seconds"].as_f64().is_some_and(|seconds| seconds >= 60.0), "{answer}");
    let since = Instant::now();
    cluster.balancer.signal("TERM");
    let closed = closes(clients, since).await;
    assert!(closed.iter().all(|(code, at)| *code == Some(1012) && *at < secs(5)), "{closed:?}");
    assert_eq!(cluster.balancer.exit(secs(5)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_window_of_a_drain_that_was_asked_for_clients_are_still_refused() {
    let mut cluster = Setup::sidecars(1).start().await;
    for door in [cluster.addr(), cluster.pod_addr(1)] {
        let process = match door == cluster.addr() {
            true => &mut cluster.balancer,
            false => cluster.pods.get_mut(&1).unwrap().sidecar.as_mut().unwrap(),
        };
        // With nobody to leave it is over at once.
        let answer = ask(process, "/v1/drain?rate=1").await;
        assert!(answer.contains("\"seconds\":0.0"), "{answer}");
        // A leg is a sidecar's to refuse, as nobody would close it any more.
        for late in ["ws-user-id: late\r\n", "ws-user-id: late\r\nws-routing-key: late\r\n"] {
            let late = Raw::connect(door, "/", late).await.unwrap();
            assert_eq!(late.answer.status, 503);
        }
        process.signal("TERM");
        assert_eq!(process.exit(secs(3)).await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_leave_as_a_drain_of_a_part_says() {
    let cluster = Setup::sidecars(1).start().await;
    let clients = connect(&cluster, cluster.addr(), 1).await;
    let answer = ask(&cluster.balancer, "/v1/drain?percent=50").await;
    assert!(answer.contains("\"leaving\":1"), "{answer}");
    assert_eq!(closes(clients, Instant::now()).await[0].0, Some(1012));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_told_to_end_gives_its_connections_away() {
    let mut cluster = Setup::sidecars(3).sidecar(&["--drain", "20s"]).start().await;
    let clients = cluster.fleet(0..40, millis(50)).await;
    eventually(secs(10), "messages flow", async || clients.iter().all(|c| c.sent() >= 5)).await;
    let sidecar = cluster.pods.get_mut(&1).unwrap().sidecar.as_mut().unwrap();
    sidecar.signal("TERM");
    let status = sidecar.exit(secs(15)).await;
    assert_eq!(status.code(), Some(0), "{}", sidecar.output());
    cluster.leave(1);
    cluster.settled(0..40, secs(10)).await;
    support::client::finish(clients).await;
    cluster.verdict().assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_sidecars_own_are_spread_over_its_window() {
    let mut cluster = Setup::sidecars(1).sidecar(DRAIN).start().await;
    let clients = connect(&cluster, cluster.pod_addr(1), 40).await;
    let since = Instant::now();
    let sidecar = cluster.pods.get_mut(&1).unwrap().sidecar.as_mut().unwrap();
    sidecar.signal("TERM");
    let closed = closes(clients, since).await;
    assert_spread(&closed, secs(3));
    let sidecar = cluster.pods.get_mut(&1).unwrap().sidecar.as_mut().unwrap();
    assert_eq!(sidecar.exit(secs(5)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_command_returns_when_its_sidecar_is_empty() {
    let mut cluster = Setup::sidecars(2).start().await;
    let clients = cluster.fleet(0..20, millis(50)).await;
    eventually(secs(10), "messages flow", async || clients.iter().all(|c| c.sent() >= 5)).await;
    let admin = cluster.range.addr(1, support::range::ADMIN).to_string();
    let mut command = Process::proxy(&["drain".to_owned(), "--admin".to_owned(), admin]);
    let status = command.exit(secs(15)).await;
    assert_eq!(status.code(), Some(0), "{}", command.output());
    assert!(cluster.app(1).clients().is_empty(), "it returned too early");
    cluster.leave(1);
    cluster.stop(1).await;
    support::client::finish(clients).await;
    cluster.verdict().assert_clean();
}
