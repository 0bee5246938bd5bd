//! The balancer of a ring.

use serde_json::{Value, json};

use super::{
    Balancer,
    object::{Kind, Object, Role},
    policies,
};
use crate::{Ring, Settings, names};

/// Replicas, unless a `WebSocketApp` says otherwise: one may go without the other's clients noticing.
const REPLICAS: i32 = 2;

/// Time over which a balancer's clients are closed when it ends, in seconds.
const DRAIN: u32 = 30;

/// Time for which it serves on after it was told to end, in seconds: until nobody sends it new clients.
const WITHDRAWAL: u32 = 5;

pub(super) fn objects(ring: &Ring, balancer: &Balancer, settings: &Settings) -> Vec<Object> {
    let name = ring.group.balancer();
    let of = |kind, spec| Object::new(kind, ring, name.clone(), Role::Balancer, &spec);
    let selector = json!({"matchLabels": Role::Balancer.selector(ring)});
    let mut objects = vec![
        of(Kind::Deployment, deployment(ring, balancer, settings)),
        of(Kind::Service, service(ring)),
        of(Kind::PodDisruptionBudget, json!({"maxUnavailable": 1, "selector": selector})),
    ];
    if let Some(range) = &balancer.spec.autoscaling {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        objects.push(of(Kind::HorizontalPodAutoscaler, policies::by_connections(&target, range)));
    }
    objects
}

fn service(ring: &Ring) -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": protocol});
    let ports = [port("ws", names::BALANCER_PORT, "kubernetes.io/ws")];
    json!({"type": "ClusterIP", "selector": Role::Balancer.selector(ring), "ports": ports})
}

fn deployment(ring: &Ring, balancer: &Balancer, settings: &Settings) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": Role::Balancer.selector(ring)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": Role::Balancer.labels(ring)},
            "spec": pod(ring, balancer, settings),
        },
    });
    // What an autoscaler writes must not be written here.
    if balancer.spec.autoscaling.is_none() {
        spec["replicas"] = balancer.spec.replicas.unwrap_or(REPLICAS).into();
    }
    spec
}

fn pod(ring: &Ring, balancer: &Balancer, settings: &Settings) -> Value {
    let volumes = [json!({
        "name": names::PEER_TOKEN,
        "secret": {
            "secretName": names::PEER_TOKEN,
            "items": [{"key": ring.group.as_str(), "path": names::PEER_TOKEN_FILE}],
        },
    })];
    json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": WITHDRAWAL + DRAIN + 10,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            // A safe sysctl: 64,000 connections to each pod instead of 28,000.
            "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}],
        },
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": Role::Balancer.selector(ring)},
        }],
        "containers": [container(ring, balancer, settings)],
        "volumes": volumes,
    })
}

fn container(ring: &Ring, balancer: &Balancer, settings: &Settings) -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "containerPort": port, "protocol": "TCP"});
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": names::ADMIN_PORT},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 2,
        })
    };
    let ports = [port("ws", names::BALANCER_PORT), port("admin", names::ADMIN_PORT)];
    let mounts = [mount(names::PEER_TOKEN, names::PEER_TOKEN_DIR)];
    let resources = balancer.spec.resources.as_ref().and_then(|told| serde_json::to_value(told).ok());
    json!({
        "name": names::BALANCER,
        "image": settings.balancer_image,
        "args": args(ring, balancer, settings),
        "ports": ports,
        "resources": resources.unwrap_or_else(|| json!({"requests": {"cpu": "100m", "memory": "64Mi"}})),
        "startupProbe": probe("/readyz", 1, 120),
        "readinessProbe": probe("/readyz", 2, 1),
        "livenessProbe": probe("/livez", 10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": WITHDRAWAL}}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": mounts,
    })
}

fn args(ring: &Ring, balancer: &Balancer, settings: &Settings) -> Vec<String> {
    let spec = &balancer.spec;
    let mut args = vec![
        format!("--members={}", settings.members_uri(ring)),
        format!("--peer-token-file={}/{}", names::PEER_TOKEN_DIR, names::PEER_TOKEN_FILE),
        format!("--drain={DRAIN}s"),
    ];
    let mut tell = |flag: &str, value: Option<String>| {
        args.extend(value.map(|value| format!("--{flag}={value}")));
    };
    tell("key", spec.key.clone().or_else(|| balancer.key.clone()));
    tell("redelivery", balancer.redelivery.clone());
    tell("max-connections", spec.max_connections.map(|most| most.to_string()));
    tell("allowed-origins", (!spec.allowed_origins.is_empty()).then(|| spec.allowed_origins.join(",")));
    args
}
