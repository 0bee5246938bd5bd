//! Clients that must not notice what happens to pods, nodes and the operator.

use std::{thread::sleep, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    app::{deployment, labelled, namespace, pods, ring_is_whole, rolled_out, text},
    fleet::{Fleet, assert_clean},
    kubectl::eventually,
    setup::Installed,
};

/// Clients of each case.
const CLIENTS: u32 = 100;

pub fn scaled_and_rolled(cluster: &Installed) {
    let ns = "moves";
    app(cluster, ns, 3);
    let fleet = Fleet::start(cluster, ns, "ws-balancer", CLIENTS);
    for replicas in [5, 2] {
        cluster.kubectl(&["scale", "-n", ns, "deployment/chat", &format!("--replicas={replicas}")]);
        rolled_out(cluster, ns, "chat");
        ring_is_whole(cluster, ns, "chat", "");
        fleet.flows(CLIENTS);
    }
    cluster.kubectl(&["rollout", "restart", "-n", ns, "deployment/chat"]);
    rolled_out(cluster, ns, "chat");
    fleet.flows(CLIENTS);
    let verdict = fleet.finish();
    assert_clean(&verdict);
    eprintln!(
        "{} messages, {} moves, longest silence {} ms",
        verdict["sent"], verdict["moves"], verdict["silence_ms"]
    );
    cluster.gone(ns);
}

pub fn deleted_without_grace(cluster: &Installed) {
    let ns = "grace";
    app(cluster, ns, 3);
    let fleet = Fleet::start(cluster, ns, "ws-balancer", CLIENTS);
    let pod = text(&pods(cluster, ns, "app=chat")[0]["metadata"]["name"]);
    fleet.mark();
    cluster.kubectl(&["delete", "pod", "-n", ns, &pod, "--grace-period=0", "--force"]);
    let state = fleet.flows(CLIENTS);
    unnoticed(&state, 2000);
    rolled_out(cluster, ns, "chat");
    fleet.flows(CLIENTS);
    still_open(&fleet.finish());
    cluster.gone(ns);
}

pub fn operator_down(cluster: &Installed) {
    let ns = "alone";
    app(cluster, ns, 2);
    let fleet = Fleet::start(cluster, ns, "ws-balancer", CLIENTS);
    let members = members(cluster, ns);
    let replicas = |n: u32| {
        cluster.kubectl(&["scale", "-n", "ws-system", "deployment/ws-operator", &format!("--replicas={n}")]);
    };
    replicas(0);
    eventually(Duration::from_secs(60), "the operator is gone", || {
        match pods(cluster, "ws-system", "app.kubernetes.io/name=ws-operator").len() {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        }
    });
    // What is tested is that nothing happens: there is no condition to wait for.
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        sleep(Duration::from_secs(10));
        fleet.flows(CLIENTS);
        assert_eq!(self::members(cluster, ns), members, "members are kept");
    }
    replicas(2);
    cluster.operator_is_ready();
    fleet.flows(CLIENTS);
    let verdict = fleet.finish();
    assert_clean(&verdict);
    assert_eq!(verdict["moves"], 0, "{verdict:#}");
    cluster.gone(ns);
}

/// The members as one of the ring's balancers has them.
fn members(cluster: &Installed, namespace: &str) -> Value {
    let balancer = text(&pods(cluster, namespace, "ws.operator/balancer-of=default")[0]["metadata"]["name"]);
    cluster.raw(&format!("/api/v1/namespaces/{namespace}/pods/{balancer}:7402/proxy/v1/members")).unwrap()
}

pub fn node_crash(cluster: &Installed) {
    let ns = "crash";
    let nodes: Vec<String> =
        cluster.list(&["nodes"]).iter().map(|node| text(&node["metadata"]["name"])).collect();
    let [.., safe, doomed] = &nodes[..] else { return eprintln!("skipped: there is one node only") };
    if !cluster.can_crash_nodes() {
        return eprintln!("skipped: WS_NODE_STOP and WS_NODE_START are not set");
    }
    // Balancer and operator are to stay: they start while no pod can be put on the other node.
    cluster.kubectl(&["cordon", doomed]);
    cluster.kubectl(&["delete", "pods", "-n", "ws-system", "--all", "--grace-period=1"]);
    cluster.operator_is_ready();
    app(cluster, ns, 2);
    let fleet = Fleet::start(cluster, ns, "ws-balancer", CLIENTS);
    cluster.kubectl(&["uncordon", doomed]);
    cluster.kubectl(&["cordon", safe]);
    cluster.kubectl(&["scale", "-n", ns, "deployment/chat", "--replicas=4"]);
    rolled_out(cluster, ns, "chat");
    ring_is_whole(cluster, ns, "chat", "");
    cluster.kubectl(&["uncordon", safe]);
    fleet.flows(CLIENTS);
    let before = names(cluster, ns);

    fleet.mark();
    cluster.stop_node(doomed);
    let state = fleet.flows(CLIENTS);
    unnoticed(&state, 5000);

    let fresh = eventually(Duration::from_secs(90), "new pods on the other node", || {
        let fresh: Vec<Value> = pods(cluster, ns, "app=chat")
            .into_iter()
            .filter(|pod| {
                pod["spec"]["nodeName"] == **safe && !before.contains(&text(&pod["metadata"]["name"]))
            })
            .collect();
        if fresh.len() == 2 { Ok(fresh) } else { Err(format!("{} of them", fresh.len())) }
    });
    for pod in &fresh {
        cluster.wait(ns, "condition=Ready", &format!("pod/{}", text(&pod["metadata"]["name"])));
    }
    fleet.mark();
    eventually(Duration::from_secs(30), "new pods have their share", || {
        let heard = fleet.state()["pods"].clone();
        match fresh.iter().all(|pod| heard[text(&pod["metadata"]["name"])].as_u64() > Some(0)) {
            true => Ok(()),
            false => Err(heard.to_string()),
        }
    });
    fleet.flows(CLIENTS);
    still_open(&fleet.finish());
    cluster.start_node(doomed);
    cluster.gone(ns);
}

fn names(cluster: &Installed, namespace: &str) -> Vec<String> {
    pods(cluster, namespace, "app=chat").iter().map(|pod| text(&pod["metadata"]["name"])).collect()
}

/// The application, with its ring and balancer.
pub fn app(cluster: &Installed, ns: &str, replicas: u32) {
    namespace(cluster, ns);
    cluster.create(&[labelled(deployment(ns, "chat", replicas), &[])]);
    rolled_out(cluster, ns, "chat");
    ring_is_whole(cluster, ns, "chat", "");
}

/// Nobody was closed, and nobody waited for longer than that.
fn unnoticed(state: &Value, within_ms: u64) {
    eprintln!("longest silence: {} ms", state["silence_ms"]);
    assert_eq!(state["closed"], json!([]));
    assert!(state["silence_ms"].as_u64().unwrap() < within_ms, "{state:#}");
}

/// A pod that died may have lost what it had read, no more than that.
fn still_open(verdict: &Value) {
    assert_eq!(verdict["closed"], json!([]), "{verdict:#}");
    for way in ["up", "down"] {
        for fault in ["repeated", "announced", "reordered", "late"] {
            assert_eq!(verdict[way][fault], 0, "{verdict:#}");
        }
    }
}
