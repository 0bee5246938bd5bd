//! Names that the operator and the objects in a cluster share. Changing one orphans what an earlier version made.

/// Where the operator lives, unless it is told otherwise.
pub const NAMESPACE: &str = "ws-system";
/// Where Kubernetes lives itself.
pub const KUBE_SYSTEM: &str = "kube-system";
/// The operator's Deployment, Service, ServiceAccount, Lease and webhook configuration, and its field manager.
pub const OPERATOR: &str = "ws-operator";
/// The Secret with the operator's own CA and serving certificate.
pub const CERTIFICATE_SECRET: &str = "ws-operator-tls";

/// What every label and annotation of ours begins with.
pub const PREFIX: &str = "ws.operator/";
/// The label that opts in, with the value `true`.
pub const ENABLE: &str = "ws.operator/enable";
/// How some spell it. Works, with a warning.
pub const ENABLED: &str = "ws.operator/enabled";
/// The annotation of a template that lists what was copied into it from its workload: names of annotations and of the
/// label, without the prefix, comma-separated.
pub const PROPAGATED: &str = "ws.operator/propagated";
/// The label that injection stamps, its value the group's name: a ring's Service selects by it.
pub const RING: &str = "ws.operator/ring";

/// A ring's headless Service; other groups than the default append `-` and their name.
pub const HEADLESS_SERVICE: &str = "ws-proxy-headless";
/// A ring's balancer: its Deployment, Service and PodDisruptionBudget, likewise.
pub const BALANCER: &str = "ws-balancer";

/// The sidecar's container.
pub const SIDECAR: &str = "ws-proxy";
/// The Secret with the peer tokens of a namespace, a data key for each group; and the volume that mounts it.
pub const PEER_TOKEN: &str = "ws-peer-token";
/// Where sidecars and balancers see it.
pub const PEER_TOKEN_DIR: &str = "/var/run/ws-peer-token";
/// The file in that directory: the tokens of the pod's own group.
pub const PEER_TOKEN_FILE: &str = "token";

/// Where a sidecar is reached by balancers, peers and clients; the port of a ring's Service.
pub const SIDECAR_PORT: u16 = 7400;
/// Where a sidecar is reached by its own application, on loopback.
pub const API_PORT: u16 = 7401;
/// Health, metrics and state, of every program.
pub const ADMIN_PORT: u16 = 7402;
/// Where clients reach a balancer, on its Service too.
pub const BALANCER_PORT: u16 = 8080;
/// Where the operator serves the members of every ring, on its Service too.
pub const MEMBERS_PORT: u16 = 7403;
/// Where the operator takes admission reviews; its Service has 443 for it.
pub const WEBHOOK_PORT: u16 = 8443;

/// The webhook's path for pods that are created.
pub const PODS_PATH: &str = "/pods";
/// The webhook's path for workloads that are created or updated.
pub const WORKLOADS_PATH: &str = "/workloads";

/// The label of every object that the operator makes; its value is [`OPERATOR`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label of a balancer's objects and pods, its value the group's name.
pub const BALANCER_OF: &str = "ws.operator/balancer-of";
