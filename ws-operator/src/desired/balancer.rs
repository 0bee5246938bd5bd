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

/// Where the Secret with the certificate is seen.
const TLS_DIR: &str = "/var/run/ws-tls";

/// Where the Secret with the keys of tokens is seen.
const TOKENS_DIR: &str = "/var/run/ws-tokens";

/// Where clients connect by TLS, when there is a certificate: at the pod, and at the Service.
const TLS_PORT: u16 = 8443;
const TLS_SERVICE_PORT: u16 = 443;

pub(super) fn objects(ring: &Ring, balancer: &Balancer, settings: &Settings) -> Vec<Object> {
    let name = ring.group.balancer();
    let of = |kind, spec| Object::new(kind, ring, name.clone(), Role::Balancer, &spec);
    let selector = json!({"matchLabels": Role::Balancer.selector(ring)});
    let mut objects = vec![
        of(Kind::Deployment, deployment(ring, balancer, settings)),
        of(Kind::Service, service(ring, balancer)),
        of(Kind::PodDisruptionBudget, json!({"maxUnavailable": 1, "selector": selector})),
    ];
    if let Some(range) = &balancer.spec.autoscaling {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        objects.push(of(Kind::HorizontalPodAutoscaler, policies::by_connections(&target, range)));
    }
    objects
}

fn service(ring: &Ring, balancer: &Balancer) -> Value {
    let port = |name: &str, port: u16, target: u16| {
        let protocol = format!("kubernetes.io/{name}");
        json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": protocol})
    };
    let mut ports = vec![port("ws", names::BALANCER_PORT, names::BALANCER_PORT)];
    if balancer.spec.tls_secret_name.is_some() {
        ports.push(port("wss", TLS_SERVICE_PORT, TLS_PORT));
    }
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
    let mut volumes = vec![json!({
        "name": names::PEER_TOKEN,
        "secret": {
            "secretName": names::PEER_TOKEN,
            "items": [{"key": ring.group.as_str(), "path": names::PEER_TOKEN_FILE}],
        },
    })];
    if let Some(secret) = &balancer.spec.tls_secret_name {
        // As a whole: a part of it that is mounted alone would never change.
        volumes.push(json!({"name": "tls", "secret": {"secretName": secret}}));
    }
    if let Some(tokens) = &balancer.spec.tokens {
        volumes.push(json!({"name": "tokens", "secret": {"secretName": tokens.secret_name}}));
    }
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
    let mut ports = vec![port("ws", names::BALANCER_PORT), port("admin", names::ADMIN_PORT)];
    let mut mounts = vec![mount(names::PEER_TOKEN, names::PEER_TOKEN_DIR)];
    if balancer.spec.tls_secret_name.is_some() {
        ports.push(port("wss", TLS_PORT));
        mounts.push(mount("tls", TLS_DIR));
    }
    if balancer.spec.tokens.is_some() {
        mounts.push(mount("tokens", TOKENS_DIR));
    }
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
    if let Some(tokens) = &spec.tokens {
        tell("jwt-keys", Some(format!("{TOKENS_DIR}/keys")));
        tell("jwt-audience", (!tokens.audiences.is_empty()).then(|| tokens.audiences.join(",")));
        tell("jwt-issuer", (!tokens.issuers.is_empty()).then(|| tokens.issuers.join(",")));
        tell("strip-token", tokens.strip.then(|| "true".into()));
    }
    if spec.tls_secret_name.is_some() {
        tell("tls-listen", Some(format!("0.0.0.0:{TLS_PORT}")));
        tell("tls-cert", Some(format!("{TLS_DIR}/tls.crt")));
        tell("tls-key", Some(format!("{TLS_DIR}/tls.key")));
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::BalancerSpec;

    fn objects(spec: Value) -> Vec<Value> {
        let ring = Ring { namespace: "chat".into(), group: "default".parse().unwrap() };
        let spec: BalancerSpec = serde_json::from_value(spec).unwrap();
        let balancer = Balancer { spec, key: None, redelivery: None };
        let objects = super::objects(&ring, &balancer, &Settings::default());
        objects.into_iter().map(|object| object.body["spec"].clone()).collect()
    }

    #[test]
    fn a_certificate_is_mounted_as_a_directory_and_shown_on_port_443() {
        let [deployment, service, ..] = &objects(json!({"tlsSecretName": "chat-tls"}))[..] else {
            panic!("a deployment and a service")
        };
        let port = &service["ports"][1];
        assert_eq!(
            (&port["name"], &port["port"], &port["targetPort"]),
            (&json!("wss"), &json!(443), &json!(8443))
        );
        let pod = &deployment["template"]["spec"];
        let volume = json!({"name": "tls", "secret": {"secretName": "chat-tls"}});
        assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
        let container = &pod["containers"][0];
        let mount = json!({"name": "tls", "mountPath": TLS_DIR, "readOnly": true});
        assert!(container["volumeMounts"].as_array().unwrap().contains(&mount), "{container}");
        for flag in
            ["tls-listen=0.0.0.0:8443", "tls-cert=/var/run/ws-tls/tls.crt", "tls-key=/var/run/ws-tls/tls.key"]
        {
            assert!(container["args"].as_array().unwrap().contains(&json!(format!("--{flag}"))), "{flag}");
        }
    }

    #[test]
    fn keys_of_tokens_are_mounted_and_told() {
        let tokens = json!({"secretName": "jwks", "audiences": ["chat", "game"], "strip": true});
        let deployment = &objects(json!({"key": "jwt:sub", "tokens": tokens}))[0];
        let pod = &deployment["template"]["spec"];
        let volume = json!({"name": "tokens", "secret": {"secretName": "jwks"}});
        assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
        let container = &pod["containers"][0];
        let mount = json!({"name": "tokens", "mountPath": TOKENS_DIR, "readOnly": true});
        assert!(container["volumeMounts"].as_array().unwrap().contains(&mount), "{container}");
        let told = container["args"].to_string();
        for flag in
            ["key=jwt:sub", "jwt-keys=/var/run/ws-tokens/keys", "jwt-audience=chat,game", "strip-token=true"]
        {
            assert!(told.contains(&format!("\"--{flag}\"")), "{flag} is not in {told}");
        }
        assert!(!told.contains("jwt-issuer"), "{told}");
    }

    #[test]
    fn without_a_certificate_there_is_no_tls() {
        let objects = objects(json!({}));
        let all = json!(objects).to_string();
        assert!(!all.contains("--tls") && !all.contains(TLS_DIR), "{all}");
        assert_eq!(objects[1]["ports"].as_array().unwrap().len(), 1);
    }
}
