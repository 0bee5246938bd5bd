//! Sends through the sidecars' API, end to end: real processes, a balancer, and clients that count what they get.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "sends/listener.rs"]
mod listener;
#[path = "../../ws-balancer/tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use listener::Listener;
use support::{
    Cluster, Setup,
    api::{Api, Sent},
    eventually,
    range::API,
    wait::{millis, secs},
};

fn api(cluster: &Cluster, host: u8) -> Api {
    Api::new(cluster.range.addr(host, API))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_each_pod_to_each_key_exactly_once() {
    const KEYS: u32 = 60;
    let cluster = Setup::sidecars(3).start().await;
    let mut listeners = Vec::new();
    for id in 0..KEYS {
        listeners.push(Listener::connect(cluster.addr(), &support::client::key(id)).await);
    }
    for host in 1..=3 {
        let mut api = api(&cluster, host);
        for id in 0..KEYS {
            let (key, text) = (support::client::key(id), format!("{host}-{id}"));
            let sent = api.send(&key, &text, "").await;
            assert_eq!((sent.status, sent.json()["delivered"].as_u64()), (200, Some(1)), "{sent:?}");
            assert_eq!(sent.json()["node"], cluster.pods[&cluster.owner(id)].id.as_str());
            let received = api.send(&key, &format!("{text}-r"), "?ack=received").await;
            assert_eq!(received.status, 200, "{received:?}");
        }
        let absent = api.send("nobody", "x", "").await;
        assert_eq!(
            (absent.status, absent.json()["type"].as_str()),
            (404, Some("not-connected")),
            "{absent:?}"
        );
    }
    for (id, listener) in listeners.into_iter().enumerate() {
        let expected: Vec<String> =
            (1..=3).flat_map(|host| [format!("{host}-{id}"), format!("{host}-{id}-r")]).collect();
        assert_eq!(listener.heard(expected.len()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_found_as_soon_as_it_has_its_101() {
    let cluster = Setup::sidecars(2).start().await;
    let mut apis = [api(&cluster, 1), api(&cluster, 2)];
    for id in 0..100 {
        let key = support::client::key(id);
        let (socket, _) = support::client::open(cluster.addr(), "/", &[("ws-user-id", &key)]).await.unwrap();
        let sent = apis[id as usize % 2].send(&key, "welcome", "").await;
        assert_eq!(sent.status, 200, "{sent:?}");
        drop(socket);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_devices_close_bulk_and_the_app() {
    let cluster = Setup::sidecars(3).start().await;
    let mut api = api(&cluster, 1);
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(Listener::connect(cluster.addr(), "user-7").await);
    }
    let sent = api.send("user-7", "all", "").await;
    assert_eq!((sent.status, sent.json()["delivered"].as_u64()), (200, Some(3)), "{sent:?}");
    let shown = api.call("GET", "/v1/keys/user-7", &[], b"").await.json();
    let shown = shown["connections"].as_array().unwrap();
    assert_eq!(shown.len(), 3);
    for connection in shown {
        assert_eq!(connection["node"], cluster.pods[&cluster.owner(7)].id.as_str());
        assert!(connection["remote"].as_str().unwrap().starts_with("127."), "{connection}");
        assert!(connection["since"].as_str().unwrap().ends_with('Z'));
    }
    // The app echoes what it takes for a client's message, on the oldest connection.
    let to_app = api.send("user-7", "echo", "?to=app").await;
    assert_eq!((to_app.status, to_app.json()["delivered"].as_u64()), (200, Some(1)), "{to_app:?}");
    let lines = "{\"key\":\"user-7\",\"text\":\"bulk\"}\n{\"key\":\"nobody\",\"text\":\"x\"}\nnonsense\n\
                 {\"key\":\"user-7\",\"base64\":\"AAEC\"}\n";
    let bulk = api.call("POST", "/v1/messages", &[], lines.as_bytes()).await;
    let statuses: Vec<u64> = bulk.lines().iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 404, 400, 200], "{bulk:?}");
    let closed = api.call("DELETE", "/v1/keys/user-7?code=4001&reason=gone%20away", &[], b"").await;
    assert_eq!((closed.status, closed.json()["closed"].as_u64()), (200, Some(3)), "{closed:?}");
    let mut echoes = 0;
    for device in devices {
        let (heard, code) = device.end().await;
        assert_eq!(code, Some((4001, "gone away".to_owned())));
        echoes += heard.iter().filter(|text| *text == "echo").count();
        let others: Vec<&String> = heard.iter().filter(|text| *text != "echo").collect();
        assert_eq!(others, ["all", "bulk", "binary 3"]);
    }
    assert_eq!(echoes, 1);
    eventually(secs(5), "the key is gone", async || {
        api.call("GET", "/v1/keys/user-7", &[], b"").await.status == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_many_sends_only_what_was_surely_not_delivered() {
    let cluster = Setup::sidecars(2).start().await;
    let mut api = api(&cluster, 1);
    let early = Listener::connect(cluster.addr(), "early").await;
    let lines = "{\"key\":\"early\",\"text\":\"once\"}\n{\"key\":\"late\",\"text\":\"once\"}\n";
    let mut send = async || {
        let bulk = api.call("POST", "/v1/messages", &[("idempotency-key", "1")], lines.as_bytes()).await;
        bulk.lines().iter().map(|line| line["status"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(send().await, [200, 404]);
    let late = Listener::connect(cluster.addr(), "late").await;
    for _ in 0..3 {
        assert_eq!(send().await, [200, 200]);
    }
    assert_eq!(api.call("DELETE", "/v1/keys/early", &[], b"").await.status, 200);
    assert_eq!(api.call("DELETE", "/v1/keys/late", &[], b"").await.status, 200);
    for client in [early, late] {
        assert_eq!(client.end().await.0, ["once"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_on_two_nodes_is_reached_as_a_whole() {
    let cluster = Setup::sidecars(3).start().await;
    let (key, owner) = (support::client::key(1), cluster.owner(1));
    let other = 1 + owner % 3;
    let mut room = Vec::new();
    for _ in 0..10 {
        room.push(Listener::connect(cluster.addr(), &key).await);
        // As a balancer does that takes the owner for dead.
        room.push(Listener::as_leg(cluster.pod_addr(other), &key).await);
    }
    let mut first = api(&cluster, owner);
    eventually(secs(5), "the owner knows of the other holder", async || {
        let shown = first.call("GET", &format!("/v1/keys/{key}"), &[], b"").await;
        shown.json()["connections"].as_array().is_some_and(|shown| shown.len() == 20)
    })
    .await;
    let mut expected = Vec::new();
    for host in 1..=3 {
        let mut api = api(&cluster, host);
        for n in 0..20 {
            let text = format!("{host}-{n}");
            let sent = api.send(&key, &text, "").await;
            assert_eq!((sent.status, sent.json()["delivered"].as_u64()), (200, Some(20)), "{sent:?}");
            expected.push(text);
        }
    }
    for member in room {
        assert_eq!(member.heard(expected.len()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_without_pause_while_pods_come_and_go() {
    const CALLERS: u32 = 60;
    let mut cluster = Setup::sidecars(3).start().await;
    let mut listeners = BTreeMap::new();
    for id in 0..CALLERS {
        let key = support::client::key(id);
        listeners.insert(id, Listener::connect(cluster.addr(), &key).await);
    }
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = Vec::new();
    for id in 0..CALLERS {
        // Pod 3 will leave: its app is gone before its sidecar, and asks nothing.
        let (api, stop, sent) =
            (api(&cluster, u8::try_from(1 + id % 2).unwrap()), stop.clone(), sent.clone());
        callers.push(tokio::spawn(call_until(api, id, stop, sent)));
    }
    let flow = async |more: u64| {
        let goal = sent.load(Ordering::Relaxed) + more;
        eventually(secs(60), "sends go on", async || sent.load(Ordering::Relaxed) >= goal).await;
    };
    flow(300).await;
    cluster.join(4).await;
    cluster.settled(0..0, secs(1)).await;
    flow(2000).await;
    cluster.drain(3);
    flow(1000).await;
    cluster.stop(3).await;
    cluster.members.remove(&cluster.range.addr(3, support::range::LISTEN).to_string());
    flow(2000).await;
    stop.store(true, Ordering::Relaxed);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for (id, caller) in (0..).zip(callers) {
        let (delivered, others) = caller.await.unwrap();
        let mut heard = listeners.remove(&id).unwrap().heard(delivered.len()).await;
        for (text, sent) in others {
            *statuses.entry(sent.status).or_default() += 1;
            let there = heard.iter().position(|heard| *heard == text);
            assert!(there.is_none() || sent.status == 504, "{text} was delivered in spite of {sent:?}");
            there.map(|at| heard.remove(at));
        }
        assert_eq!(heard, delivered, "caller {id}: every 200 once and in order, and nothing else");
    }
    eprintln!("{} sends, besides 200: {statuses:?}", sent.load(Ordering::Relaxed));
    assert!(statuses.keys().all(|status| matches!(status, 429 | 503)), "{statuses:?}");
}

/// Sends without pause; gives what was answered 200, and the other answers.
async fn call_until(
    mut api: Api,
    id: u32,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> (Vec<String>, Vec<(String, Sent)>) {
    let (mut delivered, mut others) = (Vec::new(), Vec::new());
    let key = support::client::key(id);
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{id}-{n}");
        let answer = api.send(&key, &text, "").await;
        n += 1;
        sent.fetch_add(1, Ordering::Relaxed);
        if answer.status == 200 {
            delivered.push(text);
        } else {
            others.push((text, answer));
            tokio::time::sleep(millis(20)).await;
        }
    }
    (delivered, others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_keep_strangers_out_and_rotate_under_load() {
    let file =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("token-{}", std::process::id()));
    std::fs::write(&file, "old\n").unwrap();
    let flags = ["--peer-token-file", file.to_str().unwrap()];
    let cluster = Setup::sidecars(2).balancer(&flags).sidecar(&flags).start().await;
    let clients = [
        Listener::connect(cluster.addr(), &support::client::key(cluster.client_of(1, 0))).await,
        Listener::connect(cluster.addr(), &support::client::key(cluster.client_of(2, 0))).await,
    ];
    let keys = [1, 2].map(|host| support::client::key(cluster.client_of(host, 0)));
    let mut stranger = Api::new(cluster.pod_addr(1));
    for header in [("x-nothing", "1"), ("authorization", "Bearer wrong")] {
        let answer = stranger.call("GET", &format!("/v1/keys/{}", keys[0]), &[header], b"").await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    let known = [("authorization", "Bearer old")];
    let answer = stranger.call("GET", &format!("/v1/keys/{}", keys[0]), &known, b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for proof in ["00", "", "not a proof"] {
        for claim in ["ws-routing-key", "x-nothing"] {
            let forged = [(claim, "forged"), ("ws-user-id", "k"), ("ws-routing-proof", proof)];
            let refused = support::client::open(cluster.pod_addr(1), "/", &forged).await;
            assert!(format!("{refused:?}").contains("401"), "{claim} {proof:?}: {refused:?}");
        }
    }
    let mut api = api(&cluster, 1);
    let mut expected = Vec::new();
    for (step, tokens) in ["old\n", "old\nnew\n", "new\nold\n", "new\n"].iter().enumerate() {
        std::fs::write(&file, tokens).unwrap();
        let end = tokio::time::Instant::now() + Duration::from_millis(1500);
        while tokio::time::Instant::now() < end {
            let text = format!("{step}-{}", expected.len());
            for key in &keys {
                let sent = api.send(key, &text, "").await;
                assert_eq!(sent.status, 200, "{tokens:?} {sent:?}");
            }
            expected.push(text);
        }
    }
    let fresh = Listener::connect(cluster.addr(), "later").await;
    assert_eq!(api.send("later", "x", "").await.status, 200);
    assert_eq!(fresh.heard(1).await, ["x"]);
    for client in clients {
        assert_eq!(client.heard(expected.len()).await, expected);
    }
    std::fs::remove_file(file).unwrap();
}
