//! Why a pod gets no sidecar.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::{
    annotations::{self, Wishes},
    names::SIDECAR,
};

/// Why a pod that carries the label gets no sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// The label's value is not `true`, or the annotation `inject` is `false`.
    OptedOut,
    /// The kubelet made it from a file: nothing that is added here would run.
    MirrorPod,
    /// It shares its node's ports: two such pods of a node would fight for the sidecar's.
    HostNetwork,
    /// It is in a namespace that is left alone: that of Kubernetes, or the operator's own.
    SystemNamespace,
    /// A container has the sidecar's name: it was injected before, or stands there by hand.
    AlreadyInjected,
    /// A container declares that port, which the sidecar needs.
    PortClash(u16),
}

impl Skip {
    /// A name for metrics and the reason of an event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OptedOut => "OptedOut",
            Self::MirrorPod => "MirrorPod",
            Self::HostNetwork => "HostNetwork",
            Self::SystemNamespace => "SystemNamespace",
            Self::AlreadyInjected => "AlreadyInjected",
            Self::PortClash(_) => "PortClash",
        }
    }

    /// The first reason that a pod gives, in the order in which they stand above; `left_alone`: its namespace is.
    #[must_use]
    pub(super) fn of(pod: &Pod, spec: &PodSpec, wishes: &Wishes, left_alone: bool) -> Option<Self> {
        let metadata = &pod.metadata;
        if annotations::asked(metadata.labels.as_ref()) == Some(false) || !wishes.inject {
            return Some(Self::OptedOut);
        }
        if metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
            return Some(Self::MirrorPod);
        }
        if spec.host_network == Some(true) {
            return Some(Self::HostNetwork);
        }
        if left_alone {
            return Some(Self::SystemNamespace);
        }
        if containers(spec).any(|container| container.name == SIDECAR) {
            return Some(Self::AlreadyInjected);
        }
        let ports = containers(spec).flat_map(|container| container.ports.iter().flatten());
        let mut taken = ports.map(|port| port.container_port).filter(|port| annotations::is_sidecars(*port));
        taken.find_map(|port| u16::try_from(port).ok()).map(Self::PortClash)
    }
}

/// How the kubelet marks the pods that it made from files.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OptedOut => f.write_str("it opted out"),
            Self::MirrorPod => f.write_str("it is a mirror pod"),
            Self::HostNetwork => f.write_str("it has hostNetwork, where the sidecar's ports would clash"),
            Self::SystemNamespace => f.write_str("its namespace is left alone"),
            Self::AlreadyInjected => write!(f, "it has a container {SIDECAR} already"),
            Self::PortClash(port) => write!(f, "a container has port {port}, which the sidecar needs"),
        }
    }
}
