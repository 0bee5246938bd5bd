//! The order of the nodes for one key.

use std::{iter::FusedIterator, vec};

use super::{Ring, ring::Rank};

/// Positions in a [`Ring`], best first for one key: made by [`Ring::ranked`].
#[derive(Clone, Debug)]
pub struct Ranked<'a> {
    way: Way<'a>,
    left: usize,
}

#[derive(Clone, Debug)]
enum Way<'a> {
    /// Each is found when it is asked for.
    Walk { ring: &'a Ring, key: u64, last: Option<Rank> },
    /// All were found at once.
    Sorted(vec::IntoIter<Rank>),
}

/// Up to here one pass over the nodes for each is cheaper than sorting them.
const WALKED: usize = 8;

impl<'a> Ranked<'a> {
    pub(super) fn new(ring: &'a Ring, key: u64, n: usize) -> Self {
        let left = n.min(ring.len());
        let way = if left <= WALKED {
            Way::Walk { ring, key, last: None }
        } else {
            Way::Sorted(sorted(ring, key, left).into_iter())
        };
        Self { way, left }
    }
}

fn sorted(ring: &Ring, key: u64, n: usize) -> Vec<Rank> {
    let mut ranks: Vec<Rank> = (0..ring.len()).map(|at| ring.rank(key, at)).collect();
    if n < ranks.len() {
        ranks.select_nth_unstable(n);
        ranks.truncate(n);
    }
    ranks.sort_unstable();
    ranks
}

impl Iterator for Ranked<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        match &mut self.way {
            Way::Sorted(ranks) => ranks.next().map(|rank| rank.at),
            Way::Walk { ring, key, last } => {
                *last = match *last {
                    None => ring.best(*key),
                    Some(rank) => ring.next(*key, rank),
                };
                last.map(|rank| rank.at)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Ranked<'_> {}
impl FusedIterator for Ranked<'_> {}
