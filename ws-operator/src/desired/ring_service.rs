//! The headless Service whose EndpointSlices are the ring.

use serde_json::json;

use super::object::{Kind, Object, Role};
use crate::{Ring, names};

/// Selects by the label that injection stamps, so that a pod without a sidecar is never a node.
pub(super) fn service(ring: &Ring) -> Object {
    let spec = json!({
        "clusterIP": "None",
        "selector": Role::Ring.selector(ring),
        "publishNotReadyAddresses": false,
        "ports": [{
            "name": "ws",
            "port": names::SIDECAR_PORT,
            "targetPort": names::SIDECAR_PORT,
            "protocol": "TCP",
            "appProtocol": "kubernetes.io/ws",
        }],
    });
    Object::new(Kind::Service, ring, ring.group.headless_service(), Role::Ring, &spec)
}
