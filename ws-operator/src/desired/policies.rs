//! What a `WebSocketApp` may ask for besides: autoscaling, monitoring, a network policy.

use serde_json::{Value, json};

use super::{
    Plan,
    object::{Kind, Object, Role},
};
use crate::{Ring, crd, names};

pub(super) fn objects(plan: &Plan) -> Vec<Object> {
    let ring = &plan.ring;
    let of = |kind, spec| Object::new(kind, ring, ring.group.sidecar(), Role::Ring, &spec);
    let mut objects = Vec::new();
    if let Some(scaling) = &plan.autoscaling {
        let crd::WorkloadReference { kind, name } = &scaling.workload;
        let target = json!({"apiVersion": "apps/v1", "kind": kind, "name": name});
        objects.push(of(Kind::HorizontalPodAutoscaler, by_connections(&target, &scaling.range)));
    }
    if plan.network_policy {
        objects.push(of(Kind::NetworkPolicy, only_balancers_and_peers(ring)));
    }
    if plan.monitoring {
        objects.push(of(Kind::PodMonitor, monitor(ring, Role::Ring)));
        if plan.balancer.is_some() {
            let (name, spec) = (ring.group.balancer(), monitor(ring, Role::Balancer));
            objects.push(Object::new(Kind::PodMonitor, ring, name, Role::Balancer, &spec));
        }
    }
    objects
}

/// Scales by the connections that each pod holds, as the custom metrics API tells them.
pub(super) fn by_connections(target: &Value, range: &crd::Autoscaling) -> Value {
    json!({
        "scaleTargetRef": target,
        "minReplicas": range.min_replicas,
        "maxReplicas": range.max_replicas,
        "metrics": [{
            "type": "Pods",
            "pods": {
                "metric": {"name": "ws_connections"},
                "target": {"type": "AverageValue", "averageValue": range.connections_per_pod.to_string()},
            },
        }],
    })
}

fn only_balancers_and_peers(ring: &Ring) -> Value {
    let pods = |role: Role| json!({"podSelector": {"matchLabels": role.selector(ring)}});
    json!({
        "podSelector": {"matchLabels": Role::Ring.selector(ring)},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [pods(Role::Balancer), pods(Role::Ring)],
                "ports": [{"protocol": "TCP", "port": names::SIDECAR_PORT}],
            },
            // All other ports stay as open as they were.
            {"ports": [
                {"protocol": "TCP", "port": 1, "endPort": names::SIDECAR_PORT - 1},
                {"protocol": "TCP", "port": names::SIDECAR_PORT + 1, "endPort": 65535},
                {"protocol": "UDP"},
                {"protocol": "SCTP"},
            ]},
        ],
    })
}

fn monitor(ring: &Ring, role: Role) -> Value {
    json!({
        "selector": {"matchLabels": role.selector(ring)},
        "podMetricsEndpoints": [{"portNumber": names::ADMIN_PORT, "path": "/metrics"}],
    })
}
