//! The candidates of a ring, prepared for picking.

use super::{
    hashes::{Block, Hashes},
    kernel::{self, BLOCK, Packed},
    ranked::Ranked,
    score::{distance, fold, hash, is_beyond, mix},
};

/// The candidates of a ring, prepared for picking: hashed once per membership change, scored once per pick.
///
/// Positions are those in which the nodes were given, which must be sorted by id: ties go to the smaller one. Nothing
/// here allocates, but for [`Ring::new`] and a [`Ring::ranked`] of more than eight.
///
/// A pick costs one score a node: see the [crate's page](crate#what-it-costs) for nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ring {
    hashes: Hashes,
    /// Empty when all weights are equal.
    weights: Vec<f64>,
}

impl Ring {
    /// Prepares `(id, weight)` pairs, sorted by id. A weight is 1 to 1000, and only its ratio to the others' counts.
    ///
    /// Costs one hash a node.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, u16)>) -> Self {
        let (hashes, weights): (Vec<_>, Vec<_>) =
            nodes.into_iter().map(|(id, weight)| (fold(hash(id.as_bytes(), 0)), f64::from(weight))).unzip();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self::prepared(hashes, if equal { Vec::new() } else { weights })
    }

    fn prepared(hashes: Vec<u64>, weights: Vec<f64>) -> Self {
        Self { hashes: Hashes::new(hashes), weights }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of the owner of the key whose [`hash`] is `key`; `None` without nodes.
    #[must_use]
    #[inline]
    pub fn owner(&self, key: u64) -> Option<usize> {
        if self.is_weighted() {
            return self.best_weighted(fold(key), None).map(|rank| rank.at);
        }
        self.best_unweighted(fold(key))
    }

    /// The best `n` positions, best first: each is where the key goes when all before it are dead.
    ///
    /// Up to eight are found as they are asked for, one pass over the nodes each, so that a caller who stops at the
    /// first pays for one. For more than that all nodes are sorted at once, in the one allocation of this module.
    #[must_use]
    pub fn ranked(&self, key: u64, n: usize) -> Ranked<'_> {
        Ranked::new(self, fold(key), n)
    }

    /// Whether the weights differ, and so decide.
    pub(super) fn is_weighted(&self) -> bool {
        !self.weights.is_empty()
    }

    /// The folded hash of the node at `at`.
    pub(super) fn node(&self, at: usize) -> u64 {
        self.hashes.as_slice()[at]
    }

    /// Where the node at `at` stands for a folded key.
    pub(super) fn rank(&self, key: u64, at: usize) -> Rank {
        let score = mix(self.node(at) ^ key) >> 16;
        let cost = match self.weights.get(at) {
            None => Rank::cost_of_score(score),
            Some(weight) => distance(score, *weight).to_bits(),
        };
        Rank { cost, at }
    }

    /// Where the node at `at` stands for a folded key, unless that is behind `limit` for sure.
    pub(super) fn rank_within(&self, key: u64, at: usize, limit: u64) -> Option<Rank> {
        let beyond = self
            .weights
            .get(at)
            .is_some_and(|weight| is_beyond(mix(self.node(at) ^ key) >> 16, *weight, f64::from_bits(limit)));
        if beyond { None } else { Some(self.rank(key, at)) }
    }

    /// The first for a folded key.
    #[inline]
    pub(super) fn best(&self, key: u64) -> Option<Rank> {
        if self.is_weighted() {
            return self.best_weighted(key, None);
        }
        self.best_unweighted(key).map(|at| self.rank(key, at))
    }

    #[inline]
    fn best_unweighted(&self, key: u64) -> Option<usize> {
        if self.len() <= BLOCK {
            return kernel::best(self.hashes.all(), key);
        }
        self.best_of_blocks(key)
    }

    #[cold]
    fn best_of_blocks(&self, key: u64) -> Option<usize> {
        let best = |(start, nodes)| kernel::best(nodes, key).map(|at| start + at);
        self.blocks().filter_map(best).map(|at| self.rank(key, at)).min().map(|rank| rank.at)
    }

    /// The first behind `last` for a folded key.
    pub(super) fn next(&self, key: u64, last: Rank) -> Option<Rank> {
        if self.is_weighted() {
            return self.best_weighted(key, Some(last));
        }
        let next = |(start, nodes): (usize, Block<'_>)| {
            Rank::of_packed(kernel::best_up_to(nodes.as_slice(), key, last.limit_in(start)?), start)
        };
        self.blocks().filter_map(next).min()
    }

    fn blocks(&self) -> impl Iterator<Item = (usize, Block<'_>)> {
        self.hashes.all().parts(BLOCK)
    }

    fn best_weighted(&self, key: u64, last: Option<Rank>) -> Option<Rank> {
        let mut best: Option<Rank> = None;
        for at in 0..self.len() {
            let limit = best.map_or(f64::INFINITY.to_bits(), |best| best.cost);
            let Some(rank) = self.rank_within(key, at, limit) else { continue };
            if last.is_none_or(|last| rank > last) && best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
        }
        best
    }
}

/// Where a node stands for a key: the lowest owns, and of equal costs the smaller position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// What the score lacks to the highest there is; among different weights the bits of the distance, which order as
    /// the distances do, as none is negative.
    pub(super) cost: u64,
    pub(super) at: usize,
}

impl Rank {
    pub(super) const fn cost_of_score(score: u64) -> u64 {
        (1 << 48) - 1 - score
    }

    #[inline]
    fn of_packed(packed: Packed, start: usize) -> Option<Self> {
        let rank = Self { cost: Self::cost_of_score(packed.score()), at: start + packed.at() };
        (packed != Packed::NONE).then_some(rank)
    }

    /// The best that may still follow this rank in the block that begins at `start`.
    fn limit_in(self, start: usize) -> Option<Packed> {
        let score = Self::cost_of_score(self.cost) << 16;
        let last = match self.at.checked_sub(start) {
            None => return Some(Packed(score | 0xffff)),
            Some(at) if at < BLOCK => Packed::new(score, at),
            Some(_) => Packed(score),
        };
        last.0.checked_sub(1).map(Packed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without any shortcut: all nodes, sorted.
    fn by_definition(ring: &Ring, key: u64) -> Vec<usize> {
        let score = |at: usize| mix(ring.node(at) ^ fold(key)) >> 16;
        let mut order: Vec<usize> = (0..ring.len()).collect();
        order.sort_by(|&a, &b| match (ring.weights.get(a), ring.weights.get(b)) {
            (Some(&u), Some(&v)) => distance(score(a), u).total_cmp(&distance(score(b), v)),
            _ => score(b).cmp(&score(a)),
        });
        order
    }

    fn ring() -> impl Strategy<Value = Ring> {
        // Few different hashes among them, so that ties are common.
        let hash = prop_oneof![3 => any::<u64>(), 1 => 0_u64..4];
        (prop::collection::vec((hash, 1_u16..=1000), 0..60), any::<bool>()).prop_map(|(nodes, weighted)| {
            Ring::prepared(
                nodes.iter().map(|(hash, _)| *hash).collect(),
                nodes.iter().map(|(_, weight)| f64::from(*weight)).filter(|_| weighted).collect(),
            )
        })
    }

    proptest! {
        #[test]
        fn ranking_is_as_defined_however_many_are_asked_for(ring in ring(), key: u64, n in 0_usize..70) {
            let expected = by_definition(&ring, key);
            prop_assert_eq!(ring.owner(key), expected.first().copied());
            let ranked = ring.ranked(key, n);
            prop_assert_eq!(ranked.len(), n.min(ring.len()));
            prop_assert_eq!(ranked.collect::<Vec<_>>(), &expected[..n.min(ring.len())]);
        }
    }

    #[test]
    fn more_nodes_than_one_block_holds_rank_as_defined() {
        for len in [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5] {
            let hashes = (0..len as u64).map(|at| fold(at % 20_000));
            let ring = Ring::prepared(hashes.collect(), Vec::new());
            for key in 0..10 {
                let expected = by_definition(&ring, key);
                assert_eq!(ring.owner(key), Some(expected[0]), "{len} nodes, key {key}");
                assert_eq!(ring.ranked(key, 8).collect::<Vec<_>>(), expected[..8], "{len} nodes, key {key}");
                assert_eq!(
                    ring.ranked(key, 50).collect::<Vec<_>>(),
                    expected[..50],
                    "{len} nodes, key {key}"
                );
            }
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        let ring = Ring::new([("a", 100), ("b", 300)]);
        let owned = (0..100_000_u64).filter(|key| ring.owner(hash(&key.to_le_bytes(), 0)) == Some(1)).count();
        assert!((74_000..76_000).contains(&owned), "{owned} of 100000 keys for three quarters of the weight");
    }
}
