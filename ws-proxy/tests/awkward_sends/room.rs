//! A room of twenty connections of one key, through two balancers that disagree about a node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::task::JoinHandle;

use crate::{
    api,
    listener::Listener,
    support::{Cluster, Setup, api::Api, client, eventually, wait::secs},
};

const ROOM: usize = 20;

/// What a caller was told of one send.
struct Told {
    text: String,
    status: u16,
    delivered: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_send_reaches_a_room_whose_owner_one_of_two_balancers_takes_for_dead() {
    let cluster = Setup::sidecars(3).links().start().await;
    let (key, owner) = (client::key(1), cluster.owner(1));
    // Handshakes of the second balancer's clients get no answer from the owner, and all else does.
    let impatient = ["--handshake-timeout", "1s", "--suspect-for", "8s"];
    let (_second, addr) = cluster.second_balancer(&impatient).await;
    let link = cluster.pods[&owner].link();
    link.leave_unheard(Some(addr.to_string()));
    let mut room = Vec::new();
    for _ in 0..ROOM / 2 {
        room.push(Listener::connect(cluster.addr(), &key).await);
        room.push(Listener::connect(addr, &key).await);
    }
    link.leave_unheard(None);
    eventually(secs(10), "all are known, on two nodes", async || {
        let places = places(&mut api(&cluster, owner), &key).await;
        places.values().sum::<usize>() == ROOM && places.len() == 2
    })
    .await;

    let mut expected = Vec::new();
    for (host, n) in (1..=3).flat_map(|host| (0..10).map(move |n| (host, n))) {
        let text = format!("apart {host}-{n}");
        let sent = api(&cluster, host).send(&key, &text, "").await;
        assert_eq!((sent.status, sent.json()["delivered"].as_u64()), (200, Some(20)), "{sent:?}");
        assert!(sent.json().get("slow").is_none(), "{sent:?}");
        expected.push(text);
    }
    let apart = places(&mut api(&cluster, owner), &key).await.len();
    let told = reunited(&cluster, owner, &key).await;
    eprintln!("on {apart} nodes, then {} sends until all were on one: {:?}", told.len(), statuses(&told));
    let delivered = told.iter().filter(|told| told.status == 200);
    let all: Vec<&Told> = delivered.clone().filter(|told| told.delivered == ROOM as u64).collect();
    let wanted = expected.len() + all.len();
    let mut heard = Vec::new();
    for member in room {
        heard.push(member.heard(wanted).await);
    }
    for text in &expected {
        assert!(heard.iter().all(|heard| heard.iter().filter(|h| *h == text).count() == 1), "{text}");
    }
    for Told { text, status, delivered } in &told {
        let times: Vec<usize> = heard.iter().map(|h| h.iter().filter(|h| *h == text).count()).collect();
        assert!(times.iter().all(|times| *times <= 1), "{text} came twice: {times:?}");
        let reached = times.iter().sum::<usize>() as u64;
        assert!(reached == *delivered || *status == 504, "{text}: {status}, {delivered}, in truth {reached}");
    }
    for (host, heard) in (1..=3).flat_map(|host| heard.iter().map(move |heard| (host, heard))) {
        let prefix = format!("{host}:");
        let numbers = heard.iter().filter_map(|text| text.strip_prefix(&prefix)?.parse::<u64>().ok());
        assert!(numbers.is_sorted(), "sends of pod {host} are out of order");
    }
}

/// How many connections of a key each node has.
async fn places(api: &mut Api, key: &str) -> BTreeMap<String, usize> {
    let shown = api.call("GET", &format!("/v1/keys/{key}"), &[], b"").await.json();
    let mut places = BTreeMap::new();
    for connection in shown["connections"].as_array().into_iter().flatten() {
        *places.entry(connection["node"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    places
}

/// Sends from every pod without pause until all of the room is at its owner. What was told of each send.
async fn reunited(cluster: &Cluster, owner: u8, key: &str) -> Vec<Told> {
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<JoinHandle<Vec<Told>>> = (1..=3)
        .map(|host| tokio::spawn(call(api(cluster, host), host, key.to_owned(), stop.clone(), sent.clone())))
        .collect();
    let mut watcher = api(cluster, owner);
    let home: BTreeSet<String> = [cluster.pods[&owner].id.clone()].into();
    eventually(secs(60), "all are at the owner", async || {
        let places = places(&mut watcher, key).await;
        places.values().sum::<usize>() == ROOM && places.into_keys().collect::<BTreeSet<_>>() == home
    })
    .await;
    let goal = sent.load(Ordering::Relaxed) + 30;
    eventually(secs(20), "sends go on", async || sent.load(Ordering::Relaxed) >= goal).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for caller in callers {
        told.extend(caller.await.unwrap());
    }
    told
}

async fn call(mut api: Api, host: u8, key: String, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Vec<Told> {
    let mut told = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{host}:{}", told.len());
        let answer = api.send(&key, &text, "").await;
        let delivered = answer.json()["delivered"].as_u64().unwrap_or(0);
        assert!(matches!(answer.status, 200 | 429 | 503), "{answer:?}");
        told.push(Told { text, status: answer.status, delivered });
        sent.fetch_add(1, Ordering::Relaxed);
    }
    told
}

fn statuses(told: &[Told]) -> BTreeMap<(u16, u64), usize> {
    let mut statuses = BTreeMap::new();
    told.iter().for_each(|told| *statuses.entry((told.status, told.delivered)).or_default() += 1);
    statuses
}
