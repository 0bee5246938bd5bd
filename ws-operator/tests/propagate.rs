//! What a workload's template is told, and that it is as its author wrote it when the label goes.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use proptest::prelude::*;
use serde_json::{Value, json};
use ws_operator::propagate::{Workload, propagate};

fn applied(workload: &Value) -> Value {
    let mut told = workload.clone();
    let read: Workload = serde_json::from_value(workload.clone()).unwrap();
    json_patch::patch(&mut told, &propagate(&read).patch).unwrap();
    told
}

fn deployment(labels: Value, annotations: Value, template: Value) -> Value {
    json!({
        "kind": "Deployment",
        "metadata": { "labels": labels, "annotations": annotations },
        "spec": { "template": { "metadata": template, "spec": { "containers": [{ "name": "app" }] } } },
    })
}

#[test]
fn label_and_annotations_go_into_the_template_and_out_again() {
    let own = json!({ "labels": { "app": "chat" } });
    let labels = json!({ "app": "chat", "ws.operator/enable": "true" });
    let notes = json!({ "other/a": "1", "ws.operator/group": "g", "ws.operator/app-port": "80" });
    let mut told = applied(&deployment(labels, notes, own.clone()));
    assert_eq!(
        told["spec"]["template"]["metadata"],
        json!({
            "labels": { "app": "chat", "ws.operator/enable": "true" },
            "annotations": {
                "ws.operator/group": "g",
                "ws.operator/app-port": "80",
                "ws.operator/propagated": "app-port,enable,group",
            },
        })
    );
    told["metadata"]["annotations"]["ws.operator/group"] = json!("h");
    told["metadata"]["annotations"].as_object_mut().unwrap().remove("ws.operator/app-port");
    let mut told = applied(&told);
    let notes = &told["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(*notes, json!({ "ws.operator/group": "h", "ws.operator/propagated": "enable,group" }));

    told["metadata"]["labels"] = json!({ "app": "chat" });
    assert_eq!(applied(&told)["spec"]["template"]["metadata"], own);
}

#[test]
fn what_the_author_wrote_into_the_template_stays() {
    let own = json!({
        "labels": { "ws.operator/enable": "false" },
        "annotations": { "ws.operator/group": "mine" },
    });
    let labels = json!({ "ws.operator/enable": "true" });
    let notes = json!({ "ws.operator/group": "theirs" });
    assert_eq!(applied(&deployment(labels, notes.clone(), own.clone()))["spec"]["template"]["metadata"], own);
    assert_eq!(applied(&deployment(json!({}), notes, own.clone()))["spec"]["template"]["metadata"], own);
}

#[test]
fn a_template_without_metadata_is_told_too() {
    let bare = json!({
        "metadata": { "labels": { "ws.operator/enabled": "true" } },
        "spec": { "template": { "spec": {} } },
    });
    let read: Workload = serde_json::from_value(bare.clone()).unwrap();
    assert_eq!(propagate(&read).warnings, ["the label is ws.operator/enable; ws.operator/enabled works too"]);
    assert_eq!(
        applied(&bare)["spec"]["template"],
        json!({
            "metadata": {
                "labels": { "ws.operator/enabled": "true" },
                "annotations": { "ws.operator/propagated": "enabled" },
            },
            "spec": {},
        })
    );
}

#[test]
fn bad_values_are_warned_of_before_any_pod_is_refused() {
    let labels = json!({ "ws.operator/enable": "true" });
    let workload = deployment(labels, json!({ "ws.operator/weight": "0" }), json!({}));
    let warnings = propagate(&serde_json::from_value(workload).unwrap()).warnings;
    assert_eq!(
        warnings,
        ["pods will be refused: ws.operator/weight \"0\": expected a whole number from 1 to 1000"]
    );
}

fn entries() -> impl Strategy<Value = Value> {
    let keys = ["ws.operator/enable", "ws.operator/enabled", "ws.operator/group", "ws.operator/key", "app"];
    let some = proptest::collection::btree_map(
        prop::sample::select(keys.to_vec()),
        prop::sample::select(vec!["true", "false", "x"]),
        0..5,
    );
    prop_oneof![Just(Value::Null), some.prop_map(|map| json!(map))]
}

proptest! {
    #[test]
    fn twice_is_once_and_the_spec_is_not_touched(
        labels in entries(), notes in entries(), own_labels in entries(), own_notes in entries(),
    ) {
        let template = json!({ "labels": own_labels, "annotations": own_notes });
        let workload = deployment(labels, notes, template);
        let once = applied(&workload);
        prop_assert_eq!(&applied(&once), &once);
        prop_assert_eq!(&once["spec"]["template"]["spec"], &workload["spec"]["template"]["spec"]);
        prop_assert_eq!(&once["metadata"], &workload["metadata"]);
        let mut without = once;
        without["metadata"] = json!({});
        let back = applied(&without);
        for side in ["labels", "annotations"] {
            let was = &workload["spec"]["template"]["metadata"][side];
            let is = &back["spec"]["template"]["metadata"][side];
            let empty = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
            prop_assert!(was == is || (empty(was) && empty(is)), "{} became {}", was, is);
        }
    }
}
