//! All that is installed, made and injected is valid by the schemas of the oldest Kubernetes that is supported and of
//! the newest that `kubernetes-validate` (a package of PyPI; `$KUBERNETES_VALIDATE`, else on the path) knows.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::Path, process::Command};

use serde_json::{Value, json};
use ws_operator::{
    Ring, Settings,
    crd::BalancerSpec,
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
    // What is not Kubernetes' own has no schema there.
    objects.retain(|object| object["kind"] != "PodMonitor");
    let mut yaml: Vec<String> =
        objects.iter().map(|object| serde_saphyr::to_string(object).unwrap()).collect();
    yaml.push(injected());
    yaml.join("---\n")
}

/// All that a ring may have.
fn ring() -> Vec<Value> {
    let range = json!({"minReplicas": 2, "maxReplicas": 9, "connectionsPerPod": 1000});
    let spec: BalancerSpec = serde_json::from_value(json!({
        "autoscaling": range, "tlsSecretName": "tls", "allowedOrigins": ["https://example.com"], "maxConnections": 9,
        "resources": {"requests": {"cpu": "1"}},
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
