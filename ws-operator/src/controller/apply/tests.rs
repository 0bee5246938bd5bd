use serde_json::Value;

use super::*;
use crate::{Ring, Settings, fake_api::FakeApi, members::Rings, metrics::Metrics};

const SERVICES: &str = "/api/v1/namespaces/chat/services/";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/chat/deployments/";
const TOKENS: &str = "/api/v1/namespaces/chat/secrets/ws-peer-token";

fn controller(api: &FakeApi) -> Controller {
    Controller::new(api.client(), Settings::default(), Rings::default(), Metrics::new())
}

fn plan(group: &str) -> Plan {
    Plan::new(Ring { namespace: "chat".into(), group: group.parse().unwrap() })
}

fn at(folder: &str, name: &str) -> String {
    format!("{folder}{name}")
}

#[tokio::test]
async fn a_ring_gets_what_it_needs_and_loses_it_again() {
    let api = FakeApi::default();
    let controller = controller(&api);
    let report = controller.reconcile("chat", &[plan("default"), plan("game")], false).await.unwrap();
    assert_eq!(report, Report::default());
    let writes = api.writes();
    assert_eq!(writes[0], TOKENS, "pods wait for it");
    for name in ["ws-proxy-headless", "ws-balancer", "ws-proxy-headless-game", "ws-balancer-game"] {
        assert!(api.get(&at(SERVICES, name)).is_some(), "{name} in {writes:?}");
    }
    let tokens = api.get(TOKENS).unwrap();
    controller.reconcile("chat", &[plan("default")], false).await.unwrap();
    assert!(api.get(&at(SERVICES, "ws-balancer-game")).is_none());
    assert!(api.get(&at(DEPLOYMENTS, "ws-balancer-game")).is_none());
    assert!(api.get(&at(DEPLOYMENTS, "ws-balancer")).is_some());
    assert_eq!(api.get(TOKENS).unwrap()["data"]["default"], tokens["data"]["default"], "the same token");
    assert_eq!(api.get(TOKENS).unwrap()["data"]["game"], Value::Null);
    controller.reconcile("chat", &[], false).await.unwrap();
    assert!(api.get(&at(SERVICES, "ws-proxy-headless")).is_none() && api.get(TOKENS).is_none());
}

#[tokio::test]
async fn what_somebody_else_made_is_left_alone_and_told() {
    let api = FakeApi::default();
    let controller = controller(&api);
    let foreign =
        |name: &str| json!({"metadata": {"name": name, "namespace": "chat"}, "spec": {"theirs": true}});
    let service = at(SERVICES, "ws-proxy-headless");
    api.put(&service, foreign("ws-proxy-headless"));
    api.put(TOKENS, foreign("ws-peer-token"));
    let report = controller.reconcile("chat", &[plan("default")], false).await.unwrap();
    let names: Vec<&str> = report.taken.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["Secret ws-peer-token", "Service ws-proxy-headless"]);
    assert_eq!(api.get(&service).unwrap()["spec"], json!({"theirs": true}));
    assert_eq!(api.get(TOKENS).unwrap()["spec"], json!({"theirs": true}));
    assert!(api.get(&at(SERVICES, "ws-balancer")).is_some(), "the rest is made");
    assert!(api.writes().iter().any(|path| path.contains("/events")));
    controller.reconcile("chat", &[], false).await.unwrap();
    assert!(api.get(&service).is_some() && api.get(TOKENS).is_some());
}

#[tokio::test]
async fn what_is_changed_by_hand_is_put_right() {
    let api = FakeApi::default();
    let controller = controller(&api);
    controller.reconcile("chat", &[plan("default")], false).await.unwrap();
    let path = at(SERVICES, "ws-proxy-headless");
    let made = api.get(&path).unwrap();
    let mut changed = made.clone();
    changed["spec"]["publishNotReadyAddresses"] = true.into();
    api.put(&path, changed);
    controller.reconcile("chat", &[plan("default")], false).await.unwrap();
    assert_eq!(api.get(&path).unwrap()["spec"], made["spec"]);
}

#[tokio::test]
async fn a_cluster_without_pod_monitors_is_told_of_and_gets_the_rest() {
    let api = FakeApi::default();
    let plan = Plan { monitoring: true, ..plan("default") };
    let report = controller(&api).reconcile("chat", &[plan], false).await.unwrap();
    assert!(!report.unmonitored.is_empty());
    assert!(api.get(&at(SERVICES, "ws-balancer")).is_some());
}

#[tokio::test]
async fn templates_that_nobody_told_are_told_and_those_without_a_label_are_as_they_were() {
    let api = FakeApi::default();
    let deployment = |name: &str, labels: &Value, template: &Value| {
        json!({
            "metadata": {"namespace": "chat", "name": name, "labels": labels},
            "spec": {"selector": {}, "template": {"metadata": template, "spec": {"containers": []}}},
        })
    };
    let told = json!({
        "labels": {"app": "x", "ws.operator/enable": "true"}, "annotations": {"ws.operator/propagated": "enable"},
    });
    let cases = [
        ("labelled", json!({"ws.operator/enable": "true"}), json!({"labels": {"app": "x"}}), told.clone()),
        ("unlabelled", json!({}), told.clone(), json!({"labels": {"app": "x"}})),
        ("settled", json!({"ws.operator/enable": "true"}), told.clone(), told.clone()),
        ("other", json!({}), json!({"labels": {"app": "x"}}), json!({"labels": {"app": "x"}})),
    ];
    for (name, labels, template, _) in &cases {
        api.put(&at(DEPLOYMENTS, name), deployment(name, labels, template));
    }
    controller(&api).reconcile("chat", &[], true).await.unwrap();
    for (name, _, _, expected) in &cases {
        let object = api.get(&at(DEPLOYMENTS, name)).unwrap();
        assert_eq!(object["spec"]["template"]["metadata"], *expected, "{name}");
    }
    assert_eq!(api.writes().len(), 2);
}
