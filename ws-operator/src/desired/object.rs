//! An object as it is applied.

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::{Ring, names, table::Place};

/// The kinds of objects that a ring may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1`
    Service,
    /// `apps/v1`
    Deployment,
    /// `policy/v1`
    PodDisruptionBudget,
    /// `autoscaling/v2`
    HorizontalPodAutoscaler,
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    /// `monitoring.coreos.com/v1`, where the Prometheus operator is installed.
    PodMonitor,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Service,
        Self::Deployment,
        Self::PodDisruptionBudget,
        Self::HorizontalPodAutoscaler,
        Self::NetworkPolicy,
        Self::PodMonitor,
    ];

    /// How the API knows it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::HorizontalPodAutoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PodMonitor => ApiResource {
                group: "monitoring.coreos.com".into(),
                version: "v1".into(),
                api_version: "monitoring.coreos.com/v1".into(),
                kind: "PodMonitor".into(),
                plural: "podmonitors".into(),
            },
        }
    }

    /// Whether every cluster has it.
    #[must_use]
    pub fn is_everywhere(self) -> bool {
        self != Self::PodMonitor
    }
}

/// One object, whole, as it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Of what kind.
    pub kind: Kind,
    /// Where it stands.
    pub place: Place,
    /// The object.
    pub body: Value,
}

impl Object {
    /// An object of that ring, with that name and specification.
    pub(super) fn new(kind: Kind, ring: &Ring, name: String, role: Role, spec: &Value) -> Self {
        let resource = kind.resource();
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"namespace": ring.namespace, "name": name, "labels": role.labels(ring)},
            "spec": spec,
        });
        Self { kind, place: Place { namespace: ring.namespace.clone(), name }, body }
    }
}

/// What an object is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ring,
    Balancer,
}

impl Role {
    /// The labels of the ring's objects of that role.
    pub(super) fn labels(self, ring: &Ring) -> Value {
        let name = match self {
            Self::Ring => names::SIDECAR,
            Self::Balancer => names::BALANCER,
        };
        json!({
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": "ws-routing",
            names::MANAGED_BY: names::OPERATOR,
            self.mark(): ring.group.as_str(),
        })
    }

    /// What selects the ring's pods of that role.
    pub(super) fn selector(self, ring: &Ring) -> Value {
        json!({self.mark(): ring.group.as_str()})
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Ring => names::RING,
            // Not the ring's own mark: its Service would take balancers for nodes.
            Self::Balancer => names::BALANCER_OF,
        }
    }
}
