//! Moves that meet trouble: slow readers, torn messages, the app's own Close, a second change, a death in the middle.
#![allow(clippy::unwrap_used)]

mod support;

use support::{
    Cluster, Raw, Setup,
    app::pattern,
    client::{finish, key},
    eventually,
    raw::{self, BINARY, CLOSE, TEXT},
    wait::{bounded, millis, secs},
};

/// A raw client whose key moves from pod 1 to pod 2 when that joins.
async fn mover(cluster: &Cluster) -> (u32, Raw) {
    let id = cluster.mover(1, 2, &[1, 2]);
    let headers = format!("ws-user-id: {}\r\nx-client: {id}\r\n", key(id));
    let raw = Raw::connect(cluster.addr(), "/", &headers).await.unwrap();
    assert_eq!(raw.answer.status, 101);
    (id, raw)
}

async fn echo(raw: &mut Raw, text: &str) {
    raw.frame(true, TEXT, text.as_bytes()).await.unwrap();
    assert_eq!(raw.message().await.unwrap(), (TEXT, text.as_bytes().to_vec()));
}

/// Waits until pod `host` has seen a handshake of `id`: its move is under way.
async fn under_way(cluster: &Cluster, host: u8, id: u32) {
    eventually(secs(10), "a move under way", async || cluster.app(host).shook(id) > 0).await;
}

/// How many connections the balancer says are not at their owner yet.
async fn pending(cluster: &Cluster) -> String {
    let page = String::from_utf8(cluster.balancer.admin("/metrics").await.body).unwrap();
    page.lines().find_map(|line| line.strip_prefix("ws_moves_pending ")).unwrap().to_owned()
}

/// A quiet time long enough for a test to act between a move's handshake and its switch.
fn slow_moves(pods: u8) -> Setup {
    Setup::sidecars(pods).balancer(&["--move-quiet", "1500ms"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_gets_everything_and_moves_afterwards() {
    const BIG: usize = 16 << 20;
    let mut cluster = Setup::sidecars(1).start().await;
    let (id, mut raw) = mover(&cluster).await;
    raw.frame(true, TEXT, format!("!bytes {BIG}").as_bytes()).await.unwrap();
    cluster.join(2).await;
    under_way(&cluster, 2, id).await;
    // The client goes on reading only after the move's patience for the old pod is over.
    tokio::time::sleep(millis(1500)).await;
    let (opcode, payload) = raw.message().await.unwrap();
    assert!((opcode, payload) == (BINARY, pattern(BIG)), "the message changed");
    cluster.settled(std::iter::once(id), secs(30)).await;
    echo(&mut raw, "moved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_inside_a_message_stays_until_it_is_whole() {
    let mut cluster = Setup::sidecars(1).start().await;
    let (id, mut raw) = mover(&cluster).await;
    let frame = raw::masked(true, TEXT, b"torn in the middle");
    raw.bytes(&frame[..9]).await.unwrap();
    cluster.join(2).await;
    under_way(&cluster, 2, id).await;
    // Longer than the wait for a boundary.
    tokio::time::sleep(secs(6)).await;
    assert_eq!(cluster.app(1).clients(), [id], "it stays while the message is torn");
    assert_eq!(pending(&cluster).await, "1", "its move was put off");
    raw.bytes(&frame[9..]).await.unwrap();
    assert_eq!(raw.message().await.unwrap(), (TEXT, b"torn in the middle".to_vec()));
    cluster.settled(std::iter::once(id), secs(30)).await;
    eventually(secs(5), "none is pending", async || pending(&cluster).await == "0").await;
    echo(&mut raw, "moved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_between_two_fragments_stays_until_the_message_is_whole() {
    let mut cluster = Setup::sidecars(1).start().await;
    let (id, mut raw) = mover(&cluster).await;
    raw.frame(false, TEXT, b"one ").await.unwrap();
    cluster.join(2).await;
    under_way(&cluster, 2, id).await;
    raw.frame(true, raw::PING, b"?").await.unwrap();
    let pong = raw.read().await.unwrap();
    assert_eq!((pong.opcode, pong.payload), (raw::PONG, b"?".to_vec()));
    raw.frame(true, raw::CONTINUATION, b"two").await.unwrap();
    assert_eq!(raw.message().await.unwrap(), (TEXT, b"one two".to_vec()));
    cluster.settled(std::iter::once(id), secs(30)).await;
    echo(&mut raw, "moved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_closes_while_it_is_left_closes_the_client() {
    let mut cluster = slow_moves(1).start().await;
    let (id, mut raw) = mover(&cluster).await;
    echo(&mut raw, "hello").await;
    cluster.join(2).await;
    under_way(&cluster, 2, id).await;
    cluster.app(1).close(id, 4001, "my own");
    let (opcode, payload) = raw.message().await.unwrap();
    assert_eq!((opcode, &payload[2..]), (CLOSE, &b"my own"[..]));
    assert_eq!(payload[..2], 4001_u16.to_be_bytes());
    eventually(secs(10), "both pods are rid of it", async || {
        cluster.app(1).clients().is_empty() && cluster.app(2).clients().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_while_it_is_moved_is_closed_everywhere() {
    let mut cluster = slow_moves(1).start().await;
    let (id, mut raw) = mover(&cluster).await;
    cluster.join(2).await;
    under_way(&cluster, 2, id).await;
    raw.frame(true, CLOSE, &[&4002_u16.to_be_bytes()[..], b"bye"].concat()).await.unwrap();
    let (opcode, payload) = bounded(secs(10), "the close", raw.message()).await.unwrap();
    assert_eq!((opcode, &payload[..2]), (CLOSE, &4002_u16.to_be_bytes()[..]));
    eventually(secs(10), "both pods are rid of it", async || {
        cluster.app(1).clients().is_empty() && cluster.app(2).clients().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_change_in_the_middle_of_moves_ends_at_the_last_owner() {
    let mut cluster = slow_moves(3).start().await;
    let clients = cluster.fleet(0..40, millis(100)).await;
    let moving = (0..40).find(|id| moves_to(&cluster, *id, 4)).expect("one of forty moves");
    cluster.join(4).await;
    under_way(&cluster, 4, moving).await;
    cluster.drain(4);
    cluster.join(5).await;
    cluster.settled(0..40, secs(40)).await;
    finish(clients).await;
    cluster.verdict().assert_clean();
}

/// Whether client `id` moves to `host` when that joins the ready pods.
fn moves_to(cluster: &Cluster, id: u32, host: u8) -> bool {
    let node = cluster.range.addr(host, support::range::LISTEN).to_string();
    let nodes: Vec<String> = cluster.members.owning().into_iter().chain([node.clone()]).collect();
    support::owner::owner(&nodes, &key(id)) == node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pod_that_dies_in_the_middle_of_moves_costs_nothing() {
    let mut cluster = slow_moves(3).start().await;
    let clients = cluster.fleet(0..40, millis(100)).await;
    let moving = (0..40).find(|id| moves_to(&cluster, *id, 4)).expect("one of forty moves");
    cluster.join(4).await;
    under_way(&cluster, 4, moving).await;
    cluster.kill(4);
    cluster.leave(4);
    cluster.settled(0..40, secs(40)).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    eprintln!("{verdict}");
    verdict.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_app_that_refuses_the_credential_leaves_the_client_where_it_is() {
    let mut cluster = Setup::sidecars(1).start().await;
    let (id, mut raw) = mover(&cluster).await;
    echo(&mut raw, "before").await;
    cluster.add(2).await;
    cluster.app(2).set(|m| m.refuses = Some(401));
    let node = cluster.pods[&2].id.clone();
    cluster.members.join(&node);
    under_way(&cluster, 2, id).await;
    for n in 0..20 {
        echo(&mut raw, &format!("still at the old pod {n}")).await;
    }
    assert_eq!(cluster.app(1).clients(), [id]);
    assert_eq!(pending(&cluster).await, "0", "it is not tried any more");
    cluster.kill(1);
    let (opcode, payload) = raw.message().await.unwrap();
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_app_that_agrees_another_subprotocol_ends_the_client_with_1012() {
    let mut cluster = Setup::plain(1).manners(|m| m.subprotocol = Some("v1")).start().await;
    let id = cluster.mover(1, 2, &[1, 2]);
    let headers = format!("ws-user-id: {}\r\nx-client: {id}\r\nsec-websocket-protocol: v1, v2\r\n", key(id));
    let mut raw = Raw::connect(cluster.addr(), "/", &headers).await.unwrap();
    assert_eq!(raw.answer.header("sec-websocket-protocol"), Some("v1"));
    cluster.add(2).await;
    cluster.app(2).set(|m| m.subprotocol = Some("v2"));
    let node = cluster.pods[&2].id.clone();
    cluster.members.join(&node);
    let (opcode, payload) = raw.message().await.unwrap();
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1012_u16.to_be_bytes()[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flapping_members_settle_and_lose_nothing() {
    let mut cluster = Setup::sidecars(3).start().await;
    let clients = cluster.fleet(0..40, millis(100)).await;
    cluster.add(4).await;
    let node = cluster.pods[&4].id.clone();
    for _ in 0..10 {
        // The rhythm is the fault itself.
        cluster.members.join(&node);
        tokio::time::sleep(millis(200)).await;
        cluster.members.remove(&node);
        tokio::time::sleep(millis(200)).await;
    }
    cluster.settled(0..40, secs(40)).await;
    finish(clients).await;
    cluster.verdict().assert_clean();
}
