//! What a ring needs in the cluster: pure, from what its workloads and its `WebSocketApp` ask for.

mod balancer;
mod object;
mod policies;
mod ring_service;

pub use object::{Kind, Object};

use crate::{Ring, Settings, crd};

/// What one ring is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Which ring.
    pub ring: Ring,
    /// Its balancer; `None` when it is to have none.
    pub balancer: Option<Balancer>,
    /// How the workload that serves the ring is scaled.
    pub autoscaling: Option<crd::WorkloadAutoscaling>,
    /// Whether Prometheus is told about the pods.
    pub monitoring: bool,
    /// Whether only balancers and peers reach the sidecars' port.
    pub network_policy: bool,
}

/// What a ring's balancer is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balancer {
    /// As the `WebSocketApp` has it.
    pub spec: crd::BalancerSpec,
    /// Where the key is found, as the workloads' annotation has it.
    pub key: Option<String>,
    /// Whether messages are redelivered, as the workloads' annotation has it.
    pub redelivery: Option<String>,
}

impl Plan {
    /// A ring that asks for nothing in particular.
    #[must_use]
    pub fn new(ring: Ring) -> Self {
        Self {
            ring,
            balancer: Some(Balancer::default()),
            autoscaling: None,
            monitoring: false,
            network_policy: false,
        }
    }

    /// All objects of the ring but its peer tokens.
    #[must_use]
    pub fn objects(&self, settings: &Settings) -> Vec<Object> {
        let mut objects = vec![ring_service::service(&self.ring)];
        if let Some(balancer) = &self.balancer {
            objects.extend(balancer::objects(&self.ring, balancer, settings));
        }
        objects.extend(policies::objects(self));
        objects
    }
}
