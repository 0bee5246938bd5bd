//! All that is installed, made and injected is valid by the schemas of the oldest Kubernetes that is supported and of
//! the newest that `kubernetes-validate` (a package of PyPI; `$KUBERNETES_VALIDATE`, else on the path) knows.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path, process::Command};

use serde_json::{Value, json};
use ws_operator::{
    Ring, Settings,
    crd::{BalancerSpec, WebSocketApp},
    desired::{Balancer, Kind, Plan},
    manifests::Installation,
    offline,
};

/// The floor; the other one is the program's default.
const OLDEST: &[&str] = &["--kubernetes-version", "1.33"];

#[test]
fn every_manifest_is_valid_on_the_oldest_and_the_newest_kubernetes() {
    let program = env::var("KUBERNETES_VALIDATE").unwrap_or_else(|_| "kubernetes-validate".into());
    if let Err(why) = Command::new(&program).arg("--version").output() {
        return eprintln!("skipped: no {program} (pip install kubernetes-validate): {why}");
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifests.yaml");
    fs::write(&file, everything()).unwrap();
    for version in [OLDEST, &[]] {
        let output =
            Command::new(&program).args(version).args(["--strict", "--quiet"]).arg(&file).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{version:?}: {}", said.concat());
    }
}

fn everything() -> String {
    let mut objects = Installation::default().objects().unwrap();
    objects.extend(ring());
    objects.extend(samples());
    objects.retain(is_kubernetes_own);
    let mut yaml: Vec<String> =
        objects.iter().map(|object| serde_saphyr::to_string(object).unwrap()).collect();
    yaml.push(injected());
    yaml.join("---\n")
}

/// Others have no schema there.
fn is_kubernetes_own(object: &Value) -> bool {
    let group = object["apiVersion"].as_str().unwrap().split('/').next().unwrap();
    let foreign = ["monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh", "ws.operator"];
    !foreign.contains(&group)
}

/// The samples of the README.
fn samples() -> Vec<Value> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| serde_saphyr::from_str(block).unwrap()).collect()
}

#[test]
fn the_sample_of_a_web_socket_app_is_one() {
    let samples = samples();
    let sample = samples.iter().find(|sample| sample["kind"] == "WebSocketApp").unwrap();
    let app: WebSocketApp = serde_json::from_value(sample.clone()).unwrap();
    // Unknown fields are passed over in reading, so they would be missing now.
    let again = serde_json::to_value(&app.spec).unwrap();
    for (name, part) in sample["spec"].as_object().unwrap() {
        for (field, value) in part.as_object().unwrap() {
            assert_eq!(again[name][field], *value, "{name}.{field}");
        }
    }
}

/// All that a ring may have.
fn ring() -> Vec<Value> {
    let range = json!({"minReplicas": 2, "maxReplicas": 9, "connectionsPerPod": 1000});
    let spec: BalancerSpec = serde_json::from_value(json!({
        "autoscaling": range, "tlsSecretName": "tls", "allowedOrigins": ["https://example.com"], "maxConnections": 9,
        "key": "jwt:sub", "tokens": {"secretName": "jwks", "issuers": ["https://id.example"], "strip": true}, "resources": {"requests": {"cpu": "1"}},
    }))
    .unwrap();
    let autoscaling = json!({"workload": {"kind": "Deployment", "name": "chat"}, "range": range});
    let plan = Plan {
        balancer: Some(Balancer { spec, key: Some("query:room".into()), redelivery: Some("on".into()) }),
        autoscaling: Some(serde_json::from_value(autoscaling).unwrap()),
        monitoring: true,
        network_policy: true,
        ..Plan::new(Ring { namespace: "chat".into(), group: "game".parse().unwrap() })
    };
    let objects = plan.objects(&Settings::default());
    assert!(Kind::ALL.iter().all(|kind| objects.iter().any(|object| object.kind == *kind)), "one of each");
    objects.into_iter().map(|object| object.body).collect()
}

fn injected() -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "chat", "namespace": "chat", "labels": {"ws.operator/enable": "true"},
            "annotations": {"ws.operator/memory-limit": "128Mi", "ws.operator/drain-seconds": "60"},
        },
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    offline::inject_all(&serde_saphyr::to_string(&pod).unwrap(), "chat", &Settings::default())
        .unwrap()
        .manifests
}
