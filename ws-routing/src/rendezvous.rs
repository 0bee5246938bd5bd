//! The ownership function, version 1: rendezvous hashing, frozen by recorded vectors.

use std::cmp::Ordering;

use twox_hash::XxHash3_64;

/// `XXH3-64(bytes, seed)`.
#[must_use]
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// The 48-bit score of a node's hash for a key's hash: the highest owns.
#[must_use]
pub const fn score(node: u64, key: u64) -> u64 {
    fmix64(node ^ key) >> 16
}

/// MurmurHash3's 64-bit finaliser.
const fn fmix64(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// The candidates of a ring, prepared for picking: hashes once per membership change, one score per node and pick.
///
/// Positions are those in which the nodes were given, which must be sorted by id: ties go to the smaller one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ring {
    hashes: Vec<u64>,
    /// Empty when all weights are equal.
    weights: Vec<f64>,
}

impl Ring {
    /// Prepares `(id, weight)` pairs, sorted by id.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, u16)>) -> Self {
        let (hashes, weights): (Vec<_>, Vec<_>) =
            nodes.into_iter().map(|(id, weight)| (hash(id.as_bytes(), 0), f64::from(weight))).unzip();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self { hashes, weights: if equal { Vec::new() } else { weights } }
    }

    /// The position of the owner of the key whose hash is `key`; `None` without nodes.
    #[must_use]
    pub fn owner(&self, key: u64) -> Option<usize> {
        (0..self.hashes.len()).min_by(|&a, &b| self.compare(key, a, b))
    }

    /// The best `n` positions, best first.
    #[must_use]
    pub fn ranked(&self, key: u64, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.hashes.len()).collect();
        order.sort_by(|&a, &b| self.compare(key, a, b));
        order.truncate(n);
        order
    }

    fn compare(&self, key: u64, a: usize, b: usize) -> Ordering {
        let (score_a, score_b) = (score(self.hashes[a], key), score(self.hashes[b], key));
        if self.weights.is_empty() {
            return score_b.cmp(&score_a).then(a.cmp(&b));
        }
        distance(score_a, self.weights[a]).total_cmp(&distance(score_b, self.weights[b])).then(a.cmp(&b))
    }
}

/// `-ln((score + 0.5) / 2^48) / weight`: the lowest owns.
fn distance(score: u64, weight: f64) -> f64 {
    // 48 bits and a half fit a double exactly.
    #[allow(clippy::cast_precision_loss)]
    let unit = (score as f64 + 0.5) / (1_u64 << 48) as f64;
    -libm::log(unit) / weight
}
