//! The watches, as one stream of changes to the world.

use std::{collections::BTreeSet, fmt::Debug, hash::Hash};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{Pod, PodTemplateSpec, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{
    crd::WebSocketApp,
    members::Rings,
    names,
    table::Place,
    world::{Asks, World},
};

/// A change: what it does to the world, and in which namespaces something is different then.
pub(super) type Change = Box<dyn FnOnce(&mut World) -> BTreeSet<String> + Send>;

/// How long one watch lasts, in seconds. A connection that died without a word is noticed when it is over.
const WATCH: u32 = 45;

/// Everything that is watched.
pub(super) fn all(client: &Client, rings: &Rings) -> BoxStream<'static, Change> {
    let spellings = [names::ENABLE, names::ENABLED].map(|label| format!("{label}=true"));
    let [one, two] = &spellings;
    let ours = format!("{}={}", names::MANAGED_BY, names::OPERATOR);
    stream::select_all([
        workloads::<Deployment>(client, one, 0, |object| object.spec.as_ref().map(|spec| &spec.template)),
        workloads::<Deployment>(client, two, 1, |object| object.spec.as_ref().map(|spec| &spec.template)),
        workloads::<StatefulSet>(client, one, 2, |object| object.spec.as_ref().map(|spec| &spec.template)),
        workloads::<StatefulSet>(client, two, 3, |object| object.spec.as_ref().map(|spec| &spec.template)),
        workloads::<DaemonSet>(client, one, 4, |object| object.spec.as_ref().map(|spec| &spec.template)),
        workloads::<DaemonSet>(client, two, 5, |object| object.spec.as_ref().map(|spec| &spec.template)),
        pods(client, rings),
        slices(client, rings),
        watch::<WebSocketApp>(client, "", |world, event| world.apps.apply(event, |app| app)),
        watch::<Service>(client, &ours, |world, event| {
            world.services.apply(event, |service| service.metadata.resource_version)
        }),
    ])
    .boxed()
}

fn workloads<K>(
    client: &Client,
    labels: &str,
    table: usize,
    template: fn(&K) -> Option<&PodTemplateSpec>,
) -> BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch(client, labels, move |world, event| {
        world.workloads[table]
            .apply(event, |object: K| Asks::of(object.meta().annotations.clone(), template(&object)))
    })
}

fn pods(client: &Client, rings: &Rings) -> BoxStream<'static, Change> {
    let rings = rings.clone();
    watch::<Pod>(client, names::RING, move |world, event| {
        let (changed, gone) = world.pods(event);
        gone.into_iter().for_each(|ip| rings.weigh(ip, None));
        for pod in changed.iter().filter_map(|place| world.pods.get(place)) {
            if let Some(ip) = pod.ip {
                rings.weigh(ip, Some(pod.weight));
            }
        }
        changed
    })
}

fn slices(client: &Client, rings: &Rings) -> BoxStream<'static, Change> {
    let rings = rings.clone();
    // The members of a ring decide nothing of what its namespace has.
    watch::<EndpointSlice>(client, names::RING, move |_, event| {
        rings.apply(event);
        BTreeSet::new()
    })
}

fn watch<K>(
    client: &Client,
    labels: &str,
    take: impl Fn(&mut World, Event<K>) -> BTreeSet<Place> + Clone + Send + 'static,
) -> BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Eq + Hash,
{
    let config = Config::default().labels(labels).timeout(WATCH);
    let kind = K::kind(&()).into_owned();
    watcher(Api::<K>::all(client.clone()), config)
        .default_backoff()
        .filter_map(move |told| {
            let change: Option<Change> = match told {
                Ok(event) => {
                    let take = take.clone();
                    Some(Box::new(move |world| {
                        take(world, event).into_iter().map(|place| place.namespace).collect()
                    }))
                }
                Err(error) => {
                    tracing::warn!(kind, %error, "a watch failed, trying again: what was known stays");
                    None
                }
            };
            async move { change }
        })
        .boxed()
}
