//! How the API server asks the operator. The CA is put in by the operator itself, once it has one.

use serde_json::{Value, json};

use super::everywhere;
use crate::names;

pub(super) fn configuration(namespace: &str) -> Value {
    // A selector of labels cannot say "this or that": each spelling of the label has hooks of its own.
    let hooks: Vec<Value> = [names::ENABLE, names::ENABLED]
        .into_iter()
        .flat_map(|label| [pods(namespace, label), workloads(namespace, label)])
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": everywhere(),
        "webhooks": hooks,
    })
}

/// A pod without its sidecar would be no member of its ring, unnoticed: rather no pod, and another try.
fn pods(namespace: &str, label: &str) -> Value {
    let rules = json!([rule("", &["pods"], &["CREATE"])]);
    let mut hook = hook("pods", namespace, label, names::PODS_PATH, &rules);
    hook["failurePolicy"] = "Fail".into();
    // Containers that another webhook adds later get their hooks too.
    hook["reinvocationPolicy"] = "IfNeeded".into();
    hook
}

/// What this one misses, the controller repairs. Of an update the old object is looked at too, so that it is asked
/// when the label goes.
fn workloads(namespace: &str, label: &str) -> Value {
    let rules = json!([rule("apps", &["deployments", "statefulsets", "daemonsets"], &["CREATE", "UPDATE"])]);
    let mut hook = hook("workloads", namespace, label, names::WORKLOADS_PATH, &rules);
    hook["failurePolicy"] = "Ignore".into();
    hook["reinvocationPolicy"] = "Never".into();
    hook
}

fn hook(what: &str, namespace: &str, label: &str, path: &str, rules: &Value) -> Value {
    let spelling = label.trim_start_matches(names::PREFIX);
    json!({
        "name": format!("{what}.{spelling}.{}", names::PREFIX.trim_end_matches('/')),
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": names::OPERATOR, "namespace": namespace, "path": path, "port": 443}},
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchExpressions": [{
            "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [names::KUBE_SYSTEM, namespace],
        }]},
        "objectSelector": {"matchLabels": {label: "true"}},
        "rules": rules,
        "sideEffects": "None",
        "timeoutSeconds": 5,
    })
}

fn rule(group: &str, resources: &[&str], operations: &[&str]) -> Value {
    json!({
        "apiGroups": [group], "apiVersions": ["v1"], "operations": operations, "resources": resources,
        "scope": "Namespaced",
    })
}
