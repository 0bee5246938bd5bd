//! What the operator may do: no more than it does, and of Secrets only its own.

use serde_json::{Value, json};

use super::{everywhere, within};
use crate::names;

pub(super) fn objects(namespace: &str) -> [Value; 5] {
    let subject = json!([{"kind": "ServiceAccount", "name": names::OPERATOR, "namespace": namespace}]);
    let bound = |kind: &str| json!({"apiGroup": RBAC, "kind": kind, "name": names::OPERATOR});
    let version = format!("{RBAC}/v1");
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": within(namespace)}),
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": everywhere(), "rules": in_the_cluster()}),
        json!({"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": everywhere(),
            "roleRef": bound("ClusterRole"), "subjects": subject}),
        json!({"apiVersion": version, "kind": "Role", "metadata": within(namespace), "rules": at_home()}),
        json!({"apiVersion": version, "kind": "RoleBinding", "metadata": within(namespace),
            "roleRef": bound("Role"), "subjects": subject}),
    ]
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// What it makes for rings.
const KEEP: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// What somebody else makes, and it looks at.
const LOOK: &[&str] = &["get", "list", "watch"];

fn in_the_cluster() -> Value {
    json!([
        // Workloads are labelled by their authors; a template that missed it is told, and a balancer is one.
        rule("apps", &["deployments"], KEEP),
        rule("apps", &["statefulsets", "daemonsets"], &["get", "list", "watch", "patch"]),
        rule("", &["services"], KEEP),
        rule("policy", &["poddisruptionbudgets"], KEEP),
        rule("autoscaling", &["horizontalpodautoscalers"], KEEP),
        rule("networking.k8s.io", &["networkpolicies"], KEEP),
        rule("monitoring.coreos.com", &["podmonitors"], KEEP),
        rule("", &["pods"], LOOK),
        rule("discovery.k8s.io", &["endpointslices"], LOOK),
        rule("ws.operator", &["websocketapps"], LOOK),
        rule("ws.operator", &["websocketapps/status"], &["get", "patch"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
        // What is created cannot be limited by its name; what is read and changed is.
        rule("", &["secrets"], &["create"]),
        named(rule("", &["secrets"], &["get", "patch", "delete"]), names::PEER_TOKEN),
        // To put the CA into it, and to see when somebody takes it out.
        named(
            rule(
                "admissionregistration.k8s.io",
                &["mutatingwebhookconfigurations"],
                &["get", "list", "watch", "patch"]
            ),
            names::OPERATOR
        ),
    ])
}

fn at_home() -> Value {
    json!([
        named(
            rule("", &["secrets"], &["get", "list", "watch", "update", "patch"]),
            names::CERTIFICATE_SECRET
        ),
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named(rule("coordination.k8s.io", &["leases"], &["get", "update", "patch"]), names::OPERATOR),
    ])
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named(mut rule: Value, name: &str) -> Value {
    rule["resourceNames"] = json!([name]);
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_by_a_wildcard_and_no_secret_is_read_without_its_name() {
        let rules = [in_the_cluster(), at_home()];
        for rule in rules.iter().flat_map(|rules| rules.as_array().unwrap()) {
            assert!(!rule.to_string().contains('*'), "{rule}");
            let secrets = rule["resources"].as_array().unwrap().contains(&"secrets".into());
            if secrets && rule["resourceNames"].is_null() {
                assert_eq!(rule["verbs"], json!(["create"]));
            }
        }
    }
}
