//! Every client lands on the owner of its key, through the balancer and through any sidecar.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, net::SocketAddr};

use futures_util::{StreamExt as _, stream};
use support::{
    Cluster, Raw, Setup,
    client::{self, open},
    eventually, owner,
    wait::{millis, secs},
};
use tokio_tungstenite::tungstenite::Message;

/// Handshakes under way at once.
const AT_ONCE: usize = 32;

/// Connects under each key and reads the pod's name from the app's answer, then goes.
async fn landings(addr: SocketAddr, keys: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let dials = keys.map(|key| async move {
        let raw = Raw::open(addr, &key).await;
        let pod = raw.answer.header("x-pod").expect("the app's header").to_owned();
        (key, pod)
    });
    stream::iter(dials).buffer_unordered(AT_ONCE).collect().await
}

fn assert_owned(cluster: &Cluster, landings: &BTreeMap<String, String>) {
    let nodes = cluster.members.owning();
    for (key, pod) in landings {
        assert_eq!(*pod, owner::owner(&nodes, key), "key {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_keys_land_on_their_owners() {
    let cluster = Setup::plain(5).start().await;
    let landings = landings(cluster.addr(), (0..10_000).map(|n| format!("device-{n}"))).await;
    assert_eq!(landings.len(), 10_000);
    assert_owned(&cluster, &landings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_are_reached_as_plain_nodes_are_and_any_of_them_is_an_entry() {
    let cluster = Setup::sidecars(3).start().await;
    let doors = [cluster.addr(), cluster.pod_addr(1), cluster.pod_addr(2), cluster.pod_addr(3)];
    for door in doors {
        let landings = landings(door, (0..300).map(|n| format!("room-{n}"))).await;
        assert_eq!(landings.len(), 300);
        assert_owned(&cluster, &landings);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_names_the_same_owners() {
    let cluster = Setup::plain(3).start().await;
    let nodes = cluster.members.owning();
    for key in ["user-1", "Ωmega", "a b/c?d", "x"] {
        let encoded: String = key.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = cluster.balancer.admin(&format!("/v1/owner/{encoded}")).await.json();
        assert_eq!(answer["owner"], owner::owner(&nodes, key).as_str(), "{answer}");
    }
    let members = cluster.balancer.admin("/v1/members").await.json();
    let ids: Vec<&str> =
        members["nodes"].as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap()).collect();
    assert_eq!(ids, nodes);
}

#[tokio::test]
async fn weights_draw_their_share() {
    let mut cluster = Setup::plain(2).start().await;
    let ids = cluster.members.owning();
    cluster.members.overwrite(&format!("{}\n{} weight=300 # three times as much\n", ids[0], ids[1]));
    let weight = async || {
        let members = cluster.balancer.admin("/v1/members").await.json();
        members["nodes"].as_array().unwrap().iter().any(|node| node["weight"] == 300)
    };
    eventually(secs(5), "the new weight", weight).await;
    let nodes = [owner::Candidate::new(&ids[0]), owner::Candidate { id: ids[1].clone(), weight: 300 }];
    for (key, pod) in landings(cluster.addr(), (0..200).map(|n| format!("k{n}"))).await {
        assert_eq!(pod, owner::ranked(&nodes, &key, 0)[0], "key {key}");
    }
    cluster.members.edit(|_| {});
}

#[tokio::test]
async fn the_key_is_found_where_the_flag_says_first_hit_first() {
    let keys = "header:x-room,query:room,path:/rooms/{key},cookie:room,protocol:room";
    let cluster = Setup::plain(3).balancer(&["--key", keys]).start().await;
    let nodes = cluster.members.owning();
    let cases = [
        ("/", "x-room: a1\r\n", "a1"),
        ("/?room=b%2F2&x=1", "", "b/2"),
        ("/rooms/c%203", "", "c 3"),
        ("/", "cookie: other=1; room=d4\r\n", "d4"),
        ("/", "sec-websocket-protocol: chat, room.e5\r\n", "e5"),
        ("/rooms/path?room=query", "x-room: header\r\n", "header"),
        ("/rooms/path?room=", "x-room: \r\n", "path"),
    ];
    for (path, headers, key) in cases {
        let raw = Raw::connect(cluster.addr(), path, headers).await.unwrap();
        assert_eq!(raw.answer.status, 101, "{path} {headers}");
        assert_eq!(raw.answer.header("x-pod"), Some(owner::owner(&nodes, key).as_str()), "{path} {headers}");
    }
}

#[tokio::test]
async fn a_handshake_reaches_the_app_as_the_client_sent_it_plus_ours_minus_forgeries() {
    let cluster = Setup::sidecars(1).start().await;
    let headers = [
        ("ws-user-id", "user 7"),
        ("cookie", "a=b; c=d"),
        ("authorization", "Bearer t"),
        ("ws-routing-key", "forged"),
        ("WS_ROUTING_CONNECTION", "forged"),
        ("ws-routing-moved-from", "forged"),
    ];
    let (mut socket, _) = open(cluster.addr(), "/deep/path?q=1&q=2", &headers).await.unwrap();
    socket.close(None).await.unwrap();
    let seen = cluster.app(1).handshakes().pop().unwrap();
    assert_eq!(seen.target, "/deep/path?q=1&q=2");
    for (name, value) in
        [("cookie", "a=b; c=d"), ("authorization", "Bearer t"), ("ws-routing-key", "user%207")]
    {
        assert_eq!(seen.header(name), Some(value));
    }
    assert!(seen.header("x-forwarded-for").is_some_and(|v| v.starts_with("127.")), "{seen:?}");
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert!(seen.header("traceparent").is_some() && seen.header("x-forwarded-host").is_some(), "{seen:?}");
    for hidden in ["ws-routing-moved-from", "ws-routing-nonce", "ws_routing_connection", "ws-routing-proof"] {
        assert_eq!(seen.header(hidden), None, "{hidden}");
    }
    assert_ne!(seen.header("ws-routing-connection"), Some("forged"));
}

#[tokio::test]
async fn a_prefix_of_the_app_stands_before_the_path() {
    let mut setup = Setup::sidecars(1);
    setup.app_path = "/prefix".to_owned();
    let cluster = setup.start().await;
    let (mut socket, _) = open(cluster.addr(), "/p?q=1", &[("ws-user-id", "u")]).await.unwrap();
    socket.close(None).await.unwrap();
    assert_eq!(cluster.app(1).handshakes()[0].target, "/prefix/p?q=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_members_file_leaves_the_last_good_set_and_names_the_line() {
    let mut cluster = Setup::plain(3).start().await;
    let mut client = cluster.client(1).await;
    client.ask(secs(5)).await;
    let good = cluster.members.owning();
    cluster.members.overwrite(&format!("{}\n# fine\nthis is no node\n", good[0]));
    let path = cluster.members.path().display().to_string();
    let warned = async || {
        let output = cluster.balancer.output();
        output.lines().any(|l| l.contains(&path) && l.contains('3') && l.contains("this is no node"))
    };
    eventually(secs(5), "a warning with file, line and text", warned).await;
    client.ask(secs(5)).await;
    assert_owned(&cluster, &landings(cluster.addr(), (0..50).map(|n| format!("k{n}"))).await);
    cluster.members.remove(&good[0]);
    let gone = async || {
        let members = cluster.balancer.admin("/v1/members").await.json();
        members["nodes"].as_array().unwrap().len() == 2
    };
    eventually(secs(5), "the repaired file", gone).await;
    client.ask(millis(5000)).await;
    client.leave().await;
    assert!(cluster.verdict().closed.is_empty());
}

#[tokio::test]
async fn the_apps_first_word_is_not_lost() {
    let cluster = Setup::sidecars(2).manners(|m| m.greets = true).start().await;
    for id in 0..20 {
        let (mut socket, _) = open(cluster.addr(), "/", &[("ws-user-id", &client::key(id))]).await.unwrap();
        let first = support::wait::bounded(secs(5), "a greeting", socket.next()).await.unwrap().unwrap();
        assert!(matches!(&first, Message::Text(text) if text.starts_with('=')), "{first:?}");
    }
}
