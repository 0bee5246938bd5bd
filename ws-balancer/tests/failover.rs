//! Dead nodes: handshakes go on by rank, live connections stay, and the keys come home when the node is back.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use support::{
    Cluster, Raw, Setup,
    client::{Driven, finish, key},
    eventually,
    fault::{Fault, Mode},
    lateness::Lateness,
    owner::{self, Candidate},
    process::Process,
    range::{ADMIN, APP, CLIENTS, Range},
    raw::CLOSE,
    wait::{bounded, millis, secs},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::Instant,
};

/// The pods in the order in which they are tried for client `id`.
fn ranked(cluster: &Cluster, id: u32) -> Vec<u8> {
    let nodes: Vec<_> = cluster.members.owning().into_iter().map(Candidate::new).collect();
    let host = |node: &String| *cluster.pods.iter().find(|(_, pod)| pod.id == *node).unwrap().0;
    owner::ranked(&nodes, &key(id), 0).iter().map(host).collect()
}

async fn status(addr: SocketAddr, id: u32) -> (u16, Option<String>) {
    let raw = Raw::connect(addr, "/", &format!("ws-user-id: {}\r\n", key(id))).await.unwrap();
    (raw.answer.status, raw.answer.header("x-pod").map(str::to_owned))
}

#[tokio::test]
async fn refused_plain_nodes_are_passed_over_by_rank() {
    let mut cluster = Setup::plain(4).start().await;
    let ranked = ranked(&cluster, 1);
    for host in &ranked[..2] {
        assert_eq!(status(cluster.addr(), 1).await, (101, Some(cluster.pods[host].id.clone())));
        cluster.kill(*host);
    }
    assert_eq!(status(cluster.addr(), 1).await, (101, Some(cluster.pods[&ranked[2]].id.clone())));
}

#[tokio::test]
async fn a_sidecar_whose_app_is_dead_is_passed_over() {
    let mut cluster = Setup::sidecars(3).start().await;
    let ranked = ranked(&cluster, 1);
    cluster.pods.get_mut(&ranked[0]).unwrap().app = None;
    for door in [cluster.addr(), cluster.pod_addr(ranked[1]), cluster.pod_addr(ranked[2])] {
        assert_eq!(status(door, 1).await, (101, Some(cluster.pods[&ranked[1]].id.clone())), "{door}");
    }
}

/// Its keys belong to others already, and do not change their owner once more.
#[tokio::test]
async fn a_node_that_was_suspect_when_it_began_to_drain_or_left_is_left_all_the_same() {
    for go in [Cluster::drain, Cluster::leave] {
        let mut cluster = Setup::sidecars(2).start().await;
        let clients = [0, 1000].map(|from| cluster.client_of(1, from));
        let stays = cluster.client(clients[0]).await.drive(millis(50));
        eventually(secs(5), "it is at its owner", async || cluster.app(1).clients() == clients[..1]).await;
        cluster.app(1).stop_listening();
        let other = Some(cluster.pods[&2].id.clone());
        assert_eq!(status(cluster.addr(), clients[1]).await, (101, other), "the owner is suspect");
        assert_eq!(cluster.app(1).clients(), clients[..1], "a failed dial says nothing of live legs");
        go(&mut cluster, 1);
        eventually(secs(3), "it has moved", async || cluster.app(2).clients().contains(&clients[0])).await;
        finish(vec![stays]).await;
        cluster.verdict().assert_clean();
    }
}

#[tokio::test]
async fn a_node_that_leaves_the_members_as_it_dies_is_given_up_all_the_same() {
    let mut cluster = Setup::sidecars(3).links().start().await;
    let dead = cluster.owner(1);
    // A client that sends on: what is written is a sign of life, so no ping finds out.
    let client = cluster.client(1).await.drive(millis(50));
    eventually(secs(10), "messages flow", async || client.sent() > 5).await;
    cluster.pods[&dead].link().set(Mode::Stall);
    cluster.leave(dead);
    let home = cluster.owner(1);
    eventually(secs(20), "the client is at its new owner", async || cluster.app(home).clients() == [1]).await;
    client.finish().await;
    assert_eq!(cluster.verdict().closed, []);
}

#[tokio::test]
async fn three_dead_nodes_are_a_bad_gateway_and_the_fourth_serves_the_next() {
    let mut cluster = Setup::plain(4).start().await;
    let ranked = ranked(&cluster, 1);
    ranked[..3].iter().for_each(|host| cluster.kill(*host));
    assert_eq!(status(cluster.addr(), 1).await.0, 502);
    assert_eq!(status(cluster.addr(), 1).await, (101, Some(cluster.pods[&ranked[3]].id.clone())));
}

#[tokio::test]
async fn when_every_node_is_suspect_the_service_is_unavailable() {
    let mut cluster = Setup::plain(2).start().await;
    cluster.kill(1);
    cluster.kill(2);
    assert_eq!(status(cluster.addr(), 1).await.0, 502);
    let raw = Raw::connect(cluster.addr(), "/", "ws-user-id: k\r\n").await.unwrap();
    assert_eq!(raw.answer.status, 503);
    assert!(raw.answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_node_that_does_not_take_connections_costs_the_dial_timeout() {
    let range = Range::claim();
    let (hole, _full) = black_hole(range.addr(1, APP)).await;
    let logs = support::Logs::new();
    let app = support::App::start(range.addr(2, APP), "good", &logs, Default::default()).await;
    let nodes = [hole.to_string(), app.addr.to_string()];
    let (_balancer, addr) = balancer(&range, &nodes).await;
    let id = (0..).find(|id| owner::owner(&nodes, &key(*id)) == nodes[0]).unwrap();
    let begun = Instant::now();
    assert_eq!(status(addr, id).await, (101, Some("good".to_owned())));
    assert!(begun.elapsed() >= millis(1900), "the dial timeout is 2 s: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(status(addr, id).await.0, 101);
    assert!(begun.elapsed() < millis(1500), "a suspect node is not tried: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_node_that_never_answers_the_handshake_costs_the_handshake_timeout() {
    let range = Range::claim();
    let silent = tokio::net::TcpListener::bind(range.addr(1, APP)).await.unwrap();
    let logs = support::Logs::new();
    let app = support::App::start(range.addr(2, APP), "good", &logs, Default::default()).await;
    let nodes = [silent.local_addr().unwrap().to_string(), app.addr.to_string()];
    let (_balancer, addr) = balancer(&range, &nodes).await;
    let id = (0..).find(|id| owner::owner(&nodes, &key(*id)) == nodes[0]).unwrap();
    let begun = Instant::now();
    assert_eq!(status(addr, id).await, (101, Some("good".to_owned())));
    assert!(begun.elapsed() < secs(9), "{:?}", begun.elapsed());
}

/// A listener whose queue is full, so that the kernel answers no further connection.
async fn black_hole(addr: SocketAddr) -> (SocketAddr, (tokio::net::TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(addr).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(millis(300), TcpStream::connect(addr)).await {
        held.push(stream);
    }
    (addr, (listener, held))
}

async fn balancer(range: &Range, nodes: &[String]) -> (Process, SocketAddr) {
    let (listen, admin) = (range.addr(250, CLIENTS), range.addr(250, ADMIN).to_string());
    let members = format!("static:{}", nodes.join(","));
    let flags = ["--listen", &listen.to_string(), "--admin", &admin, "--members", &members];
    let mut balancer = Process::balancer(&flags.map(str::to_owned));
    balancer.ready().await;
    (balancer, listen)
}

/// Sudden death of pod `dead` under load: all connections stay, and messages flow again within a second.
async fn crash(setup: Setup, dead: u8) {
    let mut cluster = setup.start().await;
    let clients = cluster.fleet(0..60, millis(50)).await;
    eventually(secs(20), "messages flow", async || clients.iter().all(|c| c.sent() >= 10)).await;
    let orphans: Vec<u32> = (0..60).filter(|id| cluster.owner(*id) == dead).collect();
    cluster.kill(dead);
    let killed = Instant::now();
    eventually(secs(5), "the survivors hold everybody", async || held(&cluster) == 60).await;
    assert!(killed.elapsed() < millis(1500), "{:?} until everybody was taken over", killed.elapsed());
    settle(&clients).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    eprintln!("{verdict}");
    assert!(verdict.closed.is_empty(), "{verdict}");
    assert_eq!((verdict.up.repeated, verdict.up.reordered, verdict.up.invented), (0, 0, 0), "{verdict}");
    assert_eq!(
        (verdict.down.repeated, verdict.down.reordered, verdict.down.invented),
        (0, 0, 0),
        "{verdict}"
    );
    assert_eq!(verdict.moves, orphans.len(), "only the dead pod's clients moved: {verdict}");
    assert!(verdict.up.lost <= 4 * orphans.len(), "{verdict}");
}

fn held(cluster: &Cluster) -> usize {
    cluster.pods.values().filter_map(|pod| pod.app.as_ref()).map(|app| app.clients().len()).sum()
}

async fn settle(clients: &[Driven]) {
    let goals: Vec<u64> = clients.iter().map(|client| client.sent() + 10).collect();
    let reached = async || clients.iter().zip(&goals).all(|(client, goal)| client.sent() >= *goal);
    eventually(secs(20), "messages flow again", reached).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_dies_at_once_closes_nobody() {
    crash(Setup::sidecars(3), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_node_that_dies_at_once_closes_nobody() {
    crash(Setup::plain(3), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_dies_behind_a_living_sidecar_closes_nobody() {
    let mut cluster = Setup::sidecars(3).start().await;
    let clients = cluster.fleet(0..30, millis(50)).await;
    eventually(secs(20), "messages flow", async || clients.iter().all(|c| c.sent() >= 10)).await;
    cluster.pods.get_mut(&1).unwrap().app = None;
    eventually(secs(5), "the survivors hold everybody", async || held(&cluster) == 30).await;
    settle(&clients).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    assert!(verdict.closed.is_empty() && verdict.up.repeated + verdict.up.reordered == 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_home_when_their_pod_is_back() {
    let mut cluster = Setup::sidecars(3).balancer(&["--suspect-for", "1s"]).start().await;
    let clients = cluster.fleet(0..30, millis(100)).await;
    eventually(secs(20), "messages flow", async || clients.iter().all(|c| c.sent() >= 5)).await;
    cluster.kill(2);
    eventually(secs(5), "the survivors hold everybody", async || held(&cluster) == 30).await;
    cluster.add(2).await;
    cluster.settled(0..30, secs(20)).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    assert!(verdict.closed.is_empty() && verdict.up.repeated + verdict.up.reordered == 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_pod_is_left_and_what_it_says_later_reaches_nobody() {
    let mut cluster = Setup::sidecars(3).balancer(&["--suspect-for", "1s"]).start().await;
    let clients = cluster.fleet(0..30, millis(100)).await;
    eventually(secs(20), "messages flow", async || clients.iter().all(|c| c.sent() >= 5)).await;
    let frozen: Vec<u32> = (0..30).filter(|id| cluster.owner(*id) == 2).collect();
    cluster.pods[&2].sidecar.as_ref().unwrap().signal("STOP");
    let (since, lateness) = (Instant::now(), Lateness::start());
    let elsewhere = async || {
        let others = [1, 3].map(|host| cluster.app(host).clients()).concat();
        frozen.iter().all(|id| others.contains(id))
    };
    eventually(secs(10), "the others hold its clients", elsewhere).await;
    let bound = millis(4500) + 4 * lateness.longest();
    assert!(since.elapsed() < bound, "a hung pod is found within {bound:?}: {:?}", since.elapsed());
    settle(&clients).await;
    cluster.pods[&2].sidecar.as_ref().unwrap().signal("CONT");
    cluster.settled(0..30, secs(20)).await;
    settle(&clients).await;
    finish(clients).await;
    let verdict = cluster.verdict();
    eprintln!("{verdict}");
    assert!(verdict.closed.is_empty(), "{verdict}");
    assert_eq!((verdict.up.repeated, verdict.up.invented), (0, 0), "{verdict}");
    assert_eq!(
        (verdict.down.repeated, verdict.down.reordered, verdict.down.invented),
        (0, 0, 0),
        "{verdict}"
    );
    cluster.leave(2);
}

/// The leg to it is open, and waits for the old one's last words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_hangs_before_a_client_has_moved_to_it_is_not_moved_to() {
    let setup = Setup::sidecars(1)
        .manners(|manners| manners.ticks = Some(millis(20)))
        .balancer(&["--probe-interval", "250ms"]);
    let mut cluster = setup.start().await;
    cluster.add(2).await;
    let ids = [1, 2].map(|host| cluster.pods[&host].id.clone());
    let id = (0..).find(|id| owner::owner(&ids, &key(*id)) == ids[1]).unwrap();
    let mut client = cluster.client(id).await;
    cluster.enter(2);
    eventually(secs(5), "the next leg is open", async || !cluster.app(2).clients().is_empty()).await;
    cluster.pods[&2].signal("STOP");
    client.ask(secs(10)).await;
    client.leave().await;
    cluster.pods[&2].signal("CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_is_held_needs_not_wait_for_a_pod() {
    let mut cluster = Setup::sidecars(1).balancer(&["--orphan-grace", "1h"]).start().await;
    let mut client = Raw::open(cluster.addr(), "leaves").await;
    let mut goes = Raw::open(cluster.addr(), "goes").await;
    eventually(secs(5), "the app holds them", async || cluster.app(1).clients().len() == 2).await;
    cluster.kill(1);
    client.frame(true, CLOSE, &4001_u16.to_be_bytes()).await.unwrap();
    let answer = bounded(secs(5), "an answer", client.read()).await.expect("a frame");
    assert_eq!((answer.opcode, answer.code()), (CLOSE, Some(4001)));
    goes.stream.shutdown().await.unwrap();
    let held = async || connections(&cluster).await == 0;
    eventually(secs(5), "nobody is held", held).await;
}

/// How many connections the balancer says that it holds.
async fn connections(cluster: &Cluster) -> u64 {
    let page = cluster.balancer.admin("/metrics").await.body;
    let page = String::from_utf8(page).unwrap();
    page.lines().find_map(|line| line.strip_prefix("ws_connections ")).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_pods_gone_clients_are_held_and_then_told_to_come_back() {
    let mut cluster = Setup::sidecars(2).balancer(&["--orphan-grace", "2s"]).start().await;
    let mut raw = Raw::open(cluster.addr(), "k").await;
    let gone = Instant::now();
    cluster.kill(1);
    cluster.kill(2);
    let close = loop {
        let frame = raw.read().await.unwrap();
        if frame.opcode == CLOSE {
            break frame;
        }
    };
    assert_eq!(close.code(), Some(1013));
    assert!((millis(1500)..secs(6)).contains(&gone.elapsed()), "{:?}", gone.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_reset_is_dialled_again_at_once() {
    let range = Range::claim();
    let logs = support::Logs::new();
    let app = support::App::start(range.addr(1, APP), "a", &logs, Default::default()).await;
    let link = Fault::start(range.addr(2, APP), app.addr).await;
    let (_balancer, addr) = balancer(&range, &[link.addr.to_string()]).await;
    let mut client = support::Client::connect(addr, 0, &logs).await;
    client.ask(secs(5)).await;
    link.reset();
    eventually(secs(5), "a second leg", async || app.shook(0) == 2).await;
    client.ask(secs(5)).await;
    client.leave().await;
    let (clients, apps) = logs.read();
    assert!(support::checker::check(&clients, &apps).closed.is_empty());
}
