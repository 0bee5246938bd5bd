//! The operator itself.

use serde_json::{Value, json};

use super::{Installation, labels, selector, within};
use crate::names;

pub(super) fn objects(installation: &Installation) -> [Value; 3] {
    let namespace = &installation.settings.namespace;
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": within(namespace),
            "spec": {"selector": selector(), "ports": [
                {"name": "webhooks", "port": 443, "targetPort": names::WEBHOOK_PORT, "protocol": "TCP"},
                {"name": "members", "port": names::MEMBERS_PORT, "targetPort": names::MEMBERS_PORT, "protocol": "TCP"},
            ]},
        }),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": within(namespace),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": within(namespace),
            "spec": {
                "replicas": installation.replicas,
                "selector": {"matchLabels": selector()},
                // One more before one less: somebody always answers.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels()}, "spec": pod(installation)},
            },
        }),
    ]
}

fn pod(installation: &Installation) -> Value {
    json!({
        "serviceAccountName": names::OPERATOR,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector()},
        }],
        "containers": [container(installation)],
    })
}

fn container(installation: &Installation) -> Value {
    let settings = &installation.settings;
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": names::ADMIN_PORT},
            "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures,
        })
    };
    json!({
        "name": names::OPERATOR,
        "image": installation.operator_image,
        "args": [
            "run",
            format!("--proxy-image={}", settings.proxy_image),
            format!("--balancer-image={}", settings.balancer_image),
            format!("--namespace={}", settings.namespace),
        ],
        "ports": [
            port("webhooks", names::WEBHOOK_PORT),
            port("members", names::MEMBERS_PORT),
            port("admin", names::ADMIN_PORT),
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "startupProbe": probe("/livez", 1, 60),
        "readinessProbe": probe("/readyz", 2, 2),
        "livenessProbe": probe("/livez", 10, 3),
        // Until nobody asks it any more.
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
    })
}
