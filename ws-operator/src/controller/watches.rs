//! The watches, as one stream of changes to the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use futures_util::{
    StreamExt, future,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{Pod, Service},
};
use kube::{Client, Resource, runtime::watcher::Event};
use serde::de::DeserializeOwned;

use crate::{
    Settings,
    crd::WebSocketApp,
    metrics::Metrics,
    names,
    table::{Place, Table},
    watch::watch,
    world::{Asks, BalancerPod, PodSeen, Rolled, Running, World},
};

/// A change: what it does to the world.
pub(super) type Change = Box<dyn FnOnce(&mut World) -> Changed + Send>;

/// In which namespaces something is different.
#[derive(Debug)]
pub(super) enum Changed {
    /// Something that may ask for something else.
    Asked(BTreeSet<String>),
    /// Something that was asked for: it may have to be put right.
    Made(BTreeSet<String>),
}

/// Where the watches come from.
#[derive(Clone, Copy)]
pub(super) struct Watches<'a> {
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) metrics: &'a Metrics,
}

impl Watches<'_> {
    /// Everything that is watched.
    pub(super) fn all(self) -> BoxStream<'static, Change> {
        let [one, two] = [names::ENABLE, names::ENABLED].map(|label| format!("{label}=true"));
        let bare = |label: &str| format!("{label},!{}", names::RING);
        let ours = format!("{}={}", names::MANAGED_BY, names::OPERATOR);
        let balancers = format!("{ours},{}", names::BALANCER_OF);
        stream::select_all([
            self.workloads::<Deployment>(&one, 0),
            self.workloads::<Deployment>(&two, 1),
            self.workloads::<StatefulSet>(&one, 2),
            self.workloads::<StatefulSet>(&two, 3),
            self.workloads::<DaemonSet>(&one, 4),
            self.workloads::<DaemonSet>(&two, 5),
            self.pods(names::RING, |world| &mut world.pods),
            self.pods(&bare(&one), |world| &mut world.bare[0]),
            self.pods(&bare(&two), |world| &mut world.bare[1]),
            self.watch::<WebSocketApp>("", Changed::Asked, apps),
            self.watch::<Service>(&ours, Changed::Made, |world, event| {
                world.services.apply(event, |service| service.metadata.resource_version)
            }),
            self.watch::<Deployment>(&balancers, Changed::Made, |world, event| {
                world.balancers.apply(event, |deployment| Running::of(&deployment))
            }),
            self.watch::<Pod>(&balancers, Changed::Asked, |world, event| {
                world.balancer_pods.apply(event, |pod| BalancerPod::of(&pod))
            }),
        ])
        .boxed()
    }

    fn workloads<K>(self, labels: &str, table: usize) -> BoxStream<'static, Change>
    where
        K: Rolled + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.watch(labels, Changed::Asked, move |world, event| {
            world.workloads[table].apply(event, |object: K| Asks::of(&object))
        })
    }

    fn pods(self, labels: &str, table: fn(&mut World) -> &mut Table<PodSeen>) -> BoxStream<'static, Change> {
        let settings = self.settings.clone();
        self.watch::<Pod>(labels, Changed::Asked, move |world, event| {
            table(world).apply(event, |pod| PodSeen::of(&pod, &settings))
        })
    }

    fn watch<K>(
        self,
        labels: &str,
        changed: fn(BTreeSet<String>) -> Changed,
        take: impl Fn(&mut World, Event<K>) -> BTreeSet<Place> + Clone + Send + 'static,
    ) -> BoxStream<'static, Change>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        // The webhooks are not asked there either.
        let settings = self.settings.clone();
        watch::<K>(self.client, labels, self.metrics)
            .filter(move |event| future::ready(!is_left_alone(event, &settings)))
            .map(move |event| {
                let take = take.clone();
                let change: Change = Box::new(move |world| {
                    changed(take(world, event).into_iter().map(|place| place.namespace).collect())
                });
                change
            })
            .boxed()
    }
}

fn is_left_alone<K: Resource>(event: &Event<K>, settings: &Settings) -> bool {
    let (Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)) = event else {
        return false;
    };
    object.meta().namespace.as_ref().is_some_and(|namespace| settings.leaves_alone(namespace))
}

/// Statuses are written here: they are no change.
fn apps(world: &mut World, event: Event<WebSocketApp>) -> BTreeSet<Place> {
    let generation = |app: &WebSocketApp| app.metadata.generation;
    let had: BTreeMap<Place, _> =
        world.apps.iter().map(|(place, app)| (place.clone(), generation(app))).collect();
    let mut changed = world.apps.apply(event, |app| app);
    changed.retain(|place| had.get(place).copied() != world.apps.get(place).map(generation));
    changed
}
