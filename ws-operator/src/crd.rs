//! The custom resource `WebSocketApp`: what a ring has besides its default, and how it is.
//!
//! Optional. The comments of the fields are what `kubectl explain` prints.

// The derives repeat each structure inside of a function.
#![allow(unreachable_pub)]
// kubectl explain shows URLs as they are typed.
#![allow(rustdoc::bare_urls)]

use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector},
};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Group;

/// The custom resource definition, as it is installed.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    WebSocketApp::crd()
}

/// One ring of a namespace: its balancer, scaling, monitoring and network policy. Without any WebSocketApp a ring has
/// two balancers and nothing else.
#[allow(clippy::duplicated_attributes, reason = "columns may be of the same type")]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ws.operator",
    version = "v1alpha1",
    kind = "WebSocketApp",
    plural = "websocketapps",
    shortname = "wsa",
    namespaced,
    status = "WebSocketAppStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "The ring of one group of pods: its balancer, scaling, monitoring and network policy, and how it is.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether clients are served"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why"
    ),
    printcolumn(
        name = "Pods",
        type_ = "integer",
        json_path = ".status.pods",
        description = "Pods of the ring"
    ),
    printcolumn(
        name = "Connections",
        type_ = "integer",
        json_path = ".status.connections",
        description = "Client connections that are held"
    ),
    printcolumn(
        name = "Fingerprint",
        type_ = "string",
        json_path = ".status.fingerprint",
        description = "The members, to compare with what other processes have",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autoscaling) || !has(self.balancer) || !has(self.balancer.enabled) || self.balancer.enabled || !has(self.balancer.autoscaling)")
        .message("a balancer that is off cannot be scaled"),
    validation = Rule::new("self.group == oldSelf.group").message("the group cannot be changed: make another WebSocketApp")
)]
pub struct WebSocketAppSpec {
    /// Which group of the namespace's pods this is about: the value of their annotation ws.operator/group. One
    /// WebSocketApp for each group: of several, the oldest counts.
    #[schemars(length(min = 1, max = 45), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[serde(default = "default_group")]
    pub group: String,

    /// Which of the group's pods the status counts: all unless this is given. A pod that it selects and that has no
    /// sidecar is counted as uninjected, labelled or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,

    /// The balancer that clients connect to.
    #[serde(default)]
    pub balancer: BalancerSpec,

    /// Scales a workload of the group by the connections that its pods hold. Needs a custom metrics API that knows
    /// ws_connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<WorkloadAutoscaling>,

    /// Whether Prometheus is told about the pods.
    #[serde(default)]
    pub monitoring: Monitoring,

    /// Who may reach the sidecars' port 7400.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
}

/// The balancer that clients connect to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
        .message("either replicas or autoscaling, not both"),
    validation = Rule::new("has(self.tokens) == (has(self.key) && self.key.contains('jwt:'))")
        .message("jwt:CLAIM in key and the keys in tokens need each other")
)]
pub struct BalancerSpec {
    /// Whether the ring has a balancer: a Deployment and a Service of the name ws-balancer, or ws-balancer-GROUP.
    #[serde(default = "on")]
    pub enabled: bool,

    /// How many there are. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// Scales the balancer by the connections that its pods hold, instead of replicas. Needs a custom metrics API that
    /// knows ws_connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// Where in a handshake the routing key is found, as ws-balancer's --key. Default: the workloads' annotation
    /// ws.operator/key, else header:ws-user-id,query:ws-user-id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key: Option<String>,

    /// How tokens are verified, for jwt:CLAIM in key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,

    /// The Secret of type kubernetes.io/tls, in the same namespace, with which clients are served by TLS too, at port
    /// 443 of the Service. When it changes, new clients see the new certificate, and those that are there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,

    /// Origins that browsers may connect from, such as https://example.com or https://*.example.com. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub allowed_origins: Vec<String>,

    /// Connections that one balancer holds at most; further clients are answered 503. Default: 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_connections: Option<i32>,

    /// What one balancer needs and may use. Default: requests of 100m CPU and 64Mi memory, and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

impl Default for BalancerSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            replicas: None,
            autoscaling: None,
            key: None,
            tokens: None,
            tls_secret_name: None,
            allowed_origins: Vec::new(),
            max_connections: None,
            resources: None,
        }
    }
}

/// How the tokens are verified that keys come in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// The Secret, in the same namespace, with the keys: a JWKS, or a secret for HS256, in its data under keys. When it
    /// changes, new clients are held to the new keys, and those that are there stay.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,

    /// A token must be for one of these. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub audiences: Vec<String>,

    /// A token must be from one of these. Default: any whose keys these are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub issuers: Vec<String>,

    /// Whether tokens are kept from the pods.
    #[serde(default)]
    pub strip: bool,
}

/// How far something is scaled, and by how many connections.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not be over maxReplicas")
)]
pub struct Autoscaling {
    /// Replicas at least.
    #[schemars(range(min = 1))]
    #[serde(default = "one")]
    pub min_replicas: i32,

    /// Replicas at most.
    #[schemars(range(min = 1))]
    pub max_replicas: i32,

    /// Connections that one pod should hold, on average.
    #[schemars(range(min = 1))]
    pub connections_per_pod: i32,
}

/// How a workload of the group is scaled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadAutoscaling {
    /// The workload.
    pub workload: WorkloadReference,

    /// How far it is scaled.
    pub range: Autoscaling,
}

/// A workload of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReference {
    /// Its kind.
    pub kind: ScaledKind,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds of workloads that can be scaled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaledKind {
    #[allow(missing_docs)]
    Deployment,
    #[allow(missing_docs)]
    StatefulSet,
}

/// Whether Prometheus is told about the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether there are PodMonitors for sidecars and balancers. Needs the Prometheus operator; without it the
    /// condition Ready says so.
    pub enabled: bool,
}

/// Who may reach the sidecars' port 7400.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether only the ring's balancers and pods reach it; all other ports stay as they are. Needs a network that
    /// enforces NetworkPolicies.
    pub enabled: bool,
}

/// How a ring is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketAppStatus {
    /// The generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: clients are served. EndpointsAvailable: the ring has members. InjectionHealthy: every pod has the current
    /// sidecar. BalancerAvailable: the balancer has its replicas, or is off.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,

    /// Pods of the ring, with or without a sidecar.
    #[serde(default)]
    pub pods: i32,

    /// Members that own keys.
    #[serde(default)]
    pub ready: i32,

    /// Members that are leaving.
    #[serde(default)]
    pub draining: i32,

    /// Pods that should have a sidecar and have none.
    #[serde(default)]
    pub uninjected: i32,

    /// Pods with another sidecar image than new pods get.
    #[serde(default)]
    pub outdated: i32,

    /// Client connections held by the balancers, or by the sidecars where there is no balancer.
    #[serde(default)]
    pub connections: i64,

    /// The members' fingerprint, to compare with GET /v1/members of any process.
    #[serde(default)]
    pub fingerprint: String,
}

impl Default for WebSocketAppSpec {
    fn default() -> Self {
        Self {
            group: default_group(),
            selector: None,
            balancer: BalancerSpec::default(),
            autoscaling: None,
            monitoring: Monitoring::default(),
            network_policy: NetworkPolicySpec::default(),
        }
    }
}

impl WebSocketAppSpec {
    /// The group; `None` when the API server let one pass that has no name.
    #[must_use]
    pub fn group(&self) -> Option<Group> {
        self.group.parse().ok()
    }
}

fn default_group() -> String {
    Group::default().to_string()
}

const fn on() -> bool {
    true
}

const fn one() -> i32 {
    1
}

/// What conditions are called.
pub mod conditions {
    /// Clients are served.
    pub const READY: &str = "Ready";
    /// The ring has members.
    pub const ENDPOINTS: &str = "EndpointsAvailable";
    /// Every pod has the current sidecar.
    pub const INJECTION: &str = "InjectionHealthy";
    /// The balancer has its replicas, or is off.
    pub const BALANCER: &str = "BalancerAvailable";
}

/// What the definition is called in the API.
pub const NAME: &str = "websocketapps.ws.operator";

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_empty_specification_is_the_default() {
        let spec: WebSocketAppSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec, WebSocketAppSpec::default());
        let balancer: BalancerSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(balancer, BalancerSpec::default());
    }

    #[test]
    fn every_field_has_a_description_and_none_is_required_at_the_top() {
        let crd = serde_json::to_value(definition()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        assert_eq!(schema["spec"]["required"], Value::Null);
        for part in ["spec", "status"] {
            described(&schema[part], part);
        }
    }

    fn described(schema: &Value, path: &str) {
        assert!(
            schema["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{path} has no description"
        );
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            described(field, &format!("{path}.{name}"));
        }
    }
}
