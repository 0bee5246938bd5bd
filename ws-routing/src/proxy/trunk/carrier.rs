//! Carries a trunk's bytes: one task for each trunk, which writes what all its legs have put since it wrote last.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, tcp::OwnedReadHalf},
    task::yield_now,
};

use super::{Shared, SharedLeg, mux::Violation, output::Output};

/// How much is read at once.
const READ: usize = 128 * 1024;

/// The connection, and what is in flight on it.
#[derive(Debug)]
pub(super) struct Carrier {
    read: OwnedReadHalf,
    shared: Arc<Shared>,
    input: BytesMut,
    /// What was read into before, and is again once no leg holds a part of it: memory that the allocator gives back and
    /// takes anew costs more than all else that is done with it.
    spare: BytesMut,
    output: Output,
    /// Everybody who is ready has had a chance to add to what is written next.
    gathered: bool,
    opened: Vec<u32>,
    wake: Vec<Waker>,
}

/// Why a turn ended.
enum Turn {
    /// There is something to write, or more to read: others come first.
    Gather,
    /// The far end has ended.
    Over,
}

impl Carrier {
    /// `input`: what was read behind the handshake. `most`: how many legs the far end may have open.
    pub(super) fn new(io: TcpStream, input: BytesMut, most: usize) -> (Self, Arc<Shared>) {
        unpaced(&io);
        let (read, write) = io.into_split();
        let shared = Arc::new(Shared::new(most, write));
        let carrier = Self {
            read,
            shared: Arc::clone(&shared),
            input,
            spare: BytesMut::new(),
            output: Output::default(),
            gathered: false,
            opened: Vec::new(),
            wake: Vec::new(),
        };
        (carrier, shared)
    }

    /// Carries until the connection ends, which ends all legs. Legs that the far end opens are given to `open`.
    pub(super) async fn run(mut self, mut open: impl FnMut(SharedLeg)) -> Result<(), CarryError> {
        self.receive(&mut open)?;
        loop {
            match poll_fn(|cx| self.turn(cx, &mut open)).await? {
                // Whoever is ready now adds to what is written then.
                Turn::Gather => {
                    yield_now().await;
                    self.gathered = true;
                }
                Turn::Over => return Ok(()),
            }
        }
    }

    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        open: &mut impl FnMut(SharedLeg),
    ) -> Poll<Result<Turn, CarryError>> {
        loop {
            let free = self.flush(cx)?;
            let room = self.make_room();
            let read = self.read(cx)?;
            if read == Poll::Ready(0) {
                return Poll::Ready(Ok(Turn::Over));
            }
            if read.is_ready() {
                self.receive(open)?;
            }
            if read == Poll::Ready(room) {
                return Poll::Ready(Ok(Turn::Gather));
            }
            if free && self.shared.mux().has_output(cx) {
                if !std::mem::take(&mut self.gathered) {
                    return Poll::Ready(Ok(Turn::Gather));
                }
                self.shared.mux().take(&mut self.output);
            } else if read.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Writes what was taken; whether all of it is written.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let write = &self.shared.write;
        while !self.output.is_written() {
            match self.output.write(|one| write.try_write(one), |many| write.try_write_vectored(many)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if write.as_ref().poll_write_ready(cx)?.is_pending() {
                        return Ok(false);
                    }
                }
                written => written?,
            }
        }
        if self.output.len() > 0 {
            self.shared.mux().sent(self.output.len(), &mut self.wake);
            self.output.clear();
            self.wake_all();
        }
        Ok(true)
    }

    /// Makes room to read into: the room that there was, if all legs have read what is theirs of it.
    fn make_room(&mut self) -> usize {
        if self.input.capacity() - self.input.len() < READ / 4 && !self.input.try_reclaim(READ / 2) {
            let mut next = std::mem::take(&mut self.spare);
            next.clear();
            if !next.try_reclaim(READ) {
                next = BytesMut::with_capacity(READ);
            }
            // Less than a window: the part of a frame.
            next.extend_from_slice(&self.input);
            self.spare = std::mem::replace(&mut self.input, next);
        }
        self.input.capacity() - self.input.len()
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<usize>> {
        let read = pin!(self.read.read_buf(&mut self.input)).poll(cx);
        Ok(match read {
            Poll::Ready(n) => Poll::Ready(n?),
            Poll::Pending => Poll::Pending,
        })
    }

    fn receive(&mut self, open: &mut impl FnMut(SharedLeg)) -> Result<(), CarryError> {
        let received = self.shared.mux().receive(&mut self.input, &mut self.opened, &mut self.wake);
        for leg in self.opened.drain(..) {
            open(SharedLeg::new(leg, Arc::clone(&self.shared)));
        }
        self.wake_all();
        Ok(received?)
    }

    fn wake_all(&mut self) {
        for waker in self.wake.drain(..) {
            waker.wake();
        }
    }
}

/// Has the kernel send as soon as it may. BBR spreads what is sent over time by a timer for each write: between two pods
/// that gains nothing, and costs a fifth of all CPU time. Where round trips are short CUBIC is no other than Reno
/// (RFC 9438 §4.3), and any process may ask for Reno.
fn unpaced(io: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        let io = SockRef::from(io);
        if io.tcp_congestion().is_ok_and(|name| name.starts_with(b"bbr")) {
            let set = io.set_tcp_congestion(b"reno");
            // One that is not to be had is no reason to do without the trunk.
            tracing::debug!(reno = set.is_ok(), "a trunk is not paced by BBR");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = io;
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.shared.mux().end(&mut self.wake);
        self.wake_all();
    }
}

/// Why a trunk was cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarryError {
    #[error("the connection was lost")]
    Io(#[from] io::Error),
    #[error("the far end does not keep to the protocol: {0}")]
    Violation(#[from] Violation),
}
