//! The members of every ring, as one stream each, from one watch of EndpointSlices.
//!
//! Served by every replica of the operator; sidecars and balancers need no access to the Kubernetes API.

mod follow;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use http_body_util::BodyExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use ws_routing::{
    Members, Node,
    admin::{self, Answer, Problem, Routes},
    membership::{self, FollowOptions, NextUpdate, Source, Update, View, endpoint_nodes, members_stream},
    node::{NodeState, Weight},
};

pub(crate) use follow::follow;

use crate::table::{Place, Table};

/// The Service of an EndpointSlice.
const SERVICE: &str = "kubernetes.io/service-name";

/// What is known of all rings, and who follows which of them. Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub struct Rings {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    slices: Table<EndpointSlice>,
    weights: HashMap<IpAddr, Weight>,
    /// Rings that somebody follows, or did.
    followed: BTreeMap<Place, Weak<Followed>>,
}

impl Rings {
    /// Takes an event of the watch of slices; says which Services' members are concerned.
    pub fn apply(&self, event: Event<EndpointSlice>) -> BTreeSet<Place> {
        let mut state = self.lock();
        // A slice that is deleted, or changes hands, is still in the table here.
        let before = state.services(&event);
        let first = !state.slices.is_whole();
        let changed = state.slices.apply(event, |slice| slice);
        let after = changed.iter().filter_map(|place| state.service(place));
        let mut services: BTreeSet<Place> = before.into_iter().chain(after).collect();
        if first && state.slices.is_whole() {
            // Whoever asked before hears now that there is nobody.
            services.extend(state.followed.keys().cloned());
        }
        for service in &services {
            state.tell(service);
        }
        services
    }

    /// Sets the weight of the node at that address; `None`: the default.
    pub fn weigh(&self, ip: IpAddr, weight: Option<Weight>) {
        let mut state = self.lock();
        let had = match weight {
            Some(weight) => state.weights.insert(ip, weight),
            None => state.weights.remove(&ip),
        };
        if had != weight {
            let at = |slice: &EndpointSlice| slice.endpoints.iter().any(|e| address(e) == Some(ip));
            let services: BTreeSet<Place> = state
                .slices
                .iter()
                .filter(|(_, slice)| at(slice))
                .filter_map(|(place, slice)| service_of(place, slice))
                .collect();
            services.iter().for_each(|service| state.tell(service));
        }
    }

    /// Whether everything has been listed once.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lock().slices.is_whole()
    }

    /// The members of a Service as its slices name them now.
    #[must_use]
    pub fn members(&self, service: &Place) -> Members {
        Members::new(self.lock().nodes(service), 0)
    }

    /// How many members all rings have: ready ones, and such that are leaving.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let state = self.lock();
        let services: BTreeSet<Place> =
            state.slices.iter().filter_map(|(place, slice)| service_of(place, slice)).collect();
        let nodes: Vec<Node> = services.iter().flat_map(|service| state.nodes(service)).collect();
        let ready = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
        (ready, nodes.len() - ready)
    }

    /// The view of a ring, be it known or not: one that nobody has heard of is empty. Nothing is answered before the
    /// slices were listed once. Must be called within a tokio runtime.
    #[must_use]
    pub fn follow(&self, service: Place) -> Arc<Followed> {
        let mut state = self.lock();
        if let Some(followed) = state.followed.get(&service).and_then(Weak::upgrade) {
            return followed;
        }
        state.followed.retain(|_, followed| followed.strong_count() > 0);
        let nodes = state.slices.is_whole().then(|| state.nodes(&service));
        let followed = Arc::new(Followed::new(nodes));
        state.followed.insert(service, Arc::downgrade(&followed));
        followed
    }

    /// `/v1/members/NAMESPACE/SERVICE`: the members stream of that ring.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let rings = self.clone();
        Routes::new().get("/v1/members/{}/{}", move |call| {
            let answer = rings.stream(call.tail());
            async move { answer }
        })
    }

    fn stream(&self, tail: &str) -> Result<Answer, Problem> {
        let name = |text: &str| (1..=253).contains(&text.len()) && text.bytes().all(is_name);
        let ring = tail.split_once('/').filter(|(namespace, service)| name(namespace) && name(service));
        let Some((namespace, service)) = ring else {
            return Err(Problem::new(
                400,
                "bad-ring",
                "expected /v1/members/NAMESPACE/SERVICE with names that exist",
            ));
        };
        let followed = self.follow(Place { namespace: namespace.into(), name: service.into() });
        let body = members_stream(followed.view.clone()).map_frame(move |frame| {
            // Followed for as long as somebody reads it.
            let _ = &followed;
            frame
        });
        Ok(admin::stream(body.boxed_unsync()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The Services whose members an event may change, by what is known before it.
    fn services(&self, event: &Event<EndpointSlice>) -> BTreeSet<Place> {
        match event {
            Event::Apply(slice) | Event::Delete(slice) => {
                self.service(&Place::of(slice)).into_iter().collect()
            }
            Event::InitDone => {
                self.slices.iter().filter_map(|(place, slice)| service_of(place, slice)).collect()
            }
            Event::Init | Event::InitApply(_) => BTreeSet::new(),
        }
    }

    fn service(&self, slice: &Place) -> Option<Place> {
        service_of(slice, self.slices.get(slice)?)
    }

    fn nodes(&self, service: &Place) -> Vec<Node> {
        let slices = self.slices.within(&service.namespace).filter_map(|(place, slice)| {
            (service_of(place, slice).as_ref() == Some(service)).then_some(slice)
        });
        let mut nodes = endpoint_nodes(slices, None);
        for node in &mut nodes {
            let ip = node.id.addr().map(|addr| addr.ip());
            if let Some(weight) = ip.and_then(|ip| self.weights.get(&ip)) {
                node.weight = *weight;
            }
        }
        nodes
    }

    fn tell(&self, service: &Place) {
        if self.slices.is_whole()
            && let Some(followed) = self.followed.get(service).and_then(Weak::upgrade)
        {
            followed.nodes.send_replace(Some(self.nodes(service)));
        }
    }
}

/// A ring that somebody follows.
#[derive(Debug)]
pub struct Followed {
    nodes: watch::Sender<Option<Vec<Node>>>,
    view: View,
    _follow: AbortOnDropHandle<()>,
}

impl Followed {
    fn new(nodes: Option<Vec<Node>>) -> Self {
        let (nodes, told) = watch::channel(nodes);
        let (writer, view) = membership::channel(0);
        let follow = membership::follow(Told { nodes: told, begun: false }, writer, FollowOptions::default());
        Self { nodes, view, _follow: AbortOnDropHandle::new(tokio::spawn(follow)) }
    }

    /// Its members, as they change.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }
}

/// What [`Rings`] knows of one of them, as a source.
#[derive(Debug)]
struct Told {
    nodes: watch::Receiver<Option<Vec<Node>>>,
    begun: bool,
}

impl Source for Told {
    fn next(&mut self) -> NextUpdate<'_> {
        Box::pin(async {
            loop {
                if self.begun {
                    self.nodes.changed().await.ok()?;
                }
                self.begun = true;
                let nodes = self.nodes.borrow_and_update().clone();
                if let Some(nodes) = nodes {
                    return Some(Ok(Update::Reset(nodes)));
                }
            }
        })
    }
}

fn service_of(place: &Place, slice: &EndpointSlice) -> Option<Place> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE)?.clone();
    Some(Place { namespace: place.namespace.clone(), name })
}

fn address(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, service: &str, ips: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": "chat", "name": name, "labels": {SERVICE: service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 7400, "protocol": "TCP"}],
        }))
        .unwrap()
    }

    fn ring() -> Place {
        Place { namespace: "chat".into(), name: "ring".into() }
    }

    fn ids(members: &Members) -> Vec<String> {
        members.nodes().iter().map(|node| node.id.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_is_followed_from_before_it_is_known() {
        let rings = Rings::default();
        let followed = rings.follow(ring());
        let mut view = followed.view().clone();
        let nothing = tokio::time::timeout(std::time::Duration::from_secs(9), view.first()).await;
        assert!(nothing.is_err(), "nothing is said before the list is whole");
        rings.apply(Event::Init);
        rings.apply(Event::InitApply(slice("x", "other", &["10.0.0.9"])));
        rings.apply(Event::InitDone);
        assert!(view.changed().await.unwrap().is_empty());
        rings.apply(Event::Apply(slice("a", "ring", &["10.0.0.1"])));
        assert_eq!(ids(&view.changed().await.unwrap()), ["10.0.0.1:7400"]);
        rings.apply(Event::Apply(slice("b", "ring", &["10.0.0.2", "10.0.0.1"])));
        assert_eq!(ids(&view.changed().await.unwrap()), ["10.0.0.1:7400", "10.0.0.2:7400"]);
        rings.apply(Event::Delete(slice("a", "ring", &["10.0.0.1"])));
        assert_eq!(ids(&rings.members(&ring())), ["10.0.0.1:7400", "10.0.0.2:7400"], "the other has it");
        rings.apply(Event::Apply(slice("b", "ring", &["10.0.0.2"])));
        assert_eq!(ids(&view.changed().await.unwrap()), ["10.0.0.2:7400"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_not_whole_is_not_shown_and_what_it_lacks_goes() {
        let rings = Rings::default();
        rings.apply(Event::Init);
        rings.apply(Event::InitApply(slice("a", "ring", &["10.0.0.1"])));
        rings.apply(Event::InitApply(slice("b", "ring", &["10.0.0.2"])));
        rings.apply(Event::InitDone);
        let followed = rings.follow(ring());
        let mut view = followed.view().clone();
        assert_eq!(view.changed().await.unwrap().nodes().len(), 2);
        rings.apply(Event::Init);
        rings.apply(Event::InitApply(slice("b", "ring", &["10.0.0.2"])));
        assert_eq!(rings.members(&ring()).nodes().len(), 2);
        rings.apply(Event::InitDone);
        assert_eq!(ids(&view.changed().await.unwrap()), ["10.0.0.2:7400"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pods_weight_is_its_nodes() {
        let rings = Rings::default();
        rings.apply(Event::Init);
        rings.apply(Event::InitApply(slice("a", "ring", &["10.0.0.1", "10.0.0.2"])));
        rings.apply(Event::InitDone);
        let followed = rings.follow(ring());
        let mut view = followed.view().clone();
        view.changed().await.unwrap();
        rings.weigh("10.0.0.2".parse().unwrap(), Some(Weight::new(300).unwrap()));
        let weights: Vec<_> = view.changed().await.unwrap().nodes().iter().map(|n| n.weight.get()).collect();
        assert_eq!(weights, [100, 300]);
        rings.weigh("10.0.0.2".parse().unwrap(), None);
        assert!(view.changed().await.unwrap().nodes().iter().all(|node| node.weight.get() == 100));
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_serves_all_who_follow_a_ring_and_ends_with_them() {
        let rings = Rings::default();
        let (one, two) = (rings.follow(ring()), rings.follow(ring()));
        assert!(Arc::ptr_eq(&one, &two));
        drop((one, two));
        let _other = rings.follow(Place { namespace: "chat".into(), name: "other".into() });
        assert_eq!(rings.lock().followed.len(), 1, "what nobody follows is forgotten");
    }

    #[tokio::test]
    async fn only_names_are_followed() {
        let rings = Rings::default();
        for bad in ["", "a", "/b", "a/", "A/b", "a/b_c", "a/%20"] {
            assert!(rings.stream(bad).is_err(), "{bad}");
        }
        assert!(rings.stream("chat/ws-proxy-headless").is_ok());
    }
}
