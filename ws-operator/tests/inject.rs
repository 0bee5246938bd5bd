//! Injection is idempotent, adds only, and leaves what is the app's.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use ws_operator::{
    Settings,
    inject::{Injection, Outcome, Presence, Skip, inject, presence},
};

fn given(pod: &Value) -> Injection {
    inject(&serde_json::from_value::<Pod>(pod.clone()).unwrap(), "chat", &Settings::default()).unwrap()
}

fn decided(pod: &Value) -> Outcome {
    given(pod).outcome
}

fn injected(pod: &Value) -> Value {
    let mut result = pod.clone();
    if let Outcome::Injected(patch) = decided(pod) {
        let text = serde_json::to_value(&patch).unwrap();
        assert!(text.as_array().unwrap().iter().all(|operation| operation["op"] == "add"));
        json_patch::patch(&mut result, &patch).unwrap();
    }
    result
}

fn pod(annotations: Value, spec: Value) -> Value {
    json!({
        "metadata": { "labels": { "ws.operator/enable": "true" }, "annotations": annotations },
        "spec": spec,
    })
}

fn args(pod: &Value) -> Vec<String> {
    serde_json::from_value(pod["spec"]["initContainers"][0]["args"].clone()).unwrap()
}

#[test]
fn the_sidecar_comes_first_and_is_restricted() {
    let spec = json!({
        "initContainers": [{ "name": "migrate" }],
        "containers": [
            { "name": "app", "ports": [{ "containerPort": 53, "protocol": "UDP" }, { "containerPort": 9000 }] },
            { "name": "own", "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } } },
            { "name": "post", "lifecycle": { "postStart": { "sleep": { "seconds": 1 } } } },
        ],
    });
    let given = injected(&pod(json!({}), spec));
    let sidecar = &given["spec"]["initContainers"][0];
    assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!("ws-proxy"), &json!("Always")));
    assert_eq!(given["spec"]["initContainers"][1]["name"], "migrate");
    assert_eq!(
        args(&given),
        [
            "--app=ws://127.0.0.1:9000",
            "--members=http://ws-operator.ws-system.svc:7403/v1/members/chat/ws-proxy-headless",
            "--peer-token-file=/var/run/ws-peer-token/token",
            "--drain=25s",
            "--log-level=info",
        ]
    );
    assert_eq!(sidecar["resources"], json!({ "requests": { "cpu": "50m", "memory": "64Mi" } }));
    let wait = json!({ "httpGet": { "path": "/v1/wait-empty", "port": 7402 } });
    let hook = |index: usize| given["spec"]["containers"][index]["lifecycle"]["preStop"].clone();
    assert_eq!([hook(0), hook(2)], [wait.clone(), wait]);
    assert_eq!(hook(1), json!({ "sleep": { "seconds": 1 } }));
    assert_eq!(given["metadata"]["labels"]["ws.operator/ring"], "default");
    assert_eq!(
        given["spec"]["volumes"][0]["secret"]["items"],
        json!([{ "key": "default", "path": "token" }])
    );
    assert_eq!(given["spec"].get("terminationGracePeriodSeconds"), None, "30 is enough");
}

#[test]
fn annotations_reach_the_sidecar() {
    let notes = json!({
        "ws.operator/app": "http://127.0.0.1:80/$events",
        "ws.operator/group": "game",
        "ws.operator/key": "path:/rooms/{key}",
        "ws.operator/route-field": "to",
        "ws.operator/drain-seconds": "90",
        "ws.operator/redelivery": "on",
        "ws.operator/image": "mine:1",
        "ws.operator/memory-limit": "32Mi",
    });
    let given = injected(&pod(notes, json!({ "containers": [{ "name": "app" }] })));
    assert_eq!(
        args(&given),
        [
            "--app=http://127.0.0.1:80/$$events",
            "--members=http://ws-operator.ws-system.svc:7403/v1/members/chat/ws-proxy-headless-game",
            "--peer-token-file=/var/run/ws-peer-token/token",
            "--drain=90s",
            "--log-level=info",
            "--key=path:/rooms/{key}",
            "--route-field=to",
            "--redelivery=on",
        ]
    );
    let sidecar = &given["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "mine:1");
    let memory = json!({ "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "32Mi" } });
    assert_eq!(sidecar["resources"], memory);
    assert_eq!(given["spec"]["terminationGracePeriodSeconds"], 95);
    assert_eq!(given["metadata"]["labels"]["ws.operator/ring"], "game");
}

#[test]
fn bad_values_are_denied_but_not_where_nothing_would_be_injected() {
    let notes = json!({ "ws.operator/weight": "0", "ws.operator/group": "A" });
    let read = |pod: Value| serde_json::from_value::<Pod>(pod).unwrap();
    let denied = inject(&read(pod(notes, json!({ "containers": [] }))), "chat", &Settings::default());
    let text = denied.unwrap_err().to_string();
    assert!(text.starts_with("ws.operator/group \"A\": expected lower-case letters"), "{text}");
    assert!(text.contains("; ws.operator/weight \"0\": expected a whole number from 1 to 1000"), "{text}");

    let notes = json!({ "ws.operator/weight": "0", "ws.operator/inject": "false" });
    assert_eq!(decided(&pod(notes, json!({ "containers": [] }))), Outcome::Skipped(Skip::OptedOut));
}

#[test]
fn pods_are_skipped_with_a_reason() {
    let app = json!([{ "name": "app" }]);
    let mirror = json!({ "kubernetes.io/config.mirror": "x" });
    let clash = json!({ "containers": [{ "name": "app", "ports": [{ "containerPort": 7402 }] }] });
    let cases = [
        (pod(mirror, json!({ "containers": app })), Skip::MirrorPod),
        (pod(json!({}), json!({ "hostNetwork": true, "containers": app })), Skip::HostNetwork),
        (pod(json!({}), json!({ "containers": [{ "name": "ws-proxy" }] })), Skip::AlreadyInjected),
        (pod(json!({}), clash), Skip::PortClash(7402)),
    ];
    for (pod, skip) in cases {
        assert_eq!(decided(&pod), Outcome::Skipped(skip));
    }
    let other = json!({ "metadata": { "labels": { "app": "x" } }, "spec": { "containers": app } });
    assert_eq!(decided(&other), Outcome::NotAsked);
}

#[test]
fn nothing_is_put_into_pods_of_kubernetes_and_of_the_operator() {
    let plain = pod(json!({}), json!({ "containers": [{ "name": "app" }] }));
    let late = with_containers(&injected(&plain), &json!([{ "name": "late" }]));
    let host = pod(json!({}), json!({ "hostNetwork": true, "containers": [{ "name": "app" }] }));
    let settings = Settings { namespace: "ours".into(), ..Settings::default() };
    let cases = [(&plain, Skip::SystemNamespace), (&late, Skip::SystemNamespace), (&host, Skip::HostNetwork)];
    for (pod, skip) in cases {
        let mut pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        for namespace in ["kube-system", "ours"] {
            let given = inject(&pod, namespace, &settings).unwrap();
            assert_eq!(given.outcome, Outcome::Skipped(skip), "{namespace}");
            assert_eq!(given.warnings, [format!("no sidecar is put into this pod: {skip}")]);
        }
        assert_ne!(
            inject(&pod, "ws-system", &settings).unwrap().outcome,
            Outcome::Skipped(Skip::SystemNamespace)
        );
        pod.metadata.namespace = Some("ours".into());
        assert_ne!(presence(&pod, &settings), Some(Presence::Missing));
    }
}

fn with_containers(pod: &Value, late: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["containers"].as_array_mut().unwrap().extend(late.as_array().unwrap().iter().cloned());
    pod
}

#[test]
fn containers_that_came_after_the_sidecar_get_their_hooks_and_nothing_else() {
    let once = injected(&pod(json!({}), json!({ "containers": [{ "name": "app" }] })));
    let own = json!({ "preStop": { "sleep": { "seconds": 1 } } });
    let late = json!([{ "name": "late" }, { "name": "own", "lifecycle": own }]);
    let changed = with_containers(&once, &late);
    let again = given(&changed);
    let Outcome::Injected(patch) = again.outcome else { panic!("{:?}", again.outcome) };
    let hook = json!({ "preStop": { "httpGet": { "path": "/v1/wait-empty", "port": 7402 } } });
    assert_eq!(json!(patch), json!([{ "op": "add", "path": "/spec/containers/1/lifecycle", "value": hook }]));
    assert_eq!(again.warnings, Vec::<String>::new());
}

#[test]
fn only_a_sidecar_that_is_not_ours_is_warned_of() {
    let once = injected(&pod(json!({}), json!({ "containers": [{ "name": "app" }] })));
    let skipped = Outcome::Skipped(Skip::AlreadyInjected);
    assert_eq!(given(&once), Injection { outcome: skipped.clone(), warnings: Vec::new() });

    let warning = "no sidecar is put into this pod: it has a container ws-proxy already";
    let mut unstamped = with_containers(&once, &json!([{ "name": "late" }]));
    unstamped["metadata"]["labels"].as_object_mut().unwrap().remove("ws.operator/ring");
    let mut among_apps = pod(json!({}), json!({ "containers": [{ "name": "app" }, { "name": "ws-proxy" }] }));
    among_apps["metadata"]["labels"]["ws.operator/ring"] = "default".into();
    for foreign in [unstamped, among_apps] {
        assert_eq!(given(&foreign), Injection { outcome: skipped.clone(), warnings: vec![warning.into()] });
    }
}

#[test]
fn a_sidecar_is_missing_outdated_or_current() {
    let plain = pod(json!({}), json!({ "containers": [{ "name": "app" }] }));
    let look = |pod: &Value, settings: &Settings| {
        presence(&serde_json::from_value::<Pod>(pod.clone()).unwrap(), settings)
    };
    let (old, new) =
        (Settings::default(), Settings { proxy_image: "ws-proxy:next".into(), ..Settings::default() });
    assert_eq!(look(&plain, &old), Some(Presence::Missing));
    assert_eq!(look(&injected(&plain), &old), Some(Presence::Current));
    assert_eq!(look(&injected(&plain), &new), Some(Presence::Outdated));
}

#[test]
fn a_sidecar_that_stands_there_by_hand_is_neither_outdated_nor_current() {
    let by_hand = json!([{ "name": "ws-proxy", "image": "ws-proxy:old", "restartPolicy": "Always" }]);
    let unstamped = pod(json!({}), json!({ "initContainers": by_hand, "containers": [{ "name": "app" }] }));
    let mut among_apps = pod(json!({}), json!({ "containers": by_hand }));
    among_apps["metadata"]["labels"]["ws.operator/ring"] = "default".into();
    for foreign in [unstamped, among_apps] {
        let pod = serde_json::from_value::<Pod>(foreign).unwrap();
        let skipped = Presence::Skipped(Skip::AlreadyInjected);
        assert_eq!(presence(&pod, &Settings::default()), Some(skipped));
    }
}

fn containers() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["app", "web", "ws-proxy"]);
    let port = prop::sample::select(vec![Value::Null, json!([]), json!([{ "containerPort": 80 }])]);
    let hook = prop::sample::select(vec![
        Value::Null,
        json!({}),
        json!({ "preStop": { "exec": { "command": ["x"] } } }),
        json!({ "postStart": { "exec": { "command": ["x"] } } }),
    ]);
    let one = (name, port, hook)
        .prop_map(|(name, ports, lifecycle)| json!({ "name": name, "ports": ports, "lifecycle": lifecycle }));
    proptest::collection::vec(one, 0..4).prop_map(Value::from)
}

fn or_null(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), values]
}

proptest! {
    #[test]
    fn twice_is_once(
        inits in or_null(containers()), apps in containers(), late in containers(),
        volumes in prop::sample::select(vec![Value::Null, json!([]), json!([{ "name": "v" }])]),
        grace in prop::sample::select(vec![Value::Null, json!(0), json!(29), json!(600)]),
        host in prop::sample::select(vec![Value::Null, json!(true)]),
        group in prop::sample::select(vec![json!({}), json!({ "ws.operator/group": "g" }), Value::Null]),
    ) {
        let spec = json!({
            "initContainers": inits, "containers": apps, "volumes": volumes,
            "terminationGracePeriodSeconds": grace, "hostNetwork": host,
        });
        let once = injected(&pod(group, spec));
        prop_assert_eq!(&injected(&once), &once);
        let again = injected(&with_containers(&once, &late));
        prop_assert_eq!(&injected(&again), &again);
    }
}
