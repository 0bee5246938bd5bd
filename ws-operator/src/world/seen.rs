//! What is kept of each object that the watches tell of.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    Group, Settings,
    annotations::{self, Wishes},
    inject::{Presence, presence},
    names,
    propagate::{Workload, propagate},
    watchdog::RESTARTED,
};

/// What a workload or a pod says about the balancer of its ring; `None` where it says nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Voice {
    /// Whether there is to be one.
    pub(crate) balancer: Option<bool>,
    pub(crate) key: Option<String>,
    pub(crate) redelivery: Option<bool>,
}

impl Voice {
    fn of(wishes: Wishes) -> Self {
        Self { balancer: wishes.balancer, key: wishes.key, redelivery: wishes.redelivery }
    }
}

/// A labelled workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asks {
    pub(crate) group: Group,
    pub(crate) voice: Voice,
    pub(crate) auto_restart: bool,
    /// Its template is not told what it should be.
    pub(crate) missed: bool,
    /// How far its latest template is.
    pub(crate) rollout: Rollout,
    /// When it was restarted by the operator.
    pub(crate) restarted: Option<Timestamp>,
}

impl Asks {
    /// A workload's own annotations, and those of its template, which count where both speak.
    pub(crate) fn of<K: Rolled>(object: &K) -> Self {
        let own = object.meta().annotations.clone();
        let template = object.template().and_then(|template| template.metadata.as_ref());
        let told = template.and_then(|template| template.annotations.clone()).unwrap_or_default();
        let restarted = told.get(RESTARTED).and_then(|time| time.parse().ok());
        let mut all = own.unwrap_or_default();
        all.extend(told);
        let wishes = annotations::read(&all).wishes;
        let workload = Workload::of(object.meta().clone(), object.template());
        Self {
            auto_restart: wishes.auto_restart,
            group: wishes.group.clone(),
            voice: Voice::of(wishes),
            missed: !propagate(&workload).patch.0.is_empty(),
            rollout: object.rollout(),
            restarted,
        }
    }
}

/// How far a workload's latest template is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rollout {
    /// There are pods of an older one.
    Rolling,
    /// All pods are of the latest, and not all are available.
    Rolled,
    /// All pods are of the latest, and available.
    Settled,
}

/// A kind of workload: what is looked at.
pub(crate) trait Rolled: kube::Resource<DynamicType = ()> {
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn rollout(&self) -> Rollout;
}

/// Pods of a workload, in numbers.
struct Pods {
    wanted: i32,
    all: Option<i32>,
    updated: Option<i32>,
    available: Option<i32>,
}

impl Pods {
    fn rollout(&self, metadata: &ObjectMeta, observed: Option<i64>) -> Rollout {
        let Self { wanted, all, updated, available } = *self;
        let is_there = |count: Option<i32>| count.unwrap_or_default() >= wanted;
        if observed < metadata.generation || !is_there(updated) || all.unwrap_or_default() > wanted {
            Rollout::Rolling
        } else if is_there(available) {
            Rollout::Settled
        } else {
            Rollout::Rolled
        }
    }
}

impl Rolled for Deployment {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn rollout(&self) -> Rollout {
        let wanted = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = self.status.clone().unwrap_or_default();
        let (all, updated, available) = (status.replicas, status.updated_replicas, status.available_replicas);
        Pods { wanted, all, updated, available }.rollout(&self.metadata, status.observed_generation)
    }
}

impl Rolled for StatefulSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn rollout(&self) -> Rollout {
        let wanted = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = self.status.clone().unwrap_or_default();
        let (all, updated, available) =
            (Some(status.replicas), status.updated_replicas, status.available_replicas);
        Pods { wanted, all, updated, available }.rollout(&self.metadata, status.observed_generation)
    }
}

impl Rolled for DaemonSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn rollout(&self) -> Rollout {
        let status = self.status.clone().unwrap_or_default();
        let wanted = status.desired_number_scheduled;
        let (updated, available) = (status.updated_number_scheduled, status.number_available);
        let all = Some(status.current_number_scheduled);
        Pods { wanted, all, updated, available }.rollout(&self.metadata, status.observed_generation)
    }
}

/// A pod that carries the label of a ring, or should.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodSeen {
    pub(crate) group: Option<Group>,
    pub(crate) voice: Voice,
    /// `None`: it has a ring's label and does not ask for one.
    pub(crate) presence: Option<Presence>,
    pub(crate) owner: Option<Owner>,
    /// Whether it asks that its workload be restarted; one that is labelled itself says it instead.
    pub(crate) auto_restart: bool,
    pub(crate) uid: String,
    pub(crate) ip: Option<IpAddr>,
    /// It ends, or has ended.
    pub(crate) ends: bool,
}

impl PodSeen {
    pub(crate) fn of(pod: &Pod, settings: &Settings) -> Self {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::RING));
        let told = pod.metadata.annotations.as_ref();
        let wishes = told.map(|all| annotations::read(all).wishes).unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        Self {
            group: match label {
                Some(label) => label.parse().ok(),
                None => Some(wishes.group.clone()),
            },
            auto_restart: wishes.auto_restart,
            voice: Voice::of(wishes),
            presence: presence(pod, settings),
            owner: Owner::of(pod),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ip: status.pod_ip.and_then(|ip| ip.parse().ok()),
            ends: over || pod.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The workload that a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) kind: WorkloadKind,
    pub(crate) name: String,
}

/// The kinds of workloads that can be labelled, in the order of their watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl WorkloadKind {
    pub(crate) const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// As the API has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

impl Owner {
    fn of(pod: &Pod) -> Option<Self> {
        let owner =
            pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
        let (kind, name) = match owner.kind.as_str() {
            "StatefulSet" => (WorkloadKind::StatefulSet, owner.name.clone()),
            "DaemonSet" => (WorkloadKind::DaemonSet, owner.name.clone()),
            // A Deployment's is named after it and the template's hash.
            "ReplicaSet" => {
                let hash = pod.metadata.labels.as_ref()?.get("pod-template-hash")?;
                let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
                (WorkloadKind::Deployment, name.to_owned())
            }
            _ => return None,
        };
        Some(Self { kind, name })
    }
}

/// A balancer's Deployment: how many pods it should have, and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) wanted: i32,
    pub(crate) available: i32,
}

impl Running {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let status = deployment.status.as_ref();
        Self {
            wanted: deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            available: status.and_then(|status| status.available_replicas).unwrap_or_default(),
        }
    }
}

/// A balancer's pod: of which group, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BalancerPod {
    pub(crate) group: Option<Group>,
    pub(crate) ip: Option<IpAddr>,
}

impl BalancerPod {
    pub(crate) fn of(pod: &Pod) -> Self {
        let none = BTreeMap::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
        Self {
            group: labels.get(names::BALANCER_OF).and_then(|group| group.parse().ok()),
            ip: ip.and_then(|ip| ip.parse().ok()),
        }
    }
}
