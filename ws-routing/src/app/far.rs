//! A WebSocket server within this process: the other end of a leg whose application speaks something else.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::messages::{Assembly, Fault, Incoming, Message};
use crate::frame::{self, Opcode, close_payload};

/// The other end of a leg. Reading waits for nothing else: who handles one thing after the other answers a ping when
/// all before it is done.
#[derive(Debug)]
pub(crate) struct Far<I> {
    io: I,
    held: BytesMut,
    assembly: Assembly,
}

impl<I: AsyncRead + Unpin> Far<I> {
    /// Messages may have `max_message` bytes.
    pub(crate) fn new(io: I, max_message: usize) -> Self {
        Self { io, held: BytesMut::new(), assembly: Assembly::new(max_message) }
    }

    /// The next message or control frame; `None` when the leg has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Incoming>, Fault> {
        loop {
            let (taken, incoming) = self.assembly.next(&self.held)?;
            self.held.advance(taken);
            if incoming.is_some() {
                return Ok(incoming);
            }
            if self.held.is_empty() {
                // An idle connection holds no buffer.
                self.held = BytesMut::new();
            }
            match self.io.read_buf(&mut self.held).await {
                Ok(n) if n > 0 => {}
                _ => return Ok(None),
            }
        }
    }

    /// Reads and drops what still comes, until the leg has ended.
    pub(crate) async fn drain(&mut self) {
        let mut nowhere = tokio::io::sink();
        // Whichever way it ends, it has ended.
        let _ = tokio::io::copy(&mut self.io, &mut nowhere).await;
    }
}

impl<I: AsyncWrite + Unpin> Far<I> {
    /// Sends a message to the client, once there is room for it.
    pub(crate) async fn send(&mut self, message: &Message) {
        self.put(if message.text { Opcode::Text } else { Opcode::Binary }, &message.payload).await;
    }

    /// Answers a ping.
    pub(crate) async fn pong(&mut self, payload: &[u8]) {
        self.put(Opcode::Pong, payload).await;
    }

    /// Says the last word. A code that may not travel is left out.
    pub(crate) async fn close(&mut self, code: u16, reason: &str) {
        let payload = if code == 1005 { Vec::new() } else { close_payload(code, reason) };
        self.put(Opcode::Close, &payload).await;
    }

    async fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + frame::MAX_HEADER);
        frame::write(&mut bytes, opcode, payload, None);
        // That the leg is gone is found out by reading.
        let _ = self.io.write_all(&bytes).await;
    }
}
