//! Pods that have not what new ones get: counted, told of, and restarted where that was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    inject::Presence,
    table::Place,
    world::{Asks, Owner, PodSeen, Rollout, WorkloadKind, World},
};

/// The annotation of a template that says when the operator restarted its workload. Another one than the labels' and
/// annotations' prefix has, since no author writes it.
pub(crate) const RESTARTED: &str = "restarted.ws.operator/at";

/// How long a restarted workload is waited for before the next one is restarted, or the same again.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Pods that have no sidecar though they should, and pods with another than new ones get.
pub(crate) fn count<'a>(pods: impl Iterator<Item = (&'a Place, &'a PodSeen)>) -> (usize, usize) {
    pods.fold((0, 0), |(uninjected, outdated), (_, pod)| match pod.presence {
        Some(Presence::Missing) => (uninjected + 1, outdated),
        Some(Presence::Outdated) => (uninjected, outdated + 1),
        Some(Presence::Current | Presence::Skipped(_)) | None => (uninjected, outdated),
    })
}

/// What the author of a pod or workload should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) kind: &'static str,
    pub(crate) place: Place,
    /// Of a pod.
    pub(crate) uid: Option<String>,
    pub(crate) reason: &'static str,
    pub(crate) text: String,
    /// Whether something should be done about it.
    pub(crate) warns: bool,
}

/// What there is to tell now, each under a name by which it is known to be told: of each pod without a sidecar, and of
/// each workload that has pods with another than new ones get.
pub(crate) fn notices(world: &World) -> BTreeMap<String, Notice> {
    let pods = world.pods_of(None).filter_map(|(place, pod)| {
        let (reason, text) = match pod.presence? {
            Presence::Missing => {
                ("Uninjected", "this pod has no sidecar: it was made while nobody injected".into())
            }
            Presence::Skipped(skip) => (skip.name(), format!("no sidecar was put into this pod: {skip}")),
            Presence::Outdated | Presence::Current => return None,
        };
        let warns = reason == "Uninjected";
        let uid = Some(pod.uid.clone());
        Some((pod.uid.clone(), Notice { kind: "Pod", place: place.clone(), uid, reason, text, warns }))
    });
    let outdated = world.pods_of(None).filter(|(_, pod)| pod.presence == Some(Presence::Outdated));
    let workloads = outdated.filter_map(|(place, pod)| {
        let Owner { kind, name } = pod.owner.as_ref()?;
        let place = Place { namespace: place.namespace.clone(), name: name.clone() };
        let text = "its pods have another sidecar than new ones get: restart it when it suits".into();
        let key = format!("{} {} {name}", kind.name(), place.namespace);
        Some((key, Notice { kind: kind.name(), place, uid: None, reason: "Outdated", text, warns: false }))
    });
    pods.chain(workloads).collect()
}

/// Workloads that ask to be restarted where their pods have not what new ones get.
pub(crate) type Candidates = BTreeMap<(WorkloadKind, Place), Candidate>;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Whether it has such pods.
    pub(crate) is_stale: bool,
    /// `None`: only its pods are labelled. It is not watched, and has to be looked at.
    pub(crate) progress: Option<Progress>,
}

/// How far a workload is with its latest template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) rollout: Rollout,
    /// When it was restarted by the operator.
    pub(crate) restarted: Option<Timestamp>,
}

impl Progress {
    /// Of a workload that asks to be restarted.
    pub(crate) fn of(asks: &Asks) -> Option<Self> {
        asks.auto_restart.then_some(Self { rollout: asks.rollout, restarted: asks.restarted })
    }
}

/// Who asks for restarts; nobody while nothing is to be restarted. Labelled workloads say it themselves; of others,
/// whose templates alone are labelled, the pods do.
pub(crate) fn candidates(world: &World) -> Candidates {
    let is_stale = |pod: &PodSeen| matches!(pod.presence, Some(Presence::Missing | Presence::Outdated));
    let stale: BTreeSet<_> = world.pods_of(None).filter(|(_, pod)| is_stale(pod)).filter_map(owner).collect();
    let labelled: BTreeMap<_, _> =
        world.labelled().map(|(kind, place, asks)| ((kind, place.clone()), Progress::of(asks))).collect();
    // The only pod of a workload that is on its way may be one that ends.
    let asking_pods = world.all_pods().filter(|(_, pod)| pod.auto_restart).filter_map(owner);
    let unwatched = asking_pods.filter(|owner| !labelled.contains_key(owner));
    let unwatched: BTreeMap<_, _> = unwatched.map(|owner| (owner, None)).collect();
    let asking = labelled.into_iter().filter(|(_, progress)| progress.is_some()).chain(unwatched);
    let all: Candidates = asking
        .map(|(owner, progress)| {
            let is_stale = stale.contains(&owner);
            (owner, Candidate { is_stale, progress })
        })
        .collect();
    if all.values().any(|candidate| candidate.is_stale) { all } else { Candidates::new() }
}

fn owner((place, pod): (&Place, &PodSeen)) -> Option<(WorkloadKind, Place)> {
    let Owner { kind, name } = pod.owner.clone()?;
    Some((kind, Place { namespace: place.namespace.clone(), name }))
}

/// The workload that is to be restarted now, while no other is on its way. One of which nothing is known is not.
pub(crate) fn due(candidates: &Candidates, now: Timestamp) -> Option<&(WorkloadKind, Place)> {
    let known = candidates.iter().filter_map(|(owner, candidate)| {
        let progress = candidate.progress?;
        let is_recent = |time: Timestamp| time.checked_add(PATIENCE).is_ok_and(|end| end > now);
        Some((owner, candidate.is_stale, progress, progress.restarted.is_some_and(is_recent)))
    });
    let known: Vec<_> = known.collect();
    if known.iter().any(|(_, _, progress, is_recent)| *is_recent && progress.rollout < Rollout::Settled) {
        return None;
    }
    // What is still rolling replaces its pods anyway.
    let due = known.into_iter().filter(|(_, is_stale, progress, is_recent)| {
        *is_stale && !is_recent && progress.rollout > Rollout::Rolling
    });
    // Whom a restart did not help lets the others go first.
    due.min_by_key(|(_, _, progress, _)| progress.restarted).map(|(owner, ..)| owner)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::Settings;

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    struct Named<'a> {
        name: &'a str,
        asks: &'a str,
        restarted: Option<&'a str>,
        settled: bool,
    }

    fn workload(world: &mut World, named: &Named<'_>) {
        let mut template = json!({"ws.operator/auto-restart": named.asks});
        if let Some(time) = named.restarted {
            template[RESTARTED] = time.into();
        }
        let object: StatefulSet = serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": named.name, "generation": 2},
            "spec": {"selector": {}, "template": {"metadata": {"annotations": template}}},
            "status": {
                "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
                "availableReplicas": i32::from(named.settled),
            },
        }))
        .unwrap();
        world.workloads[2].apply(Event::Apply(object), |object| Asks::of(&object));
    }

    fn pod(world: &mut World, of: &str, sidecar: Option<&str>, more: &serde_json::Value) {
        let name = format!("{of}-0");
        let mut labels = json!({"ws.operator/enable": "true"});
        if sidecar.is_some() {
            labels["ws.operator/ring"] = "default".into();
        }
        let annotations = more["annotations"].clone();
        let deleted = more["ends"].as_bool().map(|_| "2026-11-23T12:00:00Z");
        let sidecars = sidecar.map(|image| json!([{"name": "ws-proxy", "image": image}]));
        let mut spec = json!({"containers": [{"name": "app"}], "initContainers": sidecars});
        for (key, value) in more["spec"].as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let object: Pod = serde_json::from_value(json!({
            "metadata": {
                "namespace": "chat", "name": name, "uid": name, "labels": labels, "annotations": annotations,
                "deletionTimestamp": deleted,
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "StatefulSet", "name": of, "uid": "1", "controller": true},
                ],
            },
            "spec": spec,
        }))
        .unwrap();
        let table = if sidecar.is_some() { &mut world.pods } else { &mut world.bare[0] };
        table.apply(Event::Apply(object), |pod| PodSeen::of(&pod, &Settings::default()));
    }

    fn restart(world: &World, now: Timestamp) -> Option<(WorkloadKind, Place)> {
        due(&candidates(world), now).cloned()
    }

    fn plain(name: &str) -> Named<'_> {
        Named { name, asks: "true", restarted: None, settled: true }
    }

    #[test]
    fn pods_are_counted_and_told_of() {
        let mut world = World::default();
        pod(&mut world, "a", None, &json!({}));
        pod(&mut world, "b", None, &json!({"spec": {"hostNetwork": true}}));
        let by_hand = json!({"spec": {"containers": [{"name": "ws-proxy", "image": "ws-proxy:old"}]}});
        pod(&mut world, "by-hand", None, &by_hand);
        pod(&mut world, "c", Some("ws-proxy:old"), &json!({}));
        pod(&mut world, "d", Some(&Settings::default().proxy_image), &json!({}));
        assert_eq!(count(world.pods_of(None)), (1, 1));
        let told: Vec<_> = notices(&world)
            .into_iter()
            .map(|(key, notice)| (key, notice.kind, notice.reason, notice.warns))
            .collect();
        assert_eq!(
            told,
            [
                ("StatefulSet chat c".into(), "StatefulSet", "Outdated", false),
                ("a-0".into(), "Pod", "Uninjected", true),
                ("b-0".into(), "Pod", "HostNetwork", false),
                ("by-hand-0".into(), "Pod", "AlreadyInjected", false),
            ]
        );
    }

    #[test]
    fn only_who_asks_is_restarted_and_one_at_a_time() {
        let mut world = World::default();
        workload(&mut world, &Named { asks: "false", ..plain("a") });
        for name in ["b", "c"] {
            workload(&mut world, &plain(name));
        }
        for name in ["a", "b", "c"] {
            pod(&mut world, name, None, &json!({}));
        }
        let name = |due: Option<(WorkloadKind, Place)>| due.map(|(_, place)| place.name);
        assert_eq!(name(restart(&world, now())).as_deref(), Some("b"));
        let begun = Some("2026-11-23T11:59:30Z");
        workload(&mut world, &Named { restarted: begun, settled: false, ..plain("b") });
        assert_eq!(restart(&world, now()), None, "b is on its way");
        workload(&mut world, &Named { restarted: begun, ..plain("b") });
        assert_eq!(
            name(restart(&world, now())).as_deref(),
            Some("c"),
            "b did not help, and is not done again at once"
        );
        let long_ago = Some("2026-11-23T11:40:00Z");
        workload(&mut world, &Named { restarted: long_ago, settled: false, ..plain("b") });
        assert_eq!(
            name(restart(&world, now())).as_deref(),
            Some("c"),
            "b hangs, and c does not wait for ever"
        );
    }

    #[test]
    fn pods_that_cannot_live_without_a_sidecar_are_restarted_too() {
        let mut world = World::default();
        workload(&mut world, &Named { settled: false, ..plain("a") });
        pod(&mut world, "a", None, &json!({}));
        assert!(restart(&world, now()).is_some());
    }

    #[test]
    fn pods_that_are_current_skipped_or_ending_are_no_reason() {
        let mut world = World::default();
        workload(&mut world, &plain("a"));
        pod(&mut world, "a", Some(&Settings::default().proxy_image), &json!({}));
        assert_eq!(restart(&world, now()), None);
        let by_hand = json!({"spec": {"containers": [{"name": "ws-proxy", "image": "ws-proxy:old"}]}});
        for skipped in [json!({"spec": {"hostNetwork": true}}), by_hand] {
            let mut world = World::default();
            workload(&mut world, &plain("a"));
            pod(&mut world, "a", None, &skipped);
            assert_eq!(restart(&world, now()), None, "{skipped}");
        }
    }

    #[test]
    fn pods_ask_for_workloads_that_are_not_labelled() {
        let asking = json!({"annotations": {"ws.operator/auto-restart": "true"}});
        let mut world = World::default();
        workload(&mut world, &Named { asks: "false", ..plain("a") });
        pod(&mut world, "a", None, &asking);
        pod(&mut world, "b", Some(&Settings::default().proxy_image), &asking);
        assert_eq!(candidates(&world), Candidates::new(), "the workload says no, and b's pod is current");
        pod(&mut world, "c", None, &asking);
        let mut asked = candidates(&world);
        let told = asked.iter().map(|((_, place), candidate)| (place.name.as_str(), candidate.is_stale));
        assert_eq!(told.collect::<Vec<_>>(), [("b", false), ("c", true)], "b may be on its way");
        assert_eq!(due(&asked, now()), None, "nothing is known of c");
        for candidate in asked.values_mut() {
            candidate.progress = Some(Progress { rollout: Rollout::Settled, restarted: None });
        }
        assert_eq!(due(&asked, now()).map(|(_, place)| place.name.as_str()), Some("c"));
        let begun = "2026-11-23T11:59:30Z".parse().ok();
        let b = asked.values_mut().next().unwrap();
        b.progress = Some(Progress { rollout: Rollout::Rolling, restarted: begun });
        assert_eq!(due(&asked, now()), None, "one at a time");
        pod(
            &mut world,
            "b",
            Some("ws-proxy:old"),
            &json!({"annotations": asking["annotations"], "ends": true}),
        );
        assert_eq!(candidates(&world).len(), 2, "b's next pod may be yet to come");
    }
}
