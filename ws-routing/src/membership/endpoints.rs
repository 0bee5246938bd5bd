//! EndpointSlices as nodes: pure, for everybody who watches them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::node::{Node, NodeState};

/// The nodes that the slices of one Service name, sorted by address.
///
/// Ready endpoints are ready nodes; those that terminate but still serve are draining; all others are absent. The
/// order of the slices, and an endpoint that stands in two of them while it moves from one to the other, make no
/// difference. A pod with addresses of both families is one node, by its IPv4 address.
///
/// `port` names the port that nodes listen on; without it, a slice with a single TCP port is read, and others are not.
pub fn endpoint_nodes<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    port: Option<&str>,
) -> Vec<Node> {
    let mut pods: BTreeMap<PodName, Pod> = BTreeMap::new();
    for slice in slices {
        let Some(port) = port_of(slice, port) else { continue };
        for endpoint in &slice.endpoints {
            // Further addresses are allowed, and mean nothing.
            let ip = endpoint.addresses.first().and_then(|ip| ip.parse::<IpAddr>().ok());
            let Some(at) = ip.map(|ip| SocketAddr::new(ip, port)) else { continue };
            pods.entry(PodName::of(endpoint, at)).or_default().see(endpoint, at);
        }
    }
    let mut nodes: BTreeMap<SocketAddr, Node> = BTreeMap::new();
    for (at, node) in pods.values().filter_map(Pod::node) {
        // A new pod may have the address of one that still terminates in another slice: ready sorts first.
        let known = nodes.entry(at).or_insert_with(|| node.clone());
        if (node.state, &node.zone) < (known.state, &known.zone) {
            *known = node;
        }
    }
    nodes.into_values().collect()
}

/// The port that the nodes of this slice listen on.
pub(super) fn port_of(slice: &EndpointSlice, name: Option<&str>) -> Option<u16> {
    let mut ports =
        tcp_ports(slice).filter(|port| name.is_none_or(|name| port.name.as_deref() == Some(name)));
    let port = ports.next()?;
    // A slice that names one port twice is no longer to be understood.
    let single = ports.next().is_none();
    port.port.filter(|_| single).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

/// The ports that a connection can be made to.
pub(super) fn tcp_ports(slice: &EndpointSlice) -> impl Iterator<Item = &EndpointPort> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
}

/// Who an endpoint is, in whatever slice and address family it stands.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum PodName {
    Uid(String),
    Name(String, String),
    /// The endpoint of a slice that somebody wrote by hand.
    Address(SocketAddr),
}

impl PodName {
    fn of(endpoint: &Endpoint, at: SocketAddr) -> Self {
        let Some(target) = &endpoint.target_ref else { return Self::Address(at) };
        match (&target.uid, &target.namespace, &target.name) {
            (Some(uid), ..) => Self::Uid(uid.clone()),
            (None, Some(namespace), Some(name)) => Self::Name(namespace.clone(), name.clone()),
            _ => Self::Address(at),
        }
    }
}

/// What the slices tell of one pod.
#[derive(Default)]
struct Pod {
    at: Option<SocketAddr>,
    ready: bool,
    terminates: bool,
    /// Whether one of the slices that know of its end says that it still serves.
    drains: bool,
    zone: Option<String>,
}

impl Pod {
    fn see(&mut self, endpoint: &Endpoint, at: SocketAddr) {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // What is not told is as the API documents it: ready, serving as it is ready, not terminating.
        let ready = conditions.ready.unwrap_or(true);
        let terminates = conditions.terminating.unwrap_or(false);
        self.ready |= ready;
        self.terminates |= terminates;
        self.drains |= terminates && conditions.serving.unwrap_or(ready);
        // IPv4 sorts before IPv6.
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
        self.zone = self.zone.take().into_iter().chain(endpoint.zone.clone()).min();
    }

    /// A pod does not come back from terminating: a slice that says otherwise is late.
    fn node(&self) -> Option<(SocketAddr, Node)> {
        let state = match self {
            Self { terminates: true, drains: true, .. } => NodeState::Draining,
            Self { terminates: false, ready: true, .. } => NodeState::Ready,
            _ => return None,
        };
        let at = self.at?;
        Some((at, Node { state, zone: self.zone.as_deref().map(Into::into), ..Node::new(at.into()) }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::subsequence};
    use serde_json::{Value, json};

    use super::*;

    fn slice(ports: &Value, endpoints: &[Value]) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "one-of-several"},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn endpoint(ip: &str, pod: &str, conditions: &Value) -> Value {
        json!({"addresses": [ip], "conditions": conditions, "zone": "a", "targetRef": {"kind": "Pod", "uid": pod}})
    }

    fn shown(slices: &[EndpointSlice], port: Option<&str>) -> String {
        let nodes = endpoint_nodes(slices, port);
        nodes.iter().map(|n| format!("{} {}", n.id, n.state)).collect::<Vec<_>>().join(", ")
    }

    fn conditions(ready: bool, serving: bool, terminating: bool) -> Value {
        json!({"ready": ready, "serving": serving, "terminating": terminating})
    }

    fn one_port() -> Value {
        json!([{"name": "ws", "port": 7400, "protocol": "TCP"}])
    }

    #[test]
    fn conditions_are_read_as_the_api_documents_them() {
        for (conditions, state) in [
            (json!({}), "ready"),
            (json!({"ready": true}), "ready"),
            (json!({"ready": false}), ""),
            (conditions(true, true, false), "ready"),
            (conditions(false, true, false), ""),
            (conditions(false, true, true), "draining"),
            (conditions(false, false, true), ""),
            // As with publishNotReadyAddresses.
            (conditions(true, true, true), "draining"),
        ] {
            let shown = shown(&[slice(&one_port(), &[endpoint("10.0.0.1", "p", &conditions)])], None);
            let expected = if state.is_empty() { String::new() } else { format!("10.0.0.1:7400 {state}") };
            assert_eq!(shown, expected, "{conditions}");
        }
    }

    #[test]
    fn ports_are_found_by_name_or_because_there_is_one() {
        let two = json!([{"name": "ws", "port": 1}, {"name": "http", "port": 2}, {"name": "d", "port": 3, "protocol": "UDP"}]);
        let two = [slice(&two, &[endpoint("10.0.0.1", "p", &json!({}))])];
        assert_eq!(shown(&two, Some("http")), "10.0.0.1:2 ready");
        assert_eq!(shown(&two, Some("d")), "");
        assert_eq!(shown(&two, None), "");
        let none = [slice(&json!(null), &[endpoint("10.0.0.1", "p", &json!({}))])];
        assert_eq!(shown(&none, None), "");
    }

    #[test]
    fn a_pod_of_two_families_is_one_node_and_an_address_goes_to_the_new_pod() {
        let v6 = slice(&one_port(), &[endpoint("fd00::1", "p", &json!({}))]);
        let v4 = slice(&one_port(), &[endpoint("10.0.0.1", "p", &json!({}))]);
        assert_eq!(shown(&[v6.clone(), v4], None), "10.0.0.1:7400 ready");
        assert_eq!(shown(&[v6], None), "[fd00::1]:7400 ready");

        let old = slice(&one_port(), &[endpoint("10.0.0.1", "p", &conditions(false, true, true))]);
        let late = slice(&one_port(), &[endpoint("10.0.0.1", "p", &json!({}))]);
        let new = slice(&one_port(), &[endpoint("10.0.0.1", "q", &json!({}))]);
        assert_eq!(shown(&[old.clone(), late], None), "10.0.0.1:7400 draining");
        assert_eq!(shown(&[new, old], None), "10.0.0.1:7400 ready");
    }

    fn any_endpoint() -> impl Strategy<Value = Value> {
        let ip = prop_oneof![
            (1..5_u8).prop_map(|n| format!("10.0.0.{n}")),
            (1..5_u8).prop_map(|n| format!("fd00::{n}"))
        ];
        let condition = || prop_oneof![Just(json!(true)), Just(json!(false)), Just(json!(null))];
        let pod = prop::option::of("[p-t]");
        (ip, pod, condition(), condition(), condition()).prop_map(|(ip, pod, ready, serving, terminating)| {
            let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
            let target = pod.map(|pod| json!({"kind": "Pod", "uid": pod}));
            json!({"addresses": [ip], "conditions": conditions, "targetRef": target})
        })
    }

    proptest! {
        #[test]
        fn neither_order_nor_cut_nor_repetition_of_slices_matters(
            (endpoints, again) in prop::collection::vec(any_endpoint(), 0..12)
                .prop_flat_map(|all| (Just(all.clone()), subsequence(all.clone(), 0..=all.len()))),
            order in any::<prop::sample::Index>(),
            cut in 1_usize..6,
        ) {
            let whole = slice(&one_port(), &endpoints);
            let mut several: Vec<Value> = endpoints.into_iter().chain(again).collect();
            if !several.is_empty() {
                let by = order.index(several.len());
                several.rotate_left(by);
                several.reverse();
            }
            let several: Vec<_> = several.chunks(cut).map(|some| slice(&one_port(), some)).collect();
            let nodes = endpoint_nodes([&whole], None);
            prop_assert_eq!(&endpoint_nodes(&several, None), &nodes);
            prop_assert!(nodes.windows(2).all(|pair| pair[0].id.addr() < pair[1].id.addr()));
        }
    }
}
