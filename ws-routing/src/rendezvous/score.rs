//! The frozen arithmetic of one node and one key.

use twox_hash::XxHash3_64;

/// `XXH3-64(bytes, seed)`: of a node's id with seed 0, of a key with the ring's seed.
///
/// About 3 ns for a short key.
#[must_use]
#[inline]
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    // Either way the same: here the compiler knows of the length, and leaves out what longer ones need.
    if bytes.len() <= 16 { XxHash3_64::oneshot_with_seed(seed, bytes) } else { hash_long(bytes, seed) }
}

#[inline(never)]
fn hash_long(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// The 48-bit score of a node's hash for a key's hash: the highest owns.
#[must_use]
pub const fn score(node: u64, key: u64) -> u64 {
    mix(fold(node) ^ fold(key)) >> 16
}

/// The first step of MurmurHash3's 64-bit finaliser. `fold(a ^ b) == fold(a) ^ fold(b)`, so nodes and keys are folded
/// once instead of once a score.
#[inline(always)]
pub(super) const fn fold(x: u64) -> u64 {
    x ^ (x >> 33)
}

/// The other steps of the finaliser: the score is the upper 48 bits.
#[inline(always)]
pub(super) const fn mix(folded: u64) -> u64 {
    let x = folded.wrapping_mul(FIRST);
    let x = x ^ (x >> 33);
    let x = x.wrapping_mul(SECOND);
    x ^ (x >> 33)
}

pub(super) const FIRST: u64 = 0xff51_afd7_ed55_8ccd;
pub(super) const SECOND: u64 = 0xc4ce_b9fe_1a85_ec53;

/// The upper 32 bits of [`mix`], of a number in two halves.
#[inline(always)]
pub(super) const fn mixed_upper(lower: u32, upper: u32) -> u32 {
    let (lower, upper) = times(lower, upper, FIRST);
    let lower = lower ^ (upper >> 1);
    times(lower, upper, SECOND).1
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // That is halving.
const fn times(lower: u32, upper: u32, by: u64) -> (u32, u32) {
    let (by_lower, by_upper) = (by as u32, (by >> 32) as u32);
    let carried = ((lower as u64 * by_lower as u64) >> 32) as u32;
    let crossed = lower.wrapping_mul(by_upper).wrapping_add(upper.wrapping_mul(by_lower));
    (lower.wrapping_mul(by_lower), carried.wrapping_add(crossed))
}

/// `-ln((score + 0.5) / 2^48) / weight`: the lowest owns.
pub(super) fn distance(score: u64, weight: f64) -> f64 {
    -libm::log(unit(score)) / weight
}

/// Whether the distance is above `limit` for sure. True for nearly all nodes of a pick, and cheaper than a logarithm.
pub(super) fn is_beyond(score: u64, weight: f64, limit: f64) -> bool {
    // -ln(x) ≥ 1 - x; the margin is a thousand times what the roundings on either side can add up to.
    1.0 - unit(score) > limit * weight * (1.0 + 1e-12)
}

/// The score as a number between 0 and 1, neither of which it reaches.
#[allow(clippy::cast_precision_loss)]
fn unit(score: u64) -> f64 {
    // 48 bits and a half fit a double exactly.
    (score as f64 + 0.5) / (1_u64 << 48) as f64
}
