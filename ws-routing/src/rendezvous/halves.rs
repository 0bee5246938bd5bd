//! The owner by 32-bit halves: for AVX2, which multiplies eight pairs of 32 bits in the time of not even two of 64.
//!
//! One pass looks for the highest of the scores' upper 21 bits, and carries along the position, once counted from the
//! front and once from the back: two maxima, which the compiler vectorises by itself. Where both name one position,
//! nobody else has these 21 bits, and so it is the owner. Else, which at a hundred nodes is one pick in ten thousand,
//! all are looked at in turn.

use super::{
    hashes::Block,
    kernel::{Packed, best_in_turn},
    score::{mix, mixed_upper},
};

/// How many positions are told apart.
const PART: usize = 1 << 11;
const POSITION: u32 = PART as u32 - 1;

/// Where the best for a folded key hash is; any number if there is none.
#[inline(always)]
pub(super) fn best(nodes: Block<'_>, key: u64) -> usize {
    if (1..=PART).contains(&nodes.len) {
        return best_of_part(nodes.len, nodes.whole, nodes.lower, nodes.upper, key);
    }
    let mut best = Packed::NONE;
    for (start, part) in nodes.parts(PART) {
        let at = start + best_of_part(part.len, part.whole, part.lower, part.upper, key);
        best = best.max(Packed::new(mix(nodes.whole[at] ^ key), at));
    }
    best.at()
}

/// The same of at most [`PART`] and not of none: of `len`, and of those that fill up.
#[inline(always)]
pub(super) fn best_of_part(len: usize, whole: &[u64], lower: &[u32], upper: &[u32], key: u64) -> usize {
    Highest::of(lower, upper, key).only(len).unwrap_or_else(|| best_of_tied(whole, key))
}

/// The highest upper bits, with their first and their last position.
struct Highest {
    /// With the position counted from the back.
    first: u32,
    /// With the position.
    last: u32,
}

impl Highest {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // Positions are below `PART`; the others are halved.
    fn of(lower: &[u32], upper: &[u32], key: u64) -> Self {
        let (key_lower, key_upper) = (key as u32, (key >> 32) as u32);
        let mut highest = Self { first: 0, last: 0 };
        for (at, (lower, upper)) in lower.iter().zip(upper).enumerate() {
            highest.add(mixed_upper(lower ^ key_lower, upper ^ key_upper), at as u32);
        }
        highest
    }

    #[inline(always)]
    fn add(&mut self, upper: u32, at: u32) {
        let rank = upper & !POSITION | at;
        self.last = self.last.max(rank);
        self.first = self.first.max(rank ^ POSITION);
    }

    /// Where they are, if that is one position only of the first `len` and those that fill up.
    #[inline(always)]
    fn only(self, len: usize) -> Option<usize> {
        let (first, last) = (self.first & POSITION ^ POSITION, self.last & POSITION);
        (first as usize == (last as usize).min(len - 1)).then_some(first as usize)
    }
}

#[cold]
#[inline(never)]
fn best_of_tied(whole: &[u64], key: u64) -> usize {
    best_in_turn(whole, key).at()
}
