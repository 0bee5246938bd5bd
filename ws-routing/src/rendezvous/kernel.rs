//! The inner loops, compiled once for each vector width and chosen at run time.
//!
//! A loop carries score and position in one number, `score << 16 | (0xffff - position)`, whose maximum is the owner with
//! its tie-break. So there is nothing to select by but a maximum, which the compiler vectorises by itself.

use std::hint::black_box;

use multiversion::multiversion;

use super::score::mix;

/// The most nodes that one call may look at. One less than 16 bits could tell apart, so that 0 is nobody's rank.
pub(super) const BLOCK: usize = 0xffff;

/// `score << 16 | (0xffff - position)`: the highest is the best, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packed(pub(super) u64);

impl Packed {
    pub(super) const NONE: Self = Self(0);

    #[inline(always)]
    pub(super) const fn new(mixed: u64, at: usize) -> Self {
        Self((mixed & !0xffff) | (0xffff ^ at as u64))
    }

    pub(super) const fn score(self) -> u64 {
        self.0 >> 16
    }

    pub(super) const fn at(self) -> usize {
        (self.0 & 0xffff ^ 0xffff) as usize
    }
}

/// The best of at most [`BLOCK`] folded node hashes for a folded key hash.
#[inline]
pub(super) fn best(nodes: &[u64], key: u64) -> Packed {
    debug_assert!(nodes.len() <= BLOCK);
    if nodes.len() < WORTH_VECTORS { best_in_turn(nodes, key) } else { best_dispatched(nodes, key) }
}

/// The best of at most [`BLOCK`] that is not above `limit`.
pub(super) fn best_up_to(nodes: &[u64], key: u64, limit: Packed) -> Packed {
    debug_assert!(nodes.len() <= BLOCK);
    best_up_to_dispatched(nodes, key, limit)
}

/// Whether the node costs at most what is given for any of the keys, a cost being what a score lacks to the highest.
pub(super) fn any_at_most(keys: &[u64], costs: &[u64], node: u64) -> bool {
    any_at_most_dispatched(keys, costs, node)
}

/// Below this many nodes, setting up a vector loop costs more than it saves.
const WORTH_VECTORS: usize = 6;

#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512cd+avx512dq+avx512vl", "x86_64+avx2"))]
fn best_dispatched(nodes: &[u64], key: u64) -> Packed {
    if multiversion::target::target_cfg_f!(target_feature = "avx2") {
        best_at_once(nodes, key)
    } else {
        best_in_turn(nodes, key)
    }
}

#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512cd+avx512dq+avx512vl", "x86_64+avx2"))]
fn best_up_to_dispatched(nodes: &[u64], key: u64, limit: Packed) -> Packed {
    best_up_to_at_once(nodes, key, limit)
}

#[multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512cd+avx512dq+avx512vl", "x86_64+avx2"))]
fn any_at_most_dispatched(keys: &[u64], costs: &[u64], node: u64) -> bool {
    any_at_most_at_once(keys, costs, node)
}

/// The loop that becomes vectors. Ranks are compared as signed numbers with the sign bit flipped, since AVX2 has no
/// other comparison.
#[inline(always)]
fn best_at_once(nodes: &[u64], key: u64) -> Packed {
    let mut best = i64::MIN;
    for (at, node) in nodes.iter().enumerate() {
        best = best.max(signed(Packed::new(mix(node ^ key), at)));
    }
    unsigned(best)
}

/// The same without vectors. Two lanes of SSE2, which has no 64-bit multiplication, would be slower than none: the
/// black box keeps the compiler from them.
#[inline(always)]
fn best_in_turn(nodes: &[u64], key: u64) -> Packed {
    let mut best = Packed::NONE;
    for (at, node) in nodes.iter().enumerate() {
        best = best.max(Packed::new(mix(node ^ black_box(key)), at));
    }
    best
}

#[inline(always)]
fn best_up_to_at_once(nodes: &[u64], key: u64, limit: Packed) -> Packed {
    let limit = signed(limit);
    let mut best = i64::MIN;
    for (at, node) in nodes.iter().enumerate() {
        let rank = signed(Packed::new(mix(node ^ key), at));
        best = best.max(if rank <= limit { rank } else { i64::MIN });
    }
    unsigned(best)
}

#[inline(always)]
fn any_at_most_at_once(keys: &[u64], costs: &[u64], node: u64) -> bool {
    let mut any = false;
    for (key, cost) in keys.iter().zip(costs) {
        // Both have 48 bits, so that a signed comparison does.
        any |= (!mix(node ^ key) >> 16).cast_signed() <= cost.cast_signed();
    }
    any
}

#[inline(always)]
const fn signed(rank: Packed) -> i64 {
    (rank.0 ^ 1 << 63).cast_signed()
}

#[inline(always)]
const fn unsigned(rank: i64) -> Packed {
    Packed(rank.cast_unsigned() ^ 1 << 63)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rendezvous::score::{fold, hash};

    /// Every path that this processor has, by name.
    fn on_every_path<R>(run: impl Fn() -> R) -> Vec<(&'static str, R)> {
        #[allow(unused_mut)]
        let mut answers = vec![("baseline", run())];
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            answers.extend(V3::try_new().map(|avx2| ("avx2", avx2.vectorize(Inline(&run)))));
            answers.extend(V4::try_new().map(|avx512| ("avx512", avx512.vectorize(Inline(&run)))));
        }
        answers
    }

    #[cfg(target_arch = "x86_64")]
    struct Inline<'a, F>(&'a F);

    #[cfg(target_arch = "x86_64")]
    impl<R, F: Fn() -> R> pulp::NullaryFnOnce for Inline<'_, F> {
        type Output = R;

        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }

    /// What the loops must come to, said in the plainest way.
    fn plainly(nodes: &[u64], key: u64, limit: Packed) -> Packed {
        let ranks = nodes.iter().zip(0..).map(|(node, at)| Packed::new(mix(node ^ key), at));
        ranks.filter(|rank| *rank <= limit).max().unwrap_or(Packed::NONE)
    }

    #[test]
    fn all_paths_give_the_recorded_owners() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/ownership-v1.json")).unwrap();
        let mut checked = 0;
        for set in vectors["sets"].as_array().unwrap() {
            let nodes = set["nodes"].as_object().unwrap();
            let seed = u64::from_str_radix(set["ring_seed"].as_str().unwrap(), 16).unwrap();
            let hashes: Vec<u64> = nodes.keys().map(|id| fold(hash(id.as_bytes(), 0))).collect();
            let equal = nodes.values().all(|weight| weight == nodes.values().next().unwrap());
            for (key, ranked) in set["ranked"].as_object().unwrap().iter().filter(|_| equal) {
                let hashed = fold(hash(key.as_bytes(), seed));
                let owner = nodes.keys().position(|id| *id == ranked[0]).unwrap();
                for (path, best) in on_every_path(
                    #[inline(always)]
                    || best_at_once(&hashes, hashed),
                ) {
                    assert_eq!(best.at(), owner, "{path}: {} {key}", set["name"]);
                    checked += 1;
                }
            }
        }
        assert!(checked > 500, "only {checked} answers were checked");
    }

    fn nodes() -> impl Strategy<Value = Vec<u64>> {
        // Few different values among them, so that ties are common.
        prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..4], 0..300)
    }

    proptest! {
        #[test]
        fn all_paths_agree_on_the_best(nodes in nodes(), key: u64) {
            let expected = plainly(&nodes, key, Packed(u64::MAX));
            prop_assert_eq!(best(&nodes, key), expected);
            prop_assert_eq!(best_in_turn(&nodes, key), expected);
            for (path, answer) in on_every_path(#[inline(always)] || best_at_once(&nodes, key)) {
                prop_assert_eq!(answer, expected, "{}", path);
            }
        }

        #[test]
        fn all_paths_agree_on_the_best_up_to_a_limit(nodes in nodes(), key: u64, at: prop::sample::Index) {
            let limit = match nodes.len() {
                0 => Packed(u64::MAX),
                len => Packed::new(mix(nodes[at.index(len)] ^ key), at.index(len)),
            };
            let expected = plainly(&nodes, key, limit);
            prop_assert_eq!(best_up_to(&nodes, key, limit), expected);
            for (path, answer) in on_every_path(#[inline(always)] || best_up_to_at_once(&nodes, key, limit)) {
                prop_assert_eq!(answer, expected, "{}", path);
            }
        }

        #[test]
        fn all_paths_agree_on_whether_a_cost_is_met(keys in nodes(), node: u64, below in 0_u64..3) {
            // One more than the lowest cost, the same, and one less: only the last is not met.
            let lowest = keys.iter().map(|key| !mix(node ^ key) >> 16).min().unwrap_or(1).max(1);
            let costs = vec![lowest + 1 - below; keys.len()];
            let expected = !keys.is_empty() && below < 2;
            prop_assert_eq!(any_at_most(&keys, &costs, node), expected);
            for (path, answer) in on_every_path(#[inline(always)] || any_at_most_at_once(&keys, &costs, node)) {
                prop_assert_eq!(answer, expected, "{}", path);
            }
        }
    }
}
