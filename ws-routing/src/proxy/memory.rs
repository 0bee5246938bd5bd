//! Memory that sockets are read into. It is the thread's: an idle connection holds none. What was read may be lent to
//! whoever still has to write it; the memory comes back by itself.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

use super::relay::BUFFER;
use crate::frame::MAX_HEADER;

/// How much is read at once.
pub(super) const READ: usize = BUFFER + MAX_HEADER;

/// From so many bytes on what was read is lent; less is copied, which costs less than to lend it.
pub(super) const LENT_FROM: usize = 8 * 1024;

/// How many blocks a thread keeps beside the one that was used last. What the allocator gives back and takes anew costs
/// more, in page faults, than all else that is done with it.
const KEPT: usize = 48;

thread_local! {
    /// The one that was used last is nearest to the processor, and used next.
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// All others.
    static BLOCKS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A block of [`READ`] bytes to read into: to be given back, or lent.
pub(super) fn take() -> Vec<u8> {
    let last = LAST.take();
    if last.is_empty() { BLOCKS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ]) } else { last }
}

/// Gives a block back.
pub(super) fn give_back(block: Vec<u8>) {
    // A thread that ends keeps none.
    let Ok(before) = LAST.try_with(|last| last.replace(block)) else { return };
    if before.is_empty() {
        return;
    }
    let _ = BLOCKS.try_with(|blocks| {
        let mut blocks = blocks.borrow_mut();
        if blocks.len() < KEPT {
            blocks.push(before);
        }
    });
}

/// Lends the first `len` bytes of a block, which is given back when the last part of them is dropped.
pub(super) fn lend(block: Vec<u8>, len: usize) -> Bytes {
    Bytes::from_owner(Loan { block, len })
}

struct Loan {
    block: Vec<u8>,
    len: usize,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.block[..self.len]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_nothing_of_it_is_lent() {
        let mut block = take();
        let begin = block.as_ptr();
        block[..LENT_FROM].fill(7);
        let mut lent = lend(block, LENT_FROM);
        let part = lent.split_to(10);
        drop(lent);
        let other = take();
        assert_ne!(other.as_ptr(), begin);
        assert_eq!(part[..], [7; 10]);
        drop(part);
        let again = take();
        assert_eq!(again.as_ptr(), begin);
    }

    #[test]
    fn a_thread_keeps_so_many_blocks_and_no_more() {
        let all: Vec<_> = (0..2 * KEPT).map(|_| take()).collect();
        all.into_iter().for_each(give_back);
        BLOCKS.with_borrow(|blocks| assert_eq!(blocks.len(), KEPT));
    }
}
