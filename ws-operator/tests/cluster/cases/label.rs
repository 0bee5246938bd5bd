//! The label comes and goes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    app::{deployment, labelled, namespace, pods, ring_is_whole, rolled_out, text},
    kubectl::{Cluster, eventually},
    setup::Installed,
};

pub fn on_and_off(cluster: &Installed) {
    let ns = "label";
    namespace(cluster, ns);
    let written = cluster.written(&deployment(ns, "chat", 3));
    cluster.create(&[labelled(deployment(ns, "chat", 3), &[])]);
    rolled_out(cluster, ns, "chat");
    ring_is_whole(cluster, ns, "chat", "");
    assert_eq!(
        cluster.list(&["replicasets", "-n", ns, "-l", "app=chat"]).len(),
        1,
        "ReplicaSets of one rollout"
    );
    for pod in pods(cluster, ns, "app=chat") {
        let sidecar = &pod["spec"]["initContainers"][0];
        assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!("ws-proxy"), &json!("Always")));
    }

    cluster.kubectl(&["label", "-n", ns, "deployment/chat", "ws.operator/enable-"]);
    eventually(Duration::from_secs(60), "all that was made for the ring is gone", || left(cluster, ns));
    rolled_out(cluster, ns, "chat");
    for pod in pods(cluster, ns, "app=chat") {
        assert_eq!(pod["spec"]["initContainers"], Value::Null, "{pod:#}");
    }
    let template = cluster.get(&["deployment", "-n", ns, "chat"])["spec"]["template"].clone();
    assert_eq!(template, written["spec"]["template"], "the template is as its author wrote it");
    cluster.gone(ns);
}

/// What is left of a ring, as a complaint.
fn left(cluster: &Cluster, namespace: &str) -> Result<(), String> {
    let made = "app.kubernetes.io/managed-by=ws-operator";
    let kinds = "services,deployments,poddisruptionbudgets,secrets,horizontalpodautoscalers,networkpolicies";
    let objects = cluster.list(&[kinds, "-n", namespace, "-l", made]);
    let names: Vec<String> = objects.iter().map(|object| text(&object["metadata"]["name"])).collect();
    if names.is_empty() { Ok(()) } else { Err(names.join(", ")) }
}

pub fn dry_run(cluster: &Installed) {
    let ns = "dry";
    namespace(cluster, ns);
    let all = "deployments,replicasets,pods,services,secrets,poddisruptionbudgets,events";
    let before = names(cluster, ns, all);
    let mut pod = deployment(ns, "one", 1)["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"] = json!({"namespace": ns, "name": "one", "labels": {"ws.operator/enable": "true"}});
    let objects = [labelled(deployment(ns, "chat", 3), &[]), pod];
    for object in &objects {
        let args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        let told = cluster.try_kubectl(&args, &object.to_string()).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        let spec = if told["kind"] == "Pod" {
            &told["spec"]["initContainers"][0]["name"]
        } else {
            &told["spec"]["template"]["metadata"]["labels"]["ws.operator/enable"]
        };
        assert!(spec.is_string(), "what would be is told: {told:#}");
    }
    assert_eq!(names(cluster, ns, all), before);
    cluster.gone(ns);
}

fn names(cluster: &Cluster, namespace: &str, kinds: &str) -> Vec<String> {
    let objects = cluster.list(&[kinds, "-n", namespace]);
    objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
}
