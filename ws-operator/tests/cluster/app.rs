//! An application in the cluster, and its clients.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    kubectl::{Cluster, eventually},
    setup::image,
};

/// A namespace in which only restricted pods are admitted.
pub fn namespace(cluster: &Cluster, name: &str) {
    // One of an earlier run, in a cluster that was kept, is ended.
    cluster.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=90s"]);
    let enforce = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": enforce}}),
    ]);
}

/// A Deployment as its author writes it: it knows nothing of us.
pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app": name}},
                    }],
                    "containers": [container(&json!([
                        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "EVENTS", "value": format!("clients.{namespace}.svc:9000")},
                    ]))],
                },
            },
        },
    })
}

/// The same with the label, on its own metadata alone, and annotations.
pub fn labelled(mut deployment: Value, annotations: &[(&str, &str)]) -> Value {
    deployment["metadata"]["labels"] = json!({"ws.operator/enable": "true"});
    for (name, value) in annotations {
        deployment["metadata"]["annotations"][format!("ws.operator/{name}")] = (*value).into();
    }
    deployment
}

fn container(env: &Value) -> Value {
    json!({
        "name": "app", "image": image("pod"), "args": ["app"], "env": env,
        "ports": [{"containerPort": 3001}],
        "readinessProbe": {"tcpSocket": {"port": 3001}, "periodSeconds": 1},
        "securityContext": restricted(),
    })
}

/// What restricted Pod Security asks of a container.
pub fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The pods with that label that are not ending.
pub fn pods(cluster: &Cluster, namespace: &str, label: &str) -> Vec<Value> {
    let mut pods = cluster.list(&["pods", "-n", namespace, "-l", label]);
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

/// Waits until a Deployment has what it asks for, and no pod of before is left.
pub fn rolled_out(cluster: &Cluster, namespace: &str, name: &str) {
    cluster.kubectl(&["rollout", "status", "-n", namespace, &format!("deployment/{name}"), "--timeout=120s"]);
    eventually(Duration::from_secs(60), format!("{name} has no pod too many"), || {
        let wanted =
            cluster.get(&["deployment", "-n", namespace, name])["spec"]["replicas"].as_u64().unwrap();
        let pods = cluster.list(&["pods", "-n", namespace, "-l", &format!("app={name}")]);
        if pods.len() as u64 == wanted { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    });
}

/// Waits until the ring's Service has exactly the pods of that application, and its balancer is available.
pub fn ring_is_whole(cluster: &Cluster, namespace: &str, app: &str, suffix: &str) {
    let service = format!("ws-proxy-headless{suffix}");
    eventually(Duration::from_secs(60), format!("{service} has exactly the pods of {app}"), || {
        let ips: BTreeSet<String> = pods(cluster, namespace, &format!("app={app}"))
            .iter()
            .map(|pod| text(&pod["status"]["podIP"]))
            .collect();
        let ready = ready_endpoints(cluster, namespace, &service);
        if ips == ready && !ips.is_empty() { Ok(()) } else { Err(format!("{ips:?}, and {ready:?}")) }
    });
    let balancer = format!("deployment/ws-balancer{suffix}");
    eventually(Duration::from_secs(30), &balancer, || {
        cluster.try_kubectl(&["get", "-n", namespace, &balancer], "")
    });
    cluster.kubectl(&["rollout", "status", "-n", namespace, &balancer, "--timeout=90s"]);
}

fn ready_endpoints(cluster: &Cluster, namespace: &str, service: &str) -> BTreeSet<String> {
    let slices = cluster.list(&[
        "endpointslices",
        "-n",
        namespace,
        "-l",
        &format!("kubernetes.io/service-name={service}"),
    ]);
    let endpoints =
        slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.map(|endpoint| text(&endpoint["addresses"][0])).collect()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
