//! The operator itself: its certificates, its leader, and what it says.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::time::Instant;
use ws_operator::certs::{self, Held, Step};

use super::faults::app;
use crate::{
    app::{namespace, pods, restricted, text},
    fleet::{Fleet, assert_clean},
    kubectl::{Cluster, eventually},
    setup::Installed,
};

const SYSTEM: &str = "ws-system";

/// Leaf and CA are replaced, while pods are admitted without a pause.
pub fn certificates_rotate(cluster: &Installed) {
    let ns = "admission";
    namespace(cluster, ns);
    // Whatever an earlier run has left: one that lost its Secret makes another.
    let before = trusted(cluster);
    cluster.kubectl(&["delete", "secret", "-n", SYSTEM, "ws-operator-tls"]);
    becomes("a new CA is trusted", || trusted(cluster).len() == 1 && trusted(cluster) != before);
    becomes("both operators show its certificate", || {
        cluster.try_kubectl(CREATE, &one_pod(ns, "first").to_string()).is_ok()
    });
    let (over, admitted) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| admit(cluster, ns, &over, &admitted));
        }
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rotate(cluster);
            let before = admitted.load(Ordering::Relaxed);
            becomes("pods are admitted after it too", || admitted.load(Ordering::Relaxed) > before + 20);
        }));
        over.store(true, Ordering::Relaxed);
        rotated.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    eprintln!("{} pods admitted meanwhile", admitted.into_inner());
    cluster.gone(ns);
}

/// Has a pod admitted, and shows it.
const CREATE: &[&str] = &["create", "--dry-run=server", "-o", "json", "-f", "-"];

fn one_pod(ns: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": ns, "name": name, "labels": {"ws.operator/enable": "true"}},
        "spec": {"containers": [{"name": "app", "image": "app", "securityContext": restricted()}]},
    })
}

/// Has pods admitted, which are not made. One that is not, or not injected, is a failure.
fn admit(cluster: &Cluster, ns: &str, over: &AtomicBool, admitted: &AtomicU32) {
    let items: Vec<Value> = (0..10).map(|n| one_pod(ns, &format!("p{n}"))).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    while !over.load(Ordering::Relaxed) {
        let told = cluster.try_kubectl(CREATE, &list);
        let told = told.unwrap_or_else(|why| panic!("an admission failed: {why}"));
        assert_eq!(
            told.matches("\"restartPolicy\": \"Always\"").count() / 2,
            items.len(),
            "all are injected"
        );
        admitted.fetch_add(10, Ordering::Relaxed);
    }
}

fn rotate(cluster: &Cluster) {
    let first = secret(cluster).0;
    let leaf = || text(&cluster.get(&["secret", "-n", SYSTEM, "ws-operator-tls"])["data"]["tls.crt"]);
    let before = leaf();
    // Without a leaf the leader makes one.
    let without = json!([
        {"op": "remove", "path": "/data/tls.crt"},
        {"op": "remove", "path": "/data/tls.key"},
    ]);
    cluster.kubectl(&[
        "patch",
        "secret",
        "-n",
        SYSTEM,
        "ws-operator-tls",
        "--type=json",
        "-p",
        &without.to_string(),
    ]);
    becomes("a new certificate", || !leaf().is_empty() && leaf() != before);

    // The next CA, as if the first one's time had come; the waits between its stages, as if they were over.
    let held = |cluster| secret(cluster).0;
    let next = held(cluster).take(Step::Prepare, &certs::names(SYSTEM), Timestamp::now()).unwrap();
    write(cluster, &next);
    becomes("the next CA is announced", || secret(cluster).1.is_some());
    let both = trusted(cluster);
    assert_eq!(both.len(), 2);
    let long_ago = Timestamp::now().checked_sub(2.hours()).unwrap();
    let before = leaf();
    write(cluster, &held(cluster).announced(long_ago));
    becomes("the next CA signs", || {
        leaf() != before && certs::plan(Timestamp::now(), Some(&held(cluster))).is_none()
    });
    assert_eq!(trusted(cluster), both, "both are trusted while replicas may show either");
    let (now, note) = secret(cluster);
    let switched = note.unwrap().split_once(' ').map(|(stage, _)| format!("{stage} {long_ago}")).unwrap();
    write_with(cluster, &now, &switched);
    becomes("the old CA is gone", || trusted(cluster).len() == 1);
    assert_ne!(trusted(cluster), authorities(&first.bundle()));
}

fn becomes(what: &str, mut so: impl FnMut() -> bool) {
    eventually(Duration::from_secs(60), what, || if so() { Ok(()) } else { Err("not yet".into()) });
}

/// What the operator's Secret has, and its note.
fn secret(cluster: &Cluster) -> (Held, Option<String>) {
    let secret: Secret =
        serde_json::from_value(cluster.get(&["secret", "-n", SYSTEM, "ws-operator-tls"])).unwrap();
    let note = secret.metadata.annotations.unwrap_or_default().remove("ws.operator/ca");
    let held = Held::read(&secret.data.unwrap_or_default(), note.as_deref(), &certs::names(SYSTEM)).unwrap();
    (held, note)
}

fn write(cluster: &Cluster, held: &Held) {
    match held.note() {
        Some(note) => write_with(cluster, held, &note),
        None => merge(cluster, &json!({"data": held.data()})),
    }
}

fn write_with(cluster: &Cluster, held: &Held, note: &str) {
    merge(cluster, &json!({"data": held.data(), "metadata": {"annotations": {"ws.operator/ca": note}}}));
}

fn merge(cluster: &Cluster, change: &Value) {
    let change = change.to_string();
    cluster.kubectl(&["patch", "secret", "-n", SYSTEM, "ws-operator-tls", "--type=merge", "-p", &change]);
}

/// The certificates that the API server trusts, for the webhook that it trusts least.
fn trusted(cluster: &Cluster) -> BTreeSet<String> {
    let hooks = cluster.get(&["mutatingwebhookconfiguration", "ws-operator"]);
    let bundles =
        hooks["webhooks"].as_array().unwrap().iter().map(|hook| text(&hook["clientConfig"]["caBundle"]));
    bundles
        .map(|bundle| authorities(&String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap()))
        .min()
        .unwrap()
}

/// The certificates of a bundle, whatever their order.
fn authorities(bundle: &str) -> BTreeSet<String> {
    bundle
        .split("-----END CERTIFICATE-----")
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}

pub fn ca_bundle_is_repaired(cluster: &Installed) {
    let before = trusted(cluster);
    let reset = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]).to_string();
    cluster.kubectl(&["patch", "mutatingwebhookconfiguration", "ws-operator", "--type=json", "-p", &reset]);
    becomes("the API server is told again whom to trust", || trusted(cluster) == before);
}

pub fn leader_killed(cluster: &Installed) {
    let holder = || text(&cluster.get(&["lease", "-n", SYSTEM, "ws-operator"])["spec"]["holderIdentity"]);
    let pod = |holder: &str| holder.split('_').next().unwrap().to_owned();
    becomes("somebody leads", || !holder().is_empty());
    let old = holder();
    let began = Instant::now();
    cluster.kubectl(&["delete", "pod", "-n", SYSTEM, &pod(&old), "--grace-period=0", "--force"]);
    eventually(Duration::from_secs(20), "another leads", || {
        let new = holder();
        if new.is_empty() || new == old { Err(new) } else { Ok(()) }
    });
    eprintln!("another leads after {:.1?}", began.elapsed());
    cluster.operator_is_ready();
    let names: Vec<String> = pods(cluster, SYSTEM, "app.kubernetes.io/name=ws-operator")
        .iter()
        .map(|pod| text(&pod["metadata"]["name"]))
        .collect();
    assert!(names.contains(&pod(&holder())), "{names:?}: {}", holder());
}

pub fn web_socket_app(cluster: &Installed) {
    let explained = cluster.kubectl(&["explain", "websocketapp.spec", "--recursive"]);
    assert!(explained.contains("connectionsPerPod"), "{explained}");
    let ns = "spec";
    app(cluster, ns, 2);
    let spec = json!({"balancer": {"replicas": 1}});
    let object = json!({
        "apiVersion": "ws.operator/v1alpha1", "kind": "WebSocketApp",
        "metadata": {"namespace": ns, "name": "chat"}, "spec": spec,
    });
    cluster.apply(&[object]);
    becomes("one balancer", || {
        cluster.get(&["deployment", "-n", ns, "ws-balancer"])["spec"]["replicas"] == 1
    });
    cluster.kubectl(&["rollout", "status", "-n", ns, "deployment/ws-balancer", "--timeout=90s"]);
    // The second one's clients would be closed as it ends.
    eventually(Duration::from_secs(60), "the other balancer is gone", || {
        let left = cluster.list(&["pods", "-n", ns, "-l", "ws.operator/balancer-of=default"]).len();
        if left == 1 { Ok(()) } else { Err(format!("{left} balancers")) }
    });
    let fleet = Fleet::start(cluster, ns, "ws-balancer", 20);
    eventually(Duration::from_secs(60), "kubectl get wsa shows it", || {
        let table = cluster.kubectl(&["get", "wsa", "-n", ns, "--no-headers"]);
        let columns: Vec<&str> = table.split_whitespace().collect();
        match columns[..] {
            ["chat", "True", _, "2", "20", ..] => Ok(()),
            _ => Err(table),
        }
    });
    assert_clean(&fleet.finish());
    cluster.gone(ns);
}
