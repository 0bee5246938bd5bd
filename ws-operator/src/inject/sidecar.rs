//! The sidecar's container.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use crate::{
    Ring, Settings,
    annotations::Wishes,
    names::{ADMIN_PORT, PEER_TOKEN, PEER_TOKEN_DIR, PEER_TOKEN_FILE, SIDECAR, SIDECAR_PORT},
    quantity::Quantity,
};

/// The container, as it stands in `initContainers` of a pod of that ring.
pub(super) fn container(spec: &PodSpec, wishes: &Wishes, ring: &Ring, settings: &Settings) -> Value {
    json!({
        "name": SIDECAR,
        "image": image(wishes, settings),
        // In an init container this makes it a native sidecar: there before the app, and until after it.
        "restartPolicy": "Always",
        "args": args(spec, wishes, ring, settings),
        "env": [{
            "name": "POD_IP",
            "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } },
        }],
        "ports": [
            { "name": "ws-proxy", "containerPort": SIDECAR_PORT, "protocol": "TCP" },
            { "name": "ws-admin", "containerPort": ADMIN_PORT, "protocol": "TCP" },
        ],
        "resources": resources(wishes),
        "startupProbe": probe("/livez", 1, 60),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 2, 2),
        "lifecycle": { "preStop": { "exec": { "command": ["/ws-proxy", "drain"] } } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 65532,
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [
            { "name": PEER_TOKEN, "mountPath": PEER_TOKEN_DIR, "readOnly": true },
            { "name": PEER_TOKEN, "mountPath": API_TOKEN_DIR, "readOnly": true },
        ],
    })
}

/// Where the API server mounts the ServiceAccount's token into every container that has nothing there. The sidecar has
/// no use for it, and should not hold it.
const API_TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The image of a pod's sidecar.
pub(super) fn image<'a>(wishes: &'a Wishes, settings: &'a Settings) -> &'a str {
    wishes.image.as_deref().unwrap_or(&settings.proxy_image)
}

/// The volume with the tokens of the pod's ring. Not optional: without a token a sidecar would take anybody for a
/// peer. A pod that is there before the operator has made its Secret waits for it, as the kubelet tries again.
pub(super) fn peer_token(ring: &Ring) -> Value {
    json!({
        "name": PEER_TOKEN,
        "secret": {
            "secretName": PEER_TOKEN,
            "items": [{ "key": ring.group.as_str(), "path": PEER_TOKEN_FILE }],
            "defaultMode": 0o444,
        },
    })
}

fn args(spec: &PodSpec, wishes: &Wishes, ring: &Ring, settings: &Settings) -> Vec<String> {
    let app = match &wishes.app {
        Some(app) => app.clone(),
        None => format!("ws://127.0.0.1:{}", wishes.app_port.unwrap_or_else(|| app_port(spec))),
    };
    let mut flags = vec![
        ("app", app),
        ("members", settings.members_uri(ring)),
        ("peer-token-file", format!("{PEER_TOKEN_DIR}/{PEER_TOKEN_FILE}")),
        ("drain", format!("{}s", wishes.drain_seconds)),
        ("log-level", wishes.log_level.clone()),
    ];
    flags.extend(wishes.key.clone().map(|key| ("key", key)));
    flags.extend(wishes.route_field.clone().map(|field| ("route-field", field)));
    if wishes.redelivery == Some(true) {
        flags.push(("redelivery", "on".into()));
    }
    flags.into_iter().map(|(name, value)| format!("--{name}={}", literal(&value))).collect()
}

/// Kubernetes expands `$(NAME)` in arguments, and takes `$$` for a dollar.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// The first TCP port that a container declares, else that of the original project's examples.
fn app_port(spec: &PodSpec) -> u16 {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let mut tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.find_map(|port| u16::try_from(port.container_port).ok()).unwrap_or(3001)
}

/// No limit of CPU: throttling would stall every connection of the pod.
fn resources(wishes: &Wishes) -> Value {
    let usual = Quantity::of("64Mi");
    let limit = wishes.memory_limit.as_ref();
    // More than the limit cannot be requested.
    let most = limit.filter(|limit| limit.amount() < usual.amount()).unwrap_or(&usual);
    let memory = wishes.memory_request.as_ref().unwrap_or(most);
    let requests = json!({ "cpu": wishes.cpu_request.to_string(), "memory": memory.to_string() });
    match limit {
        None => json!({ "requests": requests }),
        Some(limit) => json!({ "requests": requests, "limits": { "memory": limit.to_string() } }),
    }
}

/// Asked on the admin port, which waits for no app.
fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": ADMIN_PORT },
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}
