//! The recorded answers of the ownership function, version 1. They never change.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, str::FromStr};

use serde_json::Value;
use ws_routing::{Key, Members, Node, NodeId, node::Weight, rendezvous};

#[test]
fn every_recorded_answer_holds() {
    let vectors: Value = serde_json::from_str(include_str!("ownership-v1.json")).unwrap();
    for (text, expected) in vectors["hash"].as_object().unwrap() {
        assert_eq!(
            format!("{:016x}", rendezvous::hash(text.as_bytes(), 0)),
            expected.as_str().unwrap(),
            "{text}"
        );
    }
    for entry in vectors["score"].as_array().unwrap() {
        let [node, key] = ["node", "key"].map(|n| rendezvous::hash(entry[n].as_str().unwrap().as_bytes(), 0));
        assert_eq!(
            format!("{:012x}", rendezvous::score(node, key)),
            entry["score"].as_str().unwrap(),
            "{entry}"
        );
    }
    for set in vectors["sets"].as_array().unwrap() {
        check_set(set);
    }
}

fn check_set(set: &Value) {
    let name = set["name"].as_str().unwrap();
    let seed = u64::from_str_radix(set["ring_seed"].as_str().unwrap(), 16).unwrap();
    let weights: BTreeMap<String, u16> = serde_json::from_value(set["nodes"].clone()).unwrap();
    let members = Members::new(
        weights.iter().map(|(id, weight)| Node {
            weight: Weight::new(*weight).unwrap(),
            ..Node::new(NodeId::from_str(id).unwrap())
        }),
        seed,
    );
    assert_eq!(members.fingerprint().to_string(), set["fingerprint"].as_str().unwrap(), "{name}");
    for (key, expected) in set["ranked"].as_object().unwrap() {
        let expected: Vec<&str> =
            expected.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let key = Key::new(key).unwrap();
        let ranked: Vec<&str> = members.ranked(&key, usize::MAX).iter().map(|n| n.id.as_str()).collect();
        assert_eq!(ranked[..expected.len()], expected, "{name}: {key}");
        assert_eq!(members.owner(&key).unwrap().id.as_str(), expected[0], "{name}: {key}");
    }
}
