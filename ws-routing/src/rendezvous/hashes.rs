//! Folded node hashes, laid out as the loops want them.

/// Folded node hashes, whole and in halves. They are filled up to full vectors with the last one, which changes no
/// answer: of equal ones the first is the best.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Hashes {
    len: usize,
    whole: Vec<u64>,
    lower: Vec<u32>,
    upper: Vec<u32>,
}

/// Some of the [`Hashes`], one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    /// How many there are without those that fill up.
    pub(super) len: usize,
    pub(super) whole: &'a [u64],
    pub(super) lower: &'a [u32],
    pub(super) upper: &'a [u32],
}

/// So many that no loop is needed: with their number known the compiler writes them out.
pub(super) const FEW: usize = 16;
/// How many fill a vector: of halves with AVX2, of whole ones with AVX-512.
const LANES: usize = 8;

impl Hashes {
    #[allow(clippy::cast_possible_truncation)] // That is halving.
    pub(super) fn new(mut whole: Vec<u64>) -> Self {
        let len = whole.len();
        if let Some(last) = whole.last() {
            whole.resize(len.next_multiple_of(LANES).max(FEW), *last);
        }
        let (lower, upper) = whole.iter().map(|x| (*x as u32, (x >> 32) as u32)).unzip();
        Self { len, whole, lower, upper }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_slice(&self) -> &[u64] {
        &self.whole[..self.len]
    }

    #[inline]
    pub(super) fn all(&self) -> Block<'_> {
        Block { len: self.len, whole: &self.whole, lower: &self.lower, upper: &self.upper }
    }
}

impl<'a> Block<'a> {
    #[inline(always)]
    pub(super) fn as_slice(self) -> &'a [u64] {
        &self.whole[..self.len]
    }

    /// Cuts it up into parts of `size`, which is a multiple of eight, with the positions at which they start.
    #[inline(always)]
    pub(super) fn parts(self, size: usize) -> impl Iterator<Item = (usize, Self)> {
        let chunks = self.whole.chunks(size).zip(self.lower.chunks(size)).zip(self.upper.chunks(size));
        (0..).step_by(size).zip(chunks).map(move |(start, ((whole, lower), upper))| {
            (start, Self { len: size.min(self.len - start), whole, lower, upper })
        })
    }
}
