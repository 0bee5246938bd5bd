//! Many legs on one connection, without the connection: bytes in, bytes out, and who is to be woken.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io, mem,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::{
    WINDOW,
    frame::{HEADER, Header, Kind, MAX_LEN},
    output::Output,
};
use crate::proxy::memory::LENT_FROM;

/// So many bytes may wait for the socket; then legs have to wait.
const BACKLOG: usize = 256 * 1024;

/// So many bytes wait only if the far end provokes answers and takes none: all that the legs of one who keeps to the
/// protocol can make wait is the backlog, and a few headers for each.
const UNTAKEN: usize = 8 * 1024 * 1024;

/// The legs of one trunk.
#[derive(Debug)]
pub(super) struct Mux {
    legs: HashMap<u32, Leg, BuildHasherDefault<Spread>>,
    /// What waits to be written.
    out: Output,
    /// How many bytes were put into `out` so far, and how many of them the socket has taken.
    put: u64,
    sent: u64,
    /// Whether anything in `out` must not wait for more to be written with it.
    pressing: bool,
    /// Whoever writes it.
    carrier: Option<Waker>,
    /// Legs whose writer waits for the socket.
    waiting: Vec<u32>,
    /// The number of the next leg, and how many the far end may have open.
    next: u32,
    most: usize,
    /// The frame whose bytes are being read: its leg, and how many are missing.
    within: Option<(u32, usize)>,
    /// Legs that hold a part of the last read's buffer.
    holding: Vec<u32>,
    over: bool,
}

#[derive(Debug, Default)]
struct Leg {
    /// What was received and not read: a part of the read's buffer, then what came before that was read.
    first: Bytes,
    rest: BytesMut,
    /// How many bytes the far end may send before it is told of more, and how many were read since it was.
    room: usize,
    eaten: usize,
    /// It was told of more by what was put up to here.
    told: u64,
    /// The far end says nothing more; it takes nothing more.
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    /// How many bytes the far end takes.
    credit: usize,
    writer: Option<Waker>,
    waits: bool,
    /// We say nothing more; what was put up to here has to be written by then.
    finished: Option<u64>,
}

impl Mux {
    /// `most`: how many legs the far end may have open at once.
    pub(super) fn new(most: usize) -> Self {
        Self {
            legs: HashMap::default(),
            out: Output::default(),
            put: 0,
            sent: 0,
            pressing: false,
            carrier: None,
            waiting: Vec::new(),
            next: 0,
            most,
            within: None,
            holding: Vec::new(),
            over: false,
        }
    }

    /// How many legs there are.
    pub(super) fn len(&self) -> usize {
        self.legs.len()
    }

    /// Whether the trunk takes no new legs: it is gone, or its numbers are used up.
    pub(super) fn is_over(&self) -> bool {
        self.over || self.next == u32::MAX
    }

    /// Opens a leg; its number.
    pub(super) fn open(&mut self) -> Option<u32> {
        if self.is_over() {
            return None;
        }
        let leg = self.next;
        self.next += 1;
        self.legs.insert(leg, Leg::new());
        self.header(leg, Kind::Open, 0);
        self.pressing = true;
        Some(leg)
    }

    /// Takes bytes of a leg, as many as the far end and the backlog allow. They go out with those of all others who have
    /// something to say, large ones too: a write of its own wakes the far end for one message alone.
    pub(super) fn write(&mut self, leg: u32, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = ready!(self.admit(leg, bytes.len(), cx))?;
        self.header(leg, Kind::Data, len);
        self.out.copy(&bytes[..len]);
        self.put += len as u64;
        Poll::Ready(Ok(len))
    }

    /// As [`Mux::write`], without a copy of what is large: what was taken is gone from `bytes`.
    pub(super) fn give(&mut self, leg: u32, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let len = ready!(self.admit(leg, bytes.len(), cx))?;
        self.header(leg, Kind::Data, len);
        let taken = bytes.split_to(len);
        // A few bytes, where the window ends, are not worth all the memory that they were read into.
        if len < LENT_FROM {
            self.out.copy(&taken)
        } else {
            self.out.lend(taken)
        }
        self.put += len as u64;
        Poll::Ready(Ok(()))
    }

    /// How many of so many bytes may be put now, which makes them pressing.
    fn admit(&mut self, leg: u32, len: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let full = self.out.len() >= BACKLOG;
        let Some(state) = self.legs.get_mut(&leg).filter(|state| !state.reset && !self.over) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let len = len.min(state.credit).min(MAX_LEN);
        // What fills it need not have pressed until now.
        self.pressing |= full;
        if full || len == 0 {
            wakes(&mut state.writer, cx);
            if full && !mem::replace(&mut state.waits, true) {
                self.waiting.push(leg);
            }
            return Poll::Pending;
        }
        state.credit -= len;
        self.pressing = true;
        Poll::Ready(Ok(len))
    }

    /// What a leg has received next, as it was read; nothing at its end.
    pub(super) fn lend(&mut self, leg: u32, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Some(state) = self.legs.get_mut(&leg) else { return Poll::Ready(Bytes::new()) };
        let bytes = state.next();
        if bytes.is_empty() && !state.ended {
            wakes(&mut state.reader, cx);
            return Poll::Pending;
        }
        self.grant(leg, bytes.len());
        Poll::Ready(bytes)
    }

    /// Reads what a leg has received; nothing at its end.
    pub(super) fn read(&mut self, leg: u32, into: &mut ReadBuf<'_>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(state) = self.legs.get_mut(&leg) else { return Poll::Ready(()) };
        let before = into.remaining();
        while into.remaining() > 0 {
            let mut bytes = state.next();
            if bytes.is_empty() {
                break;
            }
            into.put_slice(&bytes.split_to(bytes.len().min(into.remaining())));
            state.first = bytes;
        }
        let len = before - into.remaining();
        if len == 0 && !state.ended && before > 0 {
            wakes(&mut state.reader, cx);
            return Poll::Pending;
        }
        self.grant(leg, len);
        Poll::Ready(())
    }

    /// Notes that so many bytes were read, and lets the far end send as many more: from a quarter of the window on when
    /// something is written anyway, from half of it on at once.
    fn grant(&mut self, leg: u32, len: usize) {
        let Some(state) = self.legs.get_mut(&leg) else { return };
        state.eaten += len;
        if state.eaten < WINDOW / 4 || state.ended {
            return;
        }
        let pressing = state.eaten >= WINDOW / 2 || state.told > self.sent;
        let more = mem::take(&mut state.eaten);
        state.room += more;
        state.told = self.put + HEADER as u64;
        self.header(leg, Kind::Window, more);
        self.pressing |= pressing;
    }

    /// Says that nothing more comes on a leg; ready when all that was put on it is with the socket.
    pub(super) fn finish(&mut self, leg: u32, cx: &mut Context<'_>) -> Poll<()> {
        let Some(state) = self.legs.get_mut(&leg).filter(|state| !state.reset && !self.over) else {
            return Poll::Ready(());
        };
        if state.finished.is_none() {
            state.finished = Some(self.put + HEADER as u64);
            self.header(leg, Kind::End, 0);
            self.pressing = true;
        }
        let Some(state) = self.legs.get_mut(&leg) else { return Poll::Ready(()) };
        if state.finished.is_some_and(|all| all <= self.sent) {
            return Poll::Ready(());
        }
        wakes(&mut state.writer, cx);
        if !mem::replace(&mut state.waits, true) {
            self.waiting.push(leg);
        }
        Poll::Pending
    }

    /// Lets a leg go.
    pub(super) fn drop_leg(&mut self, leg: u32) {
        let Some(state) = self.legs.remove(&leg) else { return };
        let said = state.finished.is_some() && state.ended;
        if !said && !state.reset && !self.over {
            self.header(leg, Kind::Reset, 0);
            self.pressing = true;
        }
    }

    /// Whoever has to be woken since there is something to write.
    pub(super) fn carrier(&mut self) -> Option<Waker> {
        if self.pressing { self.carrier.take() } else { None }
    }

    /// Takes what is to be written, if anything presses.
    pub(super) fn take(&mut self, into: &mut Output) {
        if mem::take(&mut self.pressing) {
            mem::swap(&mut self.out, into);
        }
    }

    /// Whether [`Mux::take`] has something; else `cx` is woken as soon as it has.
    pub(super) fn has_output(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.pressing {
            self.carrier = Some(cx.waker().clone());
        }
        self.pressing
    }

    /// What was taken last is with the socket: whoever waited for that is put into `wake`.
    pub(super) fn sent(&mut self, len: usize, wake: &mut Vec<Waker>) {
        self.sent += len as u64;
        for leg in mem::take(&mut self.waiting) {
            if let Some(state) = self.legs.get_mut(&leg) {
                state.waits = false;
                wake.extend(state.writer.take());
            }
        }
    }

    /// Consumes what the far end has sent. Legs that it has opened are put into `opened`, whoever is to read or may
    /// write again into `wake`.
    pub(super) fn receive(
        &mut self,
        input: &mut BytesMut,
        opened: &mut Vec<u32>,
        wake: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        if self.out.len() > UNTAKEN {
            return Err(Violation("takes none of the answers that it asks for"));
        }
        self.compact();
        loop {
            if let Some((leg, missing)) = self.within {
                // What fits into a window is taken whole: its reader could do nothing with a part of a message but copy
                // it. A leg that was let go may be sent more.
                if input.is_empty() || (input.len() < missing && missing <= WINDOW) {
                    return Ok(());
                }
                let bytes = input.split_to(missing.min(input.len())).freeze();
                self.within = Some((leg, missing - bytes.len())).filter(|(_, missing)| *missing > 0);
                self.data(leg, bytes, wake)?;
                continue;
            }
            let Some(header) = Header::decode(input).map_err(|_| Violation("an unknown kind of frame"))?
            else {
                return Ok(());
            };
            input.advance(HEADER);
            self.control(header, opened, wake)?;
        }
    }

    /// The connection is gone, and all legs with it.
    pub(super) fn end(&mut self, wake: &mut Vec<Waker>) {
        self.over = true;
        for state in self.legs.values_mut() {
            state.ended = true;
            wake.extend(state.reader.take());
            wake.extend(state.writer.take());
        }
    }

    fn control(
        &mut self,
        Header { leg, kind, len }: Header,
        opened: &mut Vec<u32>,
        wake: &mut Vec<Waker>,
    ) -> Result<(), Violation> {
        let len = len as usize;
        match kind {
            Kind::Data => self.within = (len > 0).then_some((leg, len)),
            Kind::Open => self.opened(leg, opened)?,
            Kind::Window => {
                let Some(state) = self.legs.get_mut(&leg) else { return Ok(()) };
                state.credit += len;
                if state.credit > WINDOW {
                    return Err(Violation("a window beyond what was agreed"));
                }
                if !state.waits {
                    wake.extend(state.writer.take());
                }
            }
            Kind::End | Kind::Reset => {
                let Some(state) = self.legs.get_mut(&leg) else { return Ok(()) };
                state.ended = true;
                state.reset |= kind == Kind::Reset;
                wake.extend(state.reader.take());
                if state.reset {
                    wake.extend(state.writer.take());
                }
            }
        }
        Ok(())
    }

    fn opened(&mut self, leg: u32, opened: &mut Vec<u32>) -> Result<(), Violation> {
        if self.most == 0 || leg < self.next || leg == u32::MAX {
            return Err(Violation("a leg that may not be opened"));
        }
        self.next = leg + 1;
        if self.legs.len() >= self.most {
            self.header(leg, Kind::Reset, 0);
            self.pressing = true;
            return Ok(());
        }
        self.legs.insert(leg, Leg::new());
        opened.push(leg);
        Ok(())
    }

    fn data(&mut self, leg: u32, bytes: Bytes, wake: &mut Vec<Waker>) -> Result<(), Violation> {
        // One that was let go: the far end does not know it yet.
        let Some(state) = self.legs.get_mut(&leg) else { return Ok(()) };
        if state.ended {
            return Err(Violation("bytes behind a leg's end"));
        }
        let Some(room) = state.room.checked_sub(bytes.len()) else {
            return Err(Violation("more bytes than the window allows"));
        };
        state.room = room;
        if state.first.is_empty() && state.rest.is_empty() {
            state.first = bytes;
            self.holding.push(leg);
        } else {
            state.rest.extend_from_slice(&bytes);
        }
        wake.extend(state.reader.take());
        Ok(())
    }

    /// Has legs that were not read since the last call keep what is theirs, and not a whole read's buffer.
    fn compact(&mut self) {
        for leg in self.holding.drain(..) {
            if let Some(state) = self.legs.get_mut(&leg)
                && !state.first.is_empty()
            {
                state.first = Bytes::copy_from_slice(&state.first);
            }
        }
    }

    fn header(&mut self, leg: u32, kind: Kind, len: usize) {
        // No caller has more than MAX_LEN.
        let len = len as u32;
        self.out.copy(&Header { leg, kind, len }.encode());
        self.put += HEADER as u64;
    }
}

impl Leg {
    fn new() -> Self {
        Self { room: WINDOW, credit: WINDOW, ..Self::default() }
    }

    /// Takes what comes next of what was received.
    fn next(&mut self) -> Bytes {
        if self.first.is_empty() { mem::take(&mut self.rest).freeze() } else { mem::take(&mut self.first) }
    }
}

/// Has `who` be the task, which it often is already: to look costs less than to count one waker more.
fn wakes(who: &mut Option<Waker>, cx: &Context<'_>) {
    if !who.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *who = Some(cx.waker().clone());
    }
}

/// The far end does not keep to the protocol: the trunk is cut.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Violation(&'static str);

/// Spreads numbers that count upwards: they are ours, nobody can choose them to collide.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
