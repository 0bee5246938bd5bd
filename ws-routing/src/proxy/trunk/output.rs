//! What waits to be written on a trunk, in order, and how much of it is written.

use std::io::{self, IoSlice};

use bytes::Bytes;

/// How many pieces one write takes.
const PIECES: usize = 64;

/// Small pieces are copied one behind the other; large ones stay where they were read.
#[derive(Debug, Default)]
pub(super) struct Output {
    copied: Vec<u8>,
    /// What is lent, and how many of the copied bytes come before it.
    lent: Vec<(usize, Bytes)>,
    len: usize,
    written: usize,
}

impl Output {
    /// How many bytes there are, written or not.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.len
    }

    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(super) fn lend(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.lent.push((self.copied.len(), bytes));
    }

    /// Writes once, by `one` if that is enough, else by `many`.
    pub(super) fn write(
        &mut self,
        one: impl FnOnce(&[u8]) -> io::Result<usize>,
        many: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let written = if self.lent.is_empty() {
            one(&self.copied[self.written..])?
        } else {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let pieces = self.pieces(&mut pieces);
            many(pieces)?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += written;
        Ok(())
    }

    /// Forgets what there was, and gives back what was lent.
    pub(super) fn clear(&mut self) {
        self.copied.clear();
        self.lent.clear();
        (self.len, self.written) = (0, 0);
    }

    /// What is not written, as many pieces as `into` takes.
    fn pieces<'a, 'b>(&'a self, into: &'b mut [IoSlice<'a>; PIECES]) -> &'b [IoSlice<'a>] {
        let (mut skip, mut count, mut at) = (self.written, 0, 0);
        let mut add = |piece: &'a [u8]| {
            let (done, piece) = piece.split_at(skip.min(piece.len()));
            skip -= done.len();
            if !piece.is_empty() && count < PIECES {
                into[count] = IoSlice::new(piece);
                count += 1;
            }
        };
        for (before, lent) in &self.lent {
            add(&self.copied[at..*before]);
            add(lent);
            at = *before;
        }
        add(&self.copied[at..]);
        &into[..count]
    }
}
