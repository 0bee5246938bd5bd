//! What the cluster's objects ask for, as the watches told it: pure, from objects to the plans of a namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::runtime::watcher::Event;
use ws_routing::node::Weight;

use crate::{
    Group, Ring, annotations,
    crd::WebSocketApp,
    desired::{Balancer, Plan},
    names,
    table::{Place, Table},
};

/// Watches of workloads: of each kind, and each spelling of the label.
pub(crate) const WORKLOAD_WATCHES: usize = 6;

/// Everything that decides what a namespace is to have.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) workloads: [Table<Asks>; WORKLOAD_WATCHES],
    pub(crate) pods: Table<Injected>,
    pub(crate) apps: Table<WebSocketApp>,
    /// The Services that are ours; what is left of a ring is found by them.
    pub(crate) services: Table<Option<String>>,
}

/// What a workload asks of its ring.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asks {
    group: Group,
    key: Option<String>,
    redelivery: bool,
    balancer: bool,
}

impl Asks {
    /// A workload's own annotations, and those of its template, which count where both speak.
    pub(crate) fn of(own: Option<BTreeMap<String, String>>, template: Option<&PodTemplateSpec>) -> Self {
        let mut all = own.unwrap_or_default();
        let told = template.and_then(|template| template.metadata.as_ref()?.annotations.clone());
        all.extend(told.unwrap_or_default());
        let wishes = annotations::read(&all).wishes;
        Self {
            group: wishes.group,
            key: wishes.key,
            redelivery: wishes.redelivery,
            balancer: wishes.balancer,
        }
    }
}

/// A pod with a sidecar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Injected {
    group: Option<Group>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) weight: Weight,
}

impl Injected {
    pub(crate) fn of(pod: &Pod) -> Self {
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::RING));
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
        let wishes = pod.metadata.annotations.as_ref().map(|all| annotations::read(all).wishes);
        Self {
            group: label.and_then(|label| label.parse().ok()),
            ip: ip.and_then(|ip| ip.parse().ok()),
            weight: wishes.map(|wishes| wishes.weight).unwrap_or_default(),
        }
    }
}

impl World {
    /// Whether every watch has told its first list: before, an absent object proves nothing.
    pub(crate) fn is_whole(&self) -> bool {
        self.workloads.iter().all(Table::is_whole)
            && self.pods.is_whole()
            && self.apps.is_whole()
            && self.services.is_whole()
    }

    /// Takes an event about pods with a sidecar; says where something changed, and which weights are no longer so.
    pub(crate) fn pods(&mut self, event: Event<Pod>) -> (BTreeSet<Place>, Vec<IpAddr>) {
        let had: Vec<(Place, IpAddr)> = match &event {
            Event::Apply(pod) | Event::Delete(pod) => self.address(&Place::of(pod)).into_iter().collect(),
            Event::InitDone => {
                self.pods.iter().filter_map(|(place, pod)| Some((place.clone(), pod.ip?))).collect()
            }
            Event::Init | Event::InitApply(_) => Vec::new(),
        };
        let changed = self.pods.apply(event, |pod| Injected::of(&pod));
        let gone =
            had.into_iter().filter(|(place, ip)| self.address(place).is_none_or(|(_, now)| now != *ip));
        (changed, gone.map(|(_, ip)| ip).collect())
    }

    fn address(&self, place: &Place) -> Option<(Place, IpAddr)> {
        Some((place.clone(), self.pods.get(place)?.ip?))
    }

    /// All namespaces in which there is anything of ours, or should be.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        let workloads = self.workloads.iter().flat_map(Table::iter).map(|(place, _)| place);
        let pods = self.pods.iter().map(|(place, _)| place);
        let services = self.services.iter().map(|(place, _)| place);
        workloads.chain(pods).chain(services).map(|place| place.namespace.clone()).collect()
    }

    /// What the rings of a namespace are to have. A ring lasts as long as a labelled workload or a pod with a sidecar.
    pub(crate) fn plans(&self, namespace: &str) -> Vec<Plan> {
        let mut rings: BTreeMap<Group, Vec<&Asks>> = BTreeMap::new();
        for (_, asks) in self.workloads.iter().flat_map(|table| table.within(namespace)) {
            rings.entry(asks.group.clone()).or_default().push(asks);
        }
        for group in self.pods.within(namespace).filter_map(|(_, pod)| pod.group.clone()) {
            rings.entry(group).or_default();
        }
        rings.into_iter().map(|(group, asks)| self.plan(namespace, group, &asks)).collect()
    }

    fn plan(&self, namespace: &str, group: Group, asks: &[&Asks]) -> Plan {
        let spec = self.app(namespace, &group).map(|app| app.spec.clone()).unwrap_or_default();
        let wanted = spec.balancer.enabled && asks.iter().all(|asks| asks.balancer);
        let balancer = wanted.then(|| Balancer {
            spec: spec.balancer,
            key: asks.iter().find_map(|asks| asks.key.clone()),
            redelivery: asks.iter().any(|asks| asks.redelivery).then(|| "on".into()),
        });
        Plan {
            balancer,
            autoscaling: spec.autoscaling,
            monitoring: spec.monitoring.enabled,
            network_policy: spec.network_policy.enabled,
            ..Plan::new(Ring { namespace: namespace.into(), group })
        }
    }

    /// The `WebSocketApp` of a ring: of several the oldest.
    fn app<'a>(&'a self, namespace: &'a str, group: &Group) -> Option<&'a WebSocketApp> {
        let of_group =
            self.apps.within(namespace).filter(|(_, app)| app.spec.group().as_ref() == Some(group));
        let age = |app: &WebSocketApp| app.metadata.creation_timestamp.as_ref().map(|time| time.0);
        of_group.map(|(_, app)| app).min_by_key(|app| age(app))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    use super::*;

    fn deployment(name: &str, own: &Value, template: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": name, "annotations": own},
            "spec": {"selector": {}, "template": {"metadata": {"annotations": template}}},
        }))
        .unwrap()
    }

    fn see(world: &mut World, object: Deployment) {
        world.workloads[0].apply(Event::Apply(object), |object| {
            Asks::of(object.metadata.annotations, object.spec.as_ref().map(|spec| &spec.template))
        });
    }

    fn groups(world: &World) -> Vec<String> {
        world.plans("chat").iter().map(|plan| plan.ring.group.to_string()).collect()
    }

    #[test]
    fn a_ring_lasts_as_long_as_its_workloads_and_their_pods() {
        let mut world = World::default();
        let object = deployment("a", &json!({"ws.operator/group": "game"}), &json!({}));
        see(&mut world, object.clone());
        see(&mut world, deployment("b", &json!({}), &json!({})));
        assert_eq!(groups(&world), ["default", "game"]);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": "a-1", "labels": {"ws.operator/ring": "game"}},
        }))
        .unwrap();
        world.pods(Event::Apply(pod.clone()));
        world.workloads[0].apply(Event::Delete(object), |_| unreachable!());
        assert_eq!(groups(&world), ["default", "game"], "its pods still hold clients");
        world.pods(Event::Delete(pod));
        assert_eq!(groups(&world), ["default"]);
        assert!(world.plans("other").is_empty());
    }

    #[test]
    fn one_workload_without_a_balancer_speaks_for_its_ring_and_templates_for_themselves() {
        let mut world = World::default();
        see(&mut world, deployment("a", &json!({"ws.operator/key": "query:a"}), &json!({})));
        assert_eq!(world.plans("chat")[0].balancer.as_ref().unwrap().key.as_deref(), Some("query:a"));
        let template = json!({"ws.operator/key": "query:b"});
        see(&mut world, deployment("a", &json!({"ws.operator/key": "query:a"}), &template));
        assert_eq!(world.plans("chat")[0].balancer.as_ref().unwrap().key.as_deref(), Some("query:b"));
        see(&mut world, deployment("b", &json!({"ws.operator/balancer": "false"}), &json!({})));
        assert_eq!(world.plans("chat")[0].balancer, None);
    }

    #[test]
    fn a_pods_address_that_is_gone_is_told() {
        let mut world = World::default();
        let pod = |ip: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "chat", "name": "a", "labels": {"ws.operator/ring": "default"}},
                "status": {"podIP": ip},
            }))
            .unwrap()
        };
        assert!(world.pods(Event::Apply(pod("10.0.0.1"))).1.is_empty());
        assert_eq!(world.pods(Event::Apply(pod("10.0.0.2"))).1, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(world.pods(Event::Delete(pod("10.0.0.2"))).1, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }
}
