//! One socket of a relay: what was read and not consumed, what was put and not written, and nothing while it is idle.

use std::{
    any::Any,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    task::coop::has_budget_remaining,
};

use super::{
    leg::LegStream,
    memory::{self, LENT_FROM, READ},
};
use crate::{frame::MAX_HEADER, proxy::relay::BUFFER};

/// A socket with the bytes in flight around it.
///
/// Bounded: what was read and not consumed is less than a frame of [`BUFFER`] bytes or one read; what was put and not
/// written is at most what one read of the other side made, since that is not read while something waits here.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    io: S,
    /// What is in flight, while anything is: an idle connection holds a word.
    flight: Option<Box<Flight>>,
    /// The socket has taken bytes that it has not passed on, as TLS does.
    unflushed: bool,
    broken: bool,
    /// The last read found nothing, and the task will be woken when there is something.
    parked: bool,
}

#[derive(Debug, Default)]
struct Flight {
    /// What was read and not consumed.
    held: Vec<u8>,
    /// What was put, of which the first so many bytes are written.
    pending: Vec<u8>,
    written: usize,
}

/// Bytes to be consumed: what was held, then what was read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    source: Source,
    /// How many of them were just read.
    fresh: usize,
}

/// Where an input's bytes are.
#[derive(Debug)]
enum Source {
    /// In the wire's own buffer: some were held.
    Held(Vec<u8>),
    /// The first so many in memory of the thread.
    Thread(Vec<u8>, usize),
    /// Where they were read, by the leg's trunk or by us: they may be kept, and cost no copy.
    Lent(Bytes),
}

impl Default for Source {
    fn default() -> Self {
        Self::Held(Vec::new())
    }
}

impl Input {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// How many bytes were just read.
    pub(crate) fn fresh(&self) -> usize {
        self.fresh
    }

    /// The same, such that what is large of it may be kept.
    pub(crate) fn into_lent(self) -> Self {
        match self.source {
            Source::Thread(block, len) if len >= LENT_FROM => {
                Self { source: Source::Lent(memory::lend(block, len)), ..self }
            }
            source => Self { source, ..self },
        }
    }

    /// Where its bytes are, if they may be kept.
    pub(crate) fn lent(&self) -> Option<&Bytes> {
        match &self.source {
            Source::Lent(bytes) => Some(bytes),
            Source::Held(_) | Source::Thread(..) => None,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::Held(bytes) => bytes,
            Source::Thread(block, len) => &block[..*len],
            Source::Lent(bytes) => bytes,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Wire<S> {
    /// `held` is what was read behind the handshake.
    pub(crate) fn new(io: S, held: &[u8]) -> Self {
        let mut wire = Self { io, flight: None, unflushed: false, broken: false, parked: false };
        wire.hold(held);
        wire
    }

    /// The task has been woken: a read may find something. `anew`: by another waker than it was parked with.
    pub(crate) fn woken(&mut self, anew: bool) {
        self.parked = self.parked && !anew && finds_nothing(&self.io);
    }

    /// Whether a read would find nothing.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked
    }

    /// Whether something waits to be written.
    pub(crate) fn blocked(&self) -> bool {
        (self.unflushed || self.has_pending()) && !self.broken
    }

    /// Whether writing has failed. Reading may still bring what the peer said last.
    pub(crate) fn broken(&self) -> bool {
        self.broken
    }

    /// Writes `bytes`, or keeps what the socket does not take now.
    pub(crate) fn put(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) {
        if self.broken {
            return;
        }
        while !bytes.is_empty() && !self.has_pending() {
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) if n > 0 => bytes = &bytes[n..],
                Poll::Ready(_) => return self.breaks(),
                Poll::Pending => break,
            }
        }
        if !bytes.is_empty() {
            self.flight.get_or_insert_default().pending.extend_from_slice(bytes);
        }
        self.pass_on(cx);
    }

    /// Writes what waits. Ready with whether anything was taken; pending while the socket takes nothing.
    pub(crate) fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut took = false;
        let waited = self.unflushed;
        while let Some(flight) = self.flight.as_deref_mut().filter(|flight| !flight.pending.is_empty()) {
            match Pin::new(&mut self.io).poll_write(cx, &flight.pending[flight.written..]) {
                Poll::Ready(Ok(n)) if n > 0 => flight.written += n,
                Poll::Ready(_) => self.breaks(),
                Poll::Pending => break,
            }
            took = true;
            self.land();
        }
        if took || waited {
            self.pass_on(cx);
        }
        took || (waited && !self.unflushed)
    }

    fn has_pending(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| !flight.pending.is_empty())
    }

    /// Lets go of what is written, and of all that was in flight when nothing is.
    fn land(&mut self) {
        let Some(flight) = &mut self.flight else { return };
        if flight.written == flight.pending.len() {
            (flight.pending, flight.written) = (Vec::new(), 0);
        }
        if flight.pending.is_empty() && flight.held.is_empty() {
            self.flight = None;
        }
    }

    /// Has the socket pass on what it took. That is nothing for those that keep none.
    fn pass_on(&mut self, cx: &mut Context<'_>) {
        if self.broken {
            return;
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Ok(())) => self.unflushed = false,
            Poll::Ready(Err(_)) => self.breaks(),
            Poll::Pending => self.unflushed = true,
        }
    }

    /// How many bytes were read and not consumed.
    pub(crate) fn holds(&self) -> usize {
        self.flight.as_ref().map_or(0, |flight| flight.held.len())
    }

    /// What was read and not consumed, to be offered again.
    pub(crate) fn held(&mut self) -> Input {
        let held = self.flight.as_mut().map_or_else(Vec::new, |flight| mem::take(&mut flight.held));
        Input { source: Source::Held(held), fresh: 0 }
    }

    /// Reads once, behind what is held. An empty input: the other side has ended, or the socket is broken.
    ///
    /// The input has to be given back by [`Wire::give_back`].
    pub(crate) fn read(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if self.parked {
            return Poll::Pending;
        }
        let read = if self.holds() == 0 { self.read_fresh(cx) } else { self.read_behind(cx) };
        // A task that has used up its turn finds nothing, and is not woken by the socket.
        self.parked = read.is_pending() && has_budget_remaining();
        read
    }

    fn read_fresh(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let mut block = memory::take();
        let read = read(&mut self.io, cx, &mut block);
        match read {
            Poll::Ready(n) if n > 0 => Poll::Ready(Input { source: Source::Thread(block, n), fresh: n }),
            _ => {
                memory::give_back(block);
                read.map(|_| Input::default())
            }
        }
    }

    fn read_behind(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let held = &mut self.flight.get_or_insert_default().held;
        let before = held.len();
        let room = READ.saturating_sub(before).max(MAX_HEADER);
        held.resize(before + room, 0);
        let read = read(&mut self.io, cx, &mut held[before..]);
        let n = if let Poll::Ready(n) = read { n } else { 0 };
        held.truncate(before + n);
        read.map(|n| if n > 0 { Input { fresh: n, ..self.held() } } else { Input::default() })
    }

    /// Keeps what was not consumed of `input`.
    pub(crate) fn give_back(&mut self, input: Input, taken: usize) {
        match input.source {
            Source::Held(mut bytes) if taken < bytes.len() => {
                bytes.drain(..taken);
                self.flight.get_or_insert_default().held = bytes;
            }
            Source::Held(_) => self.land(),
            Source::Thread(block, len) => {
                self.hold(&block[taken.min(len)..len]);
                memory::give_back(block);
            }
            Source::Lent(bytes) => self.hold(&bytes[taken.min(bytes.len())..]),
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.flight.get_or_insert_default().held.extend_from_slice(bytes);
        }
    }

    /// Reads what comes before its time, up to the bound; ready when the other side has ended.
    pub(crate) fn overhear(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.holds() < BUFFER {
            let input = ready!(self.read(cx));
            if input.is_empty() {
                return Poll::Ready(());
            }
            self.give_back(input, 0);
        }
        Poll::Pending
    }

    /// Writes what waits, says that nothing more comes, and lets the socket go.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush(cx);
        if self.blocked() {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_shutdown(cx).map(drop)
    }

    /// As [`Wire::poll_end`], of a socket that is dropped right after: to close TCP says that nothing more comes.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.flush(cx);
        if self.blocked() {
            return Poll::Pending;
        }
        if tcp(&self.io).is_some() { Poll::Ready(()) } else { self.poll_end(cx) }
    }

    /// As [`Wire::poll_end`]; then reads and drops what comes until the peer ends as well. A socket that is closed with
    /// unread bytes in it resets the connection, and the reset may overtake the last words.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_end(cx));
        let mut nowhere = [0; 4096];
        while ready!(read(&mut self.io, cx, &mut nowhere)) > 0 {}
        Poll::Ready(())
    }

    fn breaks(&mut self) {
        self.broken = true;
        if let Some(flight) = &mut self.flight {
            flight.pending.truncate(flight.written);
        }
        self.land();
    }
}

impl Wire<LegStream> {
    /// Whether what is put may be kept, and not copied.
    pub(crate) fn borrows(&self) -> bool {
        matches!(self.io, LegStream::Shared(_))
    }

    /// As [`Wire::put`], without a copy of what is large and a part of `lent`, where the leg shares its connection.
    pub(crate) fn put_lent(&mut self, cx: &mut Context<'_>, bytes: &[u8], lent: Option<&Bytes>) {
        if bytes.len() < LENT_FROM || self.broken || self.has_pending() {
            return self.put(cx, bytes);
        }
        let (LegStream::Shared(leg), Some(mut lent)) =
            (&mut self.io, lent.and_then(|lent| part(lent, bytes)))
        else {
            return self.put(cx, bytes);
        };
        while !lent.is_empty() {
            match leg.poll_give(cx, &mut lent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return self.breaks(),
                Poll::Pending => return self.put(cx, &lent),
            }
        }
    }

    /// As [`Wire::read`], without a copy where the leg's trunk lends what it has read.
    pub(crate) fn read_leg(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let LegStream::Shared(leg) = &mut self.io else { return self.read(cx) };
        if self.parked {
            return Poll::Pending;
        }
        let lent = leg.poll_lend(cx);
        self.parked = lent.is_pending();
        let bytes = ready!(lent);
        let fresh = bytes.len();
        if self.holds() == 0 || fresh == 0 {
            return Poll::Ready(Input { source: Source::Lent(bytes), fresh });
        }
        self.hold(&bytes);
        Poll::Ready(Input { fresh, ..self.held() })
    }
}

/// The part of `all` that `bytes` are, if they are one.
fn part(all: &Bytes, bytes: &[u8]) -> Option<Bytes> {
    let (outer, inner) = (all.as_ptr_range(), bytes.as_ptr_range());
    (outer.start <= inner.start && inner.end <= outer.end).then(|| all.slice_ref(bytes))
}

/// Whether it is known, without asking to be woken, that a read would find nothing. A task that waits for two sockets is
/// woken for one: to read the other costs a lock and a registration that it has already.
fn finds_nothing<S: 'static>(io: &S) -> bool {
    tcp(io).is_some_and(|io| io.try_io(Interest::READABLE, || Ok(())).is_err())
}

/// The socket, if it is one of TCP and nothing else.
fn tcp<S: 'static>(io: &S) -> Option<&TcpStream> {
    let io: &dyn Any = io;
    match io.downcast_ref() {
        Some(LegStream::Tcp(io)) => Some(io),
        Some(LegStream::Shared(_) | LegStream::Local(_)) => None,
        None => io.downcast_ref(),
    }
}

/// Reads once; 0 at the end, or when the socket is broken.
fn read<S: AsyncRead + Unpin>(io: &mut S, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<usize> {
    let mut buf = ReadBuf::new(into);
    let read: io::Result<()> = ready!(Pin::new(io).poll_read(cx, &mut buf));
    Poll::Ready(read.map_or(0, |()| buf.filled().len()))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Waker, time::Duration};

    use tokio::{
        io::AsyncWriteExt,
        net::TcpListener,
        task::{coop::consume_budget, yield_now},
        time::timeout,
    };

    use super::*;

    async fn pair() -> (Wire<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, near) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Wire::new(near.unwrap().0, &[]), far.unwrap())
    }

    /// Has another task poll `read` a few times, then bytes come: it must have been woken by them.
    async fn is_woken(mut far: TcpStream, read: impl Future<Output = Input> + Send + 'static) {
        let reading = tokio::spawn(read);
        for _ in 0..4 {
            yield_now().await;
        }
        far.write_all(b"late").await.unwrap();
        let input = timeout(Duration::from_secs(10), reading).await.expect("the task is woken").unwrap();
        assert_eq!(input.bytes(), b"late");
    }

    #[tokio::test]
    async fn a_task_that_had_used_up_its_turn_is_woken() {
        let (mut wire, mut far) = pair().await;
        far.write_all(b"early").await.unwrap();
        let mut early = true;
        is_woken(
            far,
            poll_fn(move |cx| {
                wire.woken(false);
                if early {
                    early = ready!(wire.read(cx)).is_empty();
                    while has_budget_remaining() {
                        let _ = pin!(consume_budget()).poll(cx);
                    }
                }
                wire.read(cx)
            }),
        )
        .await;
    }

    #[tokio::test]
    async fn a_task_that_another_has_handed_the_socket_to_is_woken() {
        let (mut wire, far) = pair().await;
        assert!(wire.read(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut anew = true;
        is_woken(
            far,
            poll_fn(move |cx| {
                wire.woken(mem::take(&mut anew));
                wire.read(cx)
            }),
        )
        .await;
    }

    #[tokio::test]
    async fn a_socket_without_bytes_is_not_read_for_each_wake_up() {
        let (mut wire, mut far) = pair().await;
        poll_fn(|cx| {
            assert!(wire.read(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        wire.woken(false);
        assert!(wire.is_parked());
        far.write_all(b"now").await.unwrap();
        let read = poll_fn(|cx| {
            wire.woken(false);
            wire.read(cx)
        });
        assert_eq!(read.await.bytes(), b"now");
    }
}
