//! A relay that only copies: `bare LISTEN UPSTREAM [UPSTREAM ...]`. Each connection gets one of its own to the next upstream,
//! and every byte that comes on either goes out on the other.
//!
//! It routes nothing, keeps no state and looks at nothing, on one thread and the kernel's bare interface: what a
//! WebSocket proxy with a connection for each client has to pay at least. [`compare`](../compare/index.html) shows it
//! beside the others.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context as _, Result};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
};

/// How much is read at once: a frame of 16 KiB with its header, as everywhere in the comparison.
const READ: usize = 32 * 1024;

/// How many events one wait brings.
const EVENTS: usize = 512;

/// What the listener's events are known by.
const LISTENER: u64 = u64::MAX;

fn main() -> Result<()> {
    let addrs: Vec<SocketAddr> =
        std::env::args().skip(1).map(|arg| arg.parse().context(arg)).collect::<Result<_>>()?;
    let (listen, upstreams) = addrs.split_first().context("bare LISTEN UPSTREAM [UPSTREAM ...]")?;
    Relay::new(*listen, upstreams.to_vec())?.run()
}

struct Relay {
    epoll: rustix::fd::OwnedFd,
    listener: TcpListener,
    upstreams: Vec<SocketAddr>,
    /// Both ends of connection `n` are at `2n` and `2n + 1`.
    ends: Vec<Option<End>>,
    buffer: Vec<u8>,
}

struct End {
    io: TcpStream,
    /// What this end has not taken yet.
    pending: Vec<u8>,
    /// Nothing comes behind what it has.
    over: bool,
}

impl Relay {
    fn new(listen: SocketAddr, upstreams: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { epoll, listener, upstreams, ends: Vec::new(), buffer: vec![0; READ] })
    }

    fn run(mut self) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                match data.u64() {
                    LISTENER => self.accept()?,
                    at => self.serve(at as usize, flags.contains(EventFlags::RDHUP)),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        let (client, _) = match self.listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            accepted => accepted?,
        };
        let upstream = TcpStream::connect(self.upstreams[self.ends.len() / 2 % self.upstreams.len()])?;
        for io in [client, upstream] {
            io.set_nonblocking(true)?;
            io.set_nodelay(true)?;
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &io, EventData::new_u64(self.ends.len() as u64), interest)?;
            self.ends.push(Some(End { io, pending: Vec::new(), over: false }));
        }
        Ok(())
    }

    /// Does what the end at `at` has got ready for. A connection of which either end fails or is over is closed.
    fn serve(&mut self, at: usize, over: bool) {
        if let Some(end) = &mut self.ends[at] {
            end.over |= over;
        }
        if self.copy(at).is_err() {
            self.ends[at] = None;
            self.ends[at ^ 1] = None;
        }
    }

    fn copy(&mut self, at: usize) -> io::Result<()> {
        let Some(mut end) = self.ends[at].take() else { return Ok(()) };
        let flushed = end.flush();
        let mut other = self.ends[at ^ 1].take();
        let copied = other.as_mut().map_or(Ok(()), |other| end.copy_to(other, &mut self.buffer));
        // What this end takes no longer held up the other.
        let back = other.as_mut().filter(|_| flushed.as_ref().is_ok_and(|took| *took));
        let back = back.map_or(Ok(()), |other| other.copy_to(&mut end, &mut self.buffer));
        (self.ends[at], self.ends[at ^ 1]) = (Some(end), other);
        flushed.and(copied).and(back)
    }
}

impl End {
    /// Writes what waits; whether anything did and nothing does any more.
    fn flush(&mut self) -> io::Result<bool> {
        let waited = !self.pending.is_empty();
        let pending = std::mem::take(&mut self.pending);
        self.put(&pending)?;
        Ok(waited && self.pending.is_empty())
    }

    /// Copies what this end has to `other` while that takes it.
    fn copy_to(&mut self, other: &mut Self, buffer: &mut [u8]) -> io::Result<()> {
        while other.pending.is_empty() {
            let n = match self.io.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                read => read?,
            };
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            other.put(&buffer[..n])?;
            // Edges tell of what comes behind it.
            if n < buffer.len() && !self.over {
                return Ok(());
            }
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.io.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
