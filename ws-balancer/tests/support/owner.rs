//! The ownership function, version 1, written a second time from its description and held by the recorded vectors.
//! It shares nothing with the library but the published hash, so that a routing mistake cannot hide in both.

use twox_hash::XxHash3_64;

/// A member as the function sees it.
pub struct Candidate {
    pub id: String,
    pub weight: u16,
}

impl Candidate {
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), weight: 100 }
    }
}

/// All of `nodes`, best first.
pub fn ranked(nodes: &[Candidate], key: &str, ring_seed: u64) -> Vec<String> {
    let equal = nodes.windows(2).all(|pair| pair[0].weight == pair[1].weight);
    let mut order: Vec<(f64, u64, &str)> = nodes
        .iter()
        .map(|node| {
            let score = score(&node.id, key, ring_seed);
            let cost = if equal { 0.0 } else { cost(score, node.weight) };
            (cost, u64::MAX - score, node.id.as_str())
        })
        .collect();
    order.sort_by(|a, b| {
        a.0.total_cmp(&b.0).then(if equal { a.1.cmp(&b.1) } else { 0.cmp(&0) }).then(a.2.cmp(b.2))
    });
    order.into_iter().map(|(_, _, id)| id.to_owned()).collect()
}

/// The best of `ids`, all of equal weight, unseeded.
pub fn owner(ids: &[String], key: &str) -> String {
    let nodes: Vec<_> = ids.iter().map(Candidate::new).collect();
    ranked(&nodes, key, 0).swap_remove(0)
}

fn score(node: &str, key: &str, ring_seed: u64) -> u64 {
    let node = XxHash3_64::oneshot_with_seed(0, node.as_bytes());
    let key = XxHash3_64::oneshot_with_seed(ring_seed, key.as_bytes());
    fmix64(node ^ key) >> 16
}

fn cost(score: u64, weight: u16) -> f64 {
    #[allow(clippy::cast_precision_loss)] // 48 bits fit
    let unit = (score as f64 + 0.5) / 281_474_976_710_656.0;
    -unit.ln() / f64::from(weight)
}

fn fmix64(mut h: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        h = (h ^ (h >> 33)).wrapping_mul(factor);
    }
    h ^ (h >> 33)
}

/// Called by one test file, so that it runs once.
pub fn agrees_with_the_recorded_vectors() {
    let text = include_str!("../../../ws-routing/tests/ownership-v1.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    for set in vectors["sets"].as_array().unwrap() {
        let seed = u64::from_str_radix(set["ring_seed"].as_str().unwrap(), 16).unwrap();
        let nodes: Vec<_> = set["nodes"].as_object().unwrap().iter().map(candidate).collect();
        for (key, expected) in set["ranked"].as_object().unwrap() {
            let expected: Vec<String> = serde_json::from_value(expected.clone()).unwrap();
            assert_eq!(ranked(&nodes, key, seed)[..expected.len()], expected, "{}: {key}", set["name"]);
        }
    }
}

fn candidate((id, weight): (&String, &serde_json::Value)) -> Candidate {
    Candidate { id: id.clone(), weight: weight.as_u64().unwrap().try_into().unwrap() }
}
