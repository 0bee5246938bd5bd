//! A leg on a trunk, as the byte stream that it is to whoever holds it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Shared, mux::Mux};

/// A leg that shares its connection with others.
///
/// Reading ends when the far end has finished, or the connection is gone. Dropping it tells the far end.
#[derive(Debug)]
pub struct SharedLeg {
    leg: u32,
    shared: Arc<Shared>,
}

impl SharedLeg {
    pub(super) fn new(leg: u32, shared: Arc<Shared>) -> Self {
        Self { leg, shared }
    }

    /// Has something done with the trunk, then the writer woken if that left something to write.
    fn with<T>(&self, f: impl FnOnce(&mut Mux, u32) -> T) -> T {
        let (result, carrier) = {
            let mut mux = self.shared.mux();
            (f(&mut mux, self.leg), mux.carrier())
        };
        if let Some(carrier) = carrier {
            carrier.wake();
        }
        result
    }
}

impl SharedLeg {
    /// What was received next, as it lies in the trunk's buffer; nothing at the end.
    pub(in crate::proxy) fn poll_lend(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.with(|mux, leg| mux.lend(leg, cx))
    }

    /// Writes without a copy, as much as is taken now: that is gone from `bytes`.
    pub(in crate::proxy) fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        self.with(|mux, leg| mux.give(leg, bytes, cx))
    }
}

impl AsyncRead for SharedLeg {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|mux, leg| mux.read(leg, into, cx)).map(Ok)
    }
}

impl AsyncWrite for SharedLeg {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.with(|mux, leg| mux.write(leg, bytes, cx))
    }

    /// What was written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready when everything is with the connection's socket.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.with(|mux, leg| mux.finish(leg, cx)));
        Poll::Ready(Ok(()))
    }
}

impl Drop for SharedLeg {
    fn drop(&mut self) {
        self.with(Mux::drop_leg);
    }
}
