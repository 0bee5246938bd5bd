//! Rings beside each other, and beside what others made.

use std::time::Duration;

use serde_json::json;

use crate::{
    app::{deployment, labelled, namespace, pods, ring_is_whole, rolled_out, text},
    fleet::{Fleet, assert_clean},
    kubectl::eventually,
    setup::Installed,
};

pub fn two_groups(cluster: &Installed) {
    let ns = "groups";
    namespace(cluster, ns);
    for group in ["red", "blue"] {
        cluster.create(&[labelled(deployment(ns, group, 2), &[("group", group)])]);
    }
    for group in ["red", "blue"] {
        rolled_out(cluster, ns, group);
        ring_is_whole(cluster, ns, group, &format!("-{group}"));
    }
    let fleet = Fleet::start(cluster, ns, "ws-balancer-red", 20);
    let reds: Vec<String> =
        pods(cluster, ns, "app=red").iter().map(|pod| text(&pod["metadata"]["name"])).collect();
    let verdict = fleet.finish();
    assert_clean(&verdict);
    let heard = verdict["pods"].as_object().unwrap();
    assert!(heard.keys().all(|pod| reds.contains(pod)), "of {reds:?} alone: {heard:?}");
    cluster.gone(ns);
}

pub fn foreign_service(cluster: &Installed) {
    let ns = "foreign";
    namespace(cluster, ns);
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": ns, "name": "ws-proxy-headless"},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
    });
    cluster.apply(&[theirs]);
    let before = cluster.get(&["service", "-n", ns, "ws-proxy-headless"]);
    cluster.create(&[labelled(deployment(ns, "chat", 1), &[])]);
    eventually(Duration::from_secs(60), "it is reported", || {
        let events = cluster.list(&["events", "-n", ns]);
        match events.iter().any(|event| {
            event["reason"] == "NameTaken" && event["involvedObject"]["name"] == "ws-proxy-headless"
        }) {
            true => Ok(()),
            false => Err(format!("{} events", events.len())),
        }
    });
    let after = cluster.get(&["service", "-n", ns, "ws-proxy-headless"]);
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    cluster.gone(ns);
}
