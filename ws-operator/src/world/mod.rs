//! What the cluster's objects ask for, as the watches told it: pure, from objects to the plans of a namespace.

mod seen;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use seen::{Asks, BalancerPod, Owner, PodSeen, Rolled, Rollout, Running, Voice, WorkloadKind};

use crate::{
    Group, Ring,
    crd::WebSocketApp,
    desired::{Balancer, Plan},
    table::{Place, Table},
};

/// Watches of workloads: of each kind, and each spelling of the label.
pub(crate) const WORKLOAD_WATCHES: usize = 6;

/// Everything that decides what a namespace is to have, and how it is.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) workloads: [Table<Asks>; WORKLOAD_WATCHES],
    /// Pods with a ring's label.
    pub(crate) pods: Table<PodSeen>,
    /// Pods that ask for a sidecar, by each spelling of the label, and have none.
    pub(crate) bare: [Table<PodSeen>; 2],
    pub(crate) apps: Table<WebSocketApp>,
    /// The Services that are ours; what is left of a ring is found by them.
    pub(crate) services: Table<Option<String>>,
    pub(crate) balancers: Table<Running>,
    pub(crate) balancer_pods: Table<BalancerPod>,
}

impl World {
    /// Whether every watch has told its first list: before, an absent object proves nothing.
    pub(crate) fn is_whole(&self) -> bool {
        self.workloads.iter().all(Table::is_whole)
            && self.pods.is_whole()
            && self.bare.iter().all(Table::is_whole)
            && self.balancers.is_whole()
            && self.balancer_pods.is_whole()
            && self.apps.is_whole()
            && self.services.is_whole()
    }

    /// All namespaces in which there is anything of ours, or should be.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        let workloads = self.workloads.iter().flat_map(Table::iter).map(|(place, _)| place);
        let pods = self.pods.iter().map(|(place, _)| place);
        let services = self.services.iter().map(|(place, _)| place);
        workloads.chain(pods).chain(services).map(|place| place.namespace.clone()).collect()
    }

    /// Whether a template of the namespace is not told what it should be.
    pub(crate) fn has_missed(&self, namespace: &str) -> bool {
        self.workloads.iter().flat_map(|table| table.within(namespace)).any(|(_, asks)| asks.missed)
    }

    /// The labelled workloads of all namespaces; one that carries both spellings is there twice.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (WorkloadKind, &Place, &Asks)> {
        self.workloads.iter().enumerate().flat_map(|(table, workloads)| {
            let kind = WorkloadKind::ALL[table / 2];
            workloads.iter().map(move |(place, asks)| (kind, place, asks))
        })
    }

    /// The pods of a ring that live, with a sidecar or without; `None`: of all rings.
    pub(crate) fn pods_of(&self, ring: Option<&Ring>) -> impl Iterator<Item = (&Place, &PodSeen)> {
        self.all_pods().filter(move |(place, pod)| {
            let of =
                |ring: &Ring| place.namespace == ring.namespace && pod.group.as_ref() == Some(&ring.group);
            !pod.ends && ring.is_none_or(of)
        })
    }

    /// The pods of all rings, also those that end.
    pub(crate) fn all_pods(&self) -> impl Iterator<Item = (&Place, &PodSeen)> {
        self.pods.iter().chain(self.bare.iter().flat_map(Table::iter))
    }

    /// What the rings of a namespace are to have. A ring lasts as long as a labelled workload or a pod with a sidecar.
    pub(crate) fn plans(&self, namespace: &str) -> Vec<Plan> {
        let mut rings: BTreeMap<Group, Voices<'_>> = BTreeMap::new();
        for (_, asks) in self.workloads.iter().flat_map(|table| table.within(namespace)) {
            rings.entry(asks.group.clone()).or_default().workloads.push(&asks.voice);
        }
        for (_, pod) in self.pods.within(namespace) {
            let Some(group) = pod.group.clone() else { continue };
            let voices = rings.entry(group).or_default();
            if !self.is_spoken_for(namespace, pod) {
                let all = if pod.ends { &mut voices.ending } else { &mut voices.pods };
                all.push(&pod.voice);
            }
        }
        rings.into_iter().map(|(group, voices)| self.plan(namespace, group, &voices)).collect()
    }

    /// Whether a pod says nothing of its own: it asks for nothing, or its workload speaks in its ring, and may say
    /// something else by now than when the pod was made.
    fn is_spoken_for(&self, namespace: &str, pod: &PodSeen) -> bool {
        let speaks = |owner: &Owner| {
            let place = Place { namespace: namespace.into(), name: owner.name.clone() };
            let tables = WorkloadKind::ALL.iter().zip(self.workloads.chunks(2));
            let mut of_kind = tables.filter(|(kind, _)| **kind == owner.kind).flat_map(|(_, tables)| tables);
            of_kind.any(|table| table.get(&place).is_some_and(|asks| pod.group.as_ref() == Some(&asks.group)))
        };
        pod.presence.is_none() || pod.owner.as_ref().is_some_and(speaks)
    }

    fn plan(&self, namespace: &str, group: Group, voices: &Voices<'_>) -> Plan {
        let spec = self.app(namespace, &group).map(|app| app.spec.clone()).unwrap_or_default();
        let wanted = spec.balancer.enabled && !voices.say(|voice| voice.balancer).contains(&false);
        let balancer = wanted.then(|| Balancer {
            spec: spec.balancer,
            key: voices.say(|voice| voice.key.clone()).into_iter().next(),
            redelivery: voices.say(|voice| voice.redelivery).contains(&true).then(|| "on".into()),
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
    pub(crate) fn app<'a>(&'a self, namespace: &'a str, group: &Group) -> Option<&'a WebSocketApp> {
        let of_group =
            self.apps.within(namespace).filter(|(_, app)| app.spec.group().as_ref() == Some(group));
        let age = |app: &WebSocketApp| app.metadata.creation_timestamp.as_ref().map(|time| time.0);
        of_group.map(|(_, app)| app).min_by_key(|app| age(app))
    }
}

/// Who says something about the balancer of a ring.
#[derive(Default)]
struct Voices<'a> {
    /// Of labelled workloads.
    workloads: Vec<&'a Voice>,
    /// Of pods that no labelled workload speaks for.
    pods: Vec<&'a Voice>,
    /// Of such pods that end.
    ending: Vec<&'a Voice>,
}

impl Voices<'_> {
    /// What is said about one thing: by workloads, or else by pods. While none but pods that end are left, what they
    /// said holds: the balancer that moves their clients away should not change meanwhile.
    fn say<T>(&self, about: impl Fn(&Voice) -> Option<T>) -> Vec<T> {
        let said = |all: &[&Voice]| -> Vec<T> { all.iter().filter_map(|voice| about(voice)).collect() };
        let workloads = said(&self.workloads);
        if !workloads.is_empty() {
            return workloads;
        }
        let is_over = self.workloads.is_empty() && self.pods.is_empty();
        said(if is_over { &self.ending } else { &self.pods })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::Pod,
    };
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::Settings;

    fn deployment(name: &str, own: &Value, template: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": name, "annotations": own},
            "spec": {"selector": {}, "template": {"metadata": {"annotations": template}}},
        }))
        .unwrap()
    }

    fn see(world: &mut World, object: Deployment) {
        world.workloads[0].apply(Event::Apply(object), |object| Asks::of(&object));
    }

    fn see_pod(world: &mut World, event: Event<Pod>) {
        world.pods.apply(event, |pod| PodSeen::of(&pod, &Settings::default()));
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
        see_pod(&mut world, Event::Apply(pod.clone()));
        world.workloads[0].apply(Event::Delete(object), |_| unreachable!());
        assert_eq!(groups(&world), ["default", "game"], "its pods still hold clients");
        see_pod(&mut world, Event::Delete(pod));
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

    fn member(name: &str, annotations: &Value, owner: Option<&str>) -> Pod {
        let owners = owner.map(|name| {
            json!([{"apiVersion": "v1", "kind": "StatefulSet", "name": name, "uid": "1", "controller": true}])
        });
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "chat", "name": name, "annotations": annotations, "ownerReferences": owners,
                "labels": {"ws.operator/enable": "true", "ws.operator/ring": "default"},
            },
            "spec": {"containers": []},
        }))
        .unwrap()
    }

    fn see_set(world: &mut World, own: &Value) {
        let object: StatefulSet = serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": "a", "annotations": own},
            "spec": {"selector": {}, "template": {}},
        }))
        .unwrap();
        world.workloads[2].apply(Event::Apply(object), |object| Asks::of(&object));
    }

    fn ending(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-23T12:00:00Z")).unwrap());
        pod
    }

    /// The balancer's key and redelivery in the only ring of the namespace; `None`: it is to have none.
    fn balancer(world: &World) -> Option<(Option<String>, bool)> {
        let plans = world.plans("chat");
        assert_eq!(plans.len(), 1, "{plans:?}");
        plans[0].balancer.as_ref().map(|balancer| (balancer.key.clone(), balancer.redelivery.is_some()))
    }

    #[test]
    fn pods_speak_for_themselves_where_no_workload_is_labelled() {
        let mut world = World::default();
        let notes = json!({"ws.operator/key": "query:a", "ws.operator/redelivery": "on"});
        let only = member("a-0", &notes, Some("a"));
        see_pod(&mut world, Event::Apply(only.clone()));
        assert_eq!(balancer(&world), Some((Some("query:a".into()), true)));
        see_pod(&mut world, Event::Apply(ending(only)));
        assert_eq!(balancer(&world), Some((Some("query:a".into()), true)), "until another one speaks");
        see_pod(&mut world, Event::Apply(member("b", &json!({}), None)));
        assert_eq!(balancer(&world), Some((None, false)));
        see_pod(&mut world, Event::Apply(member("c", &json!({"ws.operator/balancer": "false"}), None)));
        assert_eq!(balancer(&world), None);
    }

    #[test]
    fn what_a_labelled_workload_says_counts_more_than_pods() {
        let mut world = World::default();
        let notes =
            |key: &str, balancer: &str| json!({"ws.operator/key": key, "ws.operator/balancer": balancer});
        see_pod(&mut world, Event::Apply(member("bare", &notes("query:bare", "false"), None)));
        see_set(&mut world, &json!({}));
        assert_eq!(balancer(&world), None, "it said nothing about it");
        see_set(&mut world, &notes("query:a", "true"));
        assert_eq!(balancer(&world), Some((Some("query:a".into()), false)));
        see_pod(&mut world, Event::Delete(member("bare", &json!({}), None)));
        see_pod(&mut world, Event::Apply(member("a-0", &notes("query:old", "false"), Some("a"))));
        see_set(&mut world, &json!({}));
        assert_eq!(balancer(&world), Some((None, false)), "its pods are of an older template");
        see_set(&mut world, &json!({"ws.operator/group": "game"}));
        let has_balancer: Vec<_> = world.plans("chat").iter().map(|plan| plan.balancer.is_some()).collect();
        assert_eq!(has_balancer, [false, true], "in the ring that it left, its pods are alone");
    }

    #[test]
    fn a_pods_workload_is_told_from_its_owner() {
        let pod = |kind: &str, name: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {
                "labels": {"pod-template-hash": "abc12", "ws.operator/enable": "true"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": kind, "name": name, "uid": "1", "controller": true},
                ],
            }, "spec": {"containers": []}}))
            .unwrap()
        };
        for (kind, name, owner) in [
            ("ReplicaSet", "chat-abc12", Some((WorkloadKind::Deployment, "chat"))),
            ("ReplicaSet", "by-hand", None),
            ("StatefulSet", "chat", Some((WorkloadKind::StatefulSet, "chat"))),
            ("DaemonSet", "agent", Some((WorkloadKind::DaemonSet, "agent"))),
            ("Job", "once", None),
        ] {
            let owner = owner.map(|(kind, name)| Owner { kind, name: name.into() });
            let seen = PodSeen::of(&pod(kind, name), &Settings::default());
            assert_eq!(seen.owner, owner, "{kind} {name}");
            assert_eq!(seen.presence, Some(crate::inject::Presence::Missing));
        }
    }
}
