//! The two watches that the members come from: slices, and the pods' weights.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{Client, runtime::watcher::Event};
use tokio::time::interval;
use ws_routing::node::Weight;

use super::Rings;
use crate::{
    annotations,
    metrics::Metrics,
    names,
    table::{Place, Table},
    watch::watch,
};

/// How often members are counted.
const COUNT: Duration = Duration::from_secs(5);

/// Keeps `rings` at what the cluster says, as long as it is polled.
pub(crate) async fn follow(client: Client, rings: Rings, metrics: Metrics) {
    let mut slices = watch::<EndpointSlice>(&client, names::RING, &metrics);
    let mut pods = watch::<Pod>(&client, names::RING, &metrics);
    let mut weights = Weights::default();
    let mut count = interval(COUNT);
    loop {
        tokio::select! {
            Some(event) = slices.next() => drop(rings.apply(event)),
            Some(event) = pods.next() => {
                for (ip, weight) in weights.apply(event) {
                    rings.weigh(ip, weight);
                }
            }
            _ = count.tick() => {
                let (ready, draining) = rings.count();
                metrics.members(ready, draining);
            }
        }
    }
}

/// What pods weigh, by their address.
#[derive(Debug, Default)]
struct Weights {
    pods: Table<(Option<IpAddr>, Weight)>,
}

impl Weights {
    /// Takes an event; says what weighs something else now, `None`: nothing of its own.
    fn apply(&mut self, event: Event<Pod>) -> Vec<(IpAddr, Option<Weight>)> {
        let places: BTreeSet<Place> = match &event {
            Event::Apply(pod) | Event::Delete(pod) => [Place::of(pod)].into(),
            Event::InitDone => self.pods.iter().map(|(place, _)| place.clone()).collect(),
            Event::Init | Event::InitApply(_) => BTreeSet::new(),
        };
        let had: Vec<(Place, IpAddr)> =
            places.into_iter().filter_map(|place| Some((place.clone(), self.pods.get(&place)?.0?))).collect();
        let changed = self.pods.apply(event, |pod| weight(&pod));
        let address = |place: &Place| self.pods.get(place).and_then(|pod| pod.0);
        let gone =
            had.into_iter().filter(|(place, ip)| address(place) != Some(*ip)).map(|(_, ip)| (ip, None));
        let new = changed.iter().filter_map(|place| {
            let (ip, weight) = self.pods.get(place)?;
            Some(((*ip)?, Some(*weight)))
        });
        gone.chain(new).collect()
    }
}

fn weight(pod: &Pod) -> (Option<IpAddr>, Weight) {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
    let wishes = pod.metadata.annotations.as_ref().map(|all| annotations::read(all).wishes);
    (ip.and_then(|ip| ip.parse().ok()), wishes.map(|wishes| wishes.weight).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_address_that_is_gone_weighs_nothing_of_its_own() {
        let mut weights = Weights::default();
        let pod = |ip: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "chat", "name": "a", "annotations": {"ws.operator/weight": "300"}},
                "status": {"podIP": ip},
            }))
            .unwrap()
        };
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let heavy = Some(Weight::new(300).unwrap());
        assert_eq!(weights.apply(Event::Apply(pod("10.0.0.1"))), [(one, heavy)]);
        assert_eq!(weights.apply(Event::Apply(pod("10.0.0.2"))), [(one, None), (two, heavy)]);
        assert_eq!(weights.apply(Event::Delete(pod("10.0.0.2"))), [(two, None)]);
        weights.apply(Event::Apply(pod("10.0.0.1")));
        weights.apply(Event::Init);
        assert_eq!(weights.apply(Event::InitDone), [(one, None)], "a list without it");
    }
}
