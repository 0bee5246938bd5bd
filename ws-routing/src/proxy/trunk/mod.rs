//! Legs that share connections: many clients' frames leave in one write and come in one read, and a move costs a few
//! bytes in place of a TCP handshake.
//!
//! A trunk is a TCP connection between two processes of ours, begun by an HTTP/1.1 upgrade. Each leg on it is a byte
//! stream of its own, beginning with its handshake as on a connection of its own, with a window of 64 KiB each way:
//! whoever does not read holds up nobody else.
//!
//! Reading order: `frame` (the eight bytes before whatever a leg says), `mux` (the legs, without a socket),
//! `output` (what they have put), `stream` (one
//! leg as its holder sees it), `carrier` (the socket), `trunks` (who opens them), `accept` (the far end).

mod accept;
mod carrier;
mod frame;
mod mux;
mod output;
mod stream;
mod trunks;

use std::sync::{Mutex, MutexGuard, PoisonError};

use mux::Mux;
use tokio::net::tcp::OwnedWriteHalf;

pub(crate) use accept::{accept, asks, key};
pub use stream::SharedLeg;
pub(super) use trunks::Trunks;

/// How many bytes of a leg may be under way in one direction.
const WINDOW: usize = 64 * 1024;

/// What a trunk's carrier and its legs share.
#[derive(Debug)]
struct Shared {
    mux: Mutex<Mux>,
    write: OwnedWriteHalf,
}

impl Shared {
    /// Of a trunk whose far end may have `most` legs open that it has opened.
    fn new(most: usize, write: OwnedWriteHalf) -> Self {
        Self { mux: Mutex::new(Mux::new(most)), write }
    }

    fn mux(&self) -> MutexGuard<'_, Mux> {
        // Nothing is left half done by a panic: none is possible while it is held.
        self.mux.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
