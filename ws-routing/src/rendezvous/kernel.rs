//! The inner loops, compiled once for each vector width and chosen at run time.
//!
//! A loop carries score and position in one number, `score << 16 | (0xffff - position)`, whose maximum is the owner with
//! its tie-break. So there is nothing to select by but a maximum, which the compiler vectorises by itself. With AVX2
//! the owner is found by [`halves`](super::halves) instead.
//!
//! `RUSTFLAGS='--cfg ws_routing_without_avx512'` leaves the widest path out, to measure the next one on a processor that
//! has both.

use std::hint::black_box;

use multiversion::multiversion;

use super::{
    halves,
    hashes::{Block, FEW},
    score::mix,
};

/// The most nodes that one call may look at: whole vectors, and few enough for 16 bits to tell apart with 0 being
/// nobody's rank.
pub(super) const BLOCK: usize = 0xfff8;

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

/// The position of the best of at most [`BLOCK`] nodes for a folded key hash; `None` of none.
#[inline]
pub(super) fn best(nodes: Block<'_>, key: u64) -> Option<usize> {
    let Block { len, whole, lower, upper } = nodes;
    debug_assert!(len <= BLOCK);
    if len < WORTH_VECTORS {
        let best = best_in_turn(nodes.as_slice(), key);
        return (best != Packed::NONE).then_some(best.at());
    }
    Some(match (whole.try_into(), lower.try_into(), upper.try_into()) {
        (Ok(whole), Ok(lower), Ok(upper)) => best_of_few_dispatched(len, whole, lower, upper, key),
        _ => best_dispatched(len, whole, lower, upper, key),
    })
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

/// Below this many nodes, choosing and setting up a vector loop costs more than it saves.
const WORTH_VECTORS: usize = 8;

/// Makes a function one for each vector width.
macro_rules! for_each_width {
    ($($function:item)*) => { $(
        #[cfg_attr(
            not(ws_routing_without_avx512),
            multiversion(targets("x86_64+avx2+avx512f+avx512bw+avx512cd+avx512dq+avx512vl", "x86_64+avx2"))
        )]
        #[cfg_attr(ws_routing_without_avx512, multiversion(targets("x86_64+avx2")))]
        #[allow(clippy::ifs_same_cond)] // The conditions are true or false by then.
        $function
    )* };
}

for_each_width! {
    fn best_dispatched(len: usize, whole: &[u64], lower: &[u32], upper: &[u32], key: u64) -> usize {
        if multiversion::target::target_cfg_f!(target_feature = "avx512dq") {
            best_at_once(whole, key).at()
        } else if multiversion::target::target_cfg_f!(target_feature = "avx2") {
            halves::best(Block { len, whole, lower, upper }, key)
        } else {
            best_in_turn(&whole[..len], key).at()
        }
    }

    fn best_of_few_dispatched(len: usize, whole: &[u64; FEW], lower: &[u32; FEW], upper: &[u32; FEW], key: u64) -> usize {
        if multiversion::target::target_cfg_f!(target_feature = "avx512dq") {
            best_at_once(whole, key).at()
        } else if multiversion::target::target_cfg_f!(target_feature = "avx2") {
            halves::best_of_part(len, whole, lower, upper, key)
        } else {
            best_in_turn(&whole[..len], key).at()
        }
    }

    fn best_up_to_dispatched(nodes: &[u64], key: u64, limit: Packed) -> Packed {
        best_up_to_at_once(nodes, key, limit)
    }

    fn any_at_most_dispatched(keys: &[u64], costs: &[u64], node: u64) -> bool {
        any_at_most_at_once(keys, costs, node)
    }
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
/// black box keeps the compiler from them. Positions are counted down as they go into the rank.
#[inline(always)]
pub(super) fn best_in_turn(nodes: &[u64], key: u64) -> Packed {
    let mut best = Packed::NONE;
    let mut place = 0xffff;
    for node in nodes {
        let rank = Packed((mix(node ^ black_box(key)) & !0xffff) | place);
        if rank > best {
            best = rank;
        }
        place -= 1;
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
    use std::iter;

    use proptest::prelude::*;

    use super::*;
    use crate::rendezvous::{
        hashes::Hashes,
        score::{FIRST, SECOND, fold, hash},
    };

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

    /// Where the best is by each loop on every path.
    fn every_best(nodes: &[u64], key: u64) -> Vec<(String, Option<usize>)> {
        let hashes = Hashes::new(nodes.to_vec());
        let chosen = ("chosen".to_owned(), best(hashes.all(), key));
        let in_turn = best_in_turn(nodes, key).at();
        let at_once = on_every_path(
            #[inline(always)]
            || best_at_once(nodes, key).at(),
        );
        let by_halves = on_every_path(
            #[inline(always)]
            || halves::best(hashes.all(), key),
        );
        let loops =
            [("in turn", vec![("baseline", in_turn)]), ("at once", at_once), ("by halves", by_halves)];
        let of_loop = |(name, answers): (&'static str, Vec<(&'static str, usize)>)| {
            let some = |at: usize| (!nodes.is_empty()).then_some(at);
            answers.into_iter().map(move |(path, at)| (format!("{name}, {path}"), some(at)))
        };
        iter::once(chosen).chain(loops.into_iter().flat_map(of_loop)).collect()
    }

    fn plain_best(nodes: &[u64], key: u64) -> Option<usize> {
        let best = plainly(nodes, key, Packed(u64::MAX));
        (best != Packed::NONE).then_some(best.at())
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
                for (path, best) in every_best(&hashes, hashed) {
                    assert_eq!(best, Some(owner), "{path}: {} {key}", set["name"]);
                    checked += 1;
                }
            }
        }
        assert!(checked > 500, "only {checked} answers were checked");
    }

    /// Undoes [`mix`].
    fn unmixed(mixed: u64) -> u64 {
        // Each step of Newton's doubles the bits that are right, which are three at first.
        let inverse =
            |odd: u64| (0..5).fold(odd, |x, _| x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x))));
        let x = mixed ^ (mixed >> 33);
        let x = x.wrapping_mul(inverse(SECOND));
        let x = x ^ (x >> 33);
        x.wrapping_mul(inverse(FIRST))
    }

    #[test]
    fn all_paths_agree_at_every_size() {
        let mut hashes = (0..).map(|at: u64| fold(hash(&at.to_le_bytes(), 0)));
        let all: Vec<u64> = hashes.by_ref().take(BLOCK).collect();
        for len in (0..70).chain([2047, 2048, 2049, 2064, 4096, 5000, BLOCK - 1, BLOCK]) {
            for key in hashes.by_ref().take(20) {
                let expected = plain_best(&all[..len], key);
                for (path, answer) in every_best(&all[..len], key) {
                    assert_eq!(answer, expected, "{len} nodes, {path}");
                }
            }
        }
    }

    fn nodes() -> impl Strategy<Value = Vec<u64>> {
        // Few different values among them, so that ties are common.
        prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..4], 0..300)
    }

    proptest! {
        #[test]
        fn all_paths_agree_on_the_best(nodes in nodes(), key: u64) {
            let expected = plain_best(&nodes, key);
            for (path, answer) in every_best(&nodes, key) {
                prop_assert_eq!(answer, expected, "{}", path);
            }
        }

        #[test]
        fn all_paths_agree_where_only_the_last_bits_differ(
            ranks in prop::collection::vec((0_u64..4, 0_u32..48), 1..100), key: u64,
        ) {
            let nodes: Vec<u64> = ranks.iter().map(|(bits, up)| unmixed(u64::MAX ^ (bits << up << 14)) ^ key).collect();
            let expected = plain_best(&nodes, key);
            for (path, answer) in every_best(&nodes, key) {
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
