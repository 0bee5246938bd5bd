//! A stream of an HTTP/2 connection, as the byte stream that it is to whoever holds it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes both ways, each way with a window of its own. What is read makes room for more.
///
/// Dropping it resets what has not ended.
#[derive(Debug)]
pub(super) struct Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// What was received and not read.
    rest: Bytes,
    finished: bool,
}

impl Stream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send, recv, rest: Bytes::new(), finished: false }
    }
}

impl Stream {
    /// Takes the next bytes that were received; false at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.rest.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(bytes) => self.rest = bytes.map_err(lost)?,
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let len = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..len]);
        self.rest.advance(len);
        // It fails only for more than was received.
        let _ = self.recv.flow_control().release_capacity(len);
    }
}

impl AsyncRead for Stream {
    /// Takes all frames that are there: what is passed on in one piece costs less.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !ready!(this.poll_more(cx))? {
            return Poll::Ready(Ok(()));
        }
        this.take(into);
        // An error, or the end, comes again.
        while into.remaining() > 0 && matches!(this.poll_more(cx), Poll::Ready(Ok(true))) {
            this.take(into);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(bytes.len());
        let room = match this.send.capacity() {
            0 => match ready!(this.send.poll_capacity(cx)) {
                Some(room) => room.map_err(lost)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            room => room,
        };
        let len = room.min(bytes.len());
        this.send.send_data(Bytes::copy_from_slice(&bytes[..len]), false).map_err(lost)?;
        Poll::Ready(Ok(len))
    }

    /// What was taken goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.finished {
            this.finished = true;
            this.send.send_data(Bytes::new(), true).map_err(lost)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn lost(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
