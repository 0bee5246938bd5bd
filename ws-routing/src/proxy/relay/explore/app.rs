//! The apps of the explorer's world.
//!
//! An app has two layers, as most WebSocket libraries do: the library reads frames as they come, answers a Close at once
//! and pings whenever it likes, only the latest of several, or none; the application handles one message after another
//! behind it, and what it replies after the Close is lost.

use super::{budget::Budget, world::Step};
use crate::{
    frame::{self, Decoder, Kind, Opcode, close_payload},
    proxy::relay::{Nonce, Ping},
};

#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) node: u8,
    pub(super) nonce: Nonce,
    /// A sidecar before it answers pings that do not go far.
    sidecar: bool,
    library: Decoder,
    pub(super) unread: Vec<u8>,
    /// The library does not read.
    stalled: bool,
    /// Read by the library, not handled.
    pub(super) inbox: Vec<u8>,
    pub(super) pings: Vec<Vec<u8>>,
    pub(super) says: Vec<u8>,
    pub(super) closed: bool,
    pub(super) lost: bool,
    /// Its leg was given up while it lived.
    pub(super) zombie: bool,
    /// Its sidecar is told that it is left.
    pub(super) fenced: bool,
    /// Messages that may be repeats.
    pub(super) announced: u64,
}

impl App {
    pub(super) fn new(node: u8, nonce: Nonce, sidecar: bool, announced: u64) -> Self {
        Self {
            node,
            nonce,
            sidecar,
            library: Decoder::new(true, false, 0),
            unread: Vec::new(),
            stalled: false,
            inbox: Vec::new(),
            pings: Vec::new(),
            says: Vec::new(),
            closed: false,
            lost: false,
            zombie: false,
            fenced: false,
            announced,
        }
    }

    pub(super) fn steps(&self, leg: usize, budget: &Budget, current: bool, steps: &mut Vec<Step>) {
        if self.lost {
            return;
        }
        if self.stalled {
            steps.push(Step::Reads(leg));
        } else if current && budget.stalls > 0 {
            steps.push(Step::Stalls(leg));
        }
        if self.owes_pong() {
            steps.push(Step::Pongs(leg));
            if budget.pongs_lost > 0 {
                steps.push(Step::Forgets(leg));
            }
        }
        if !self.inbox.is_empty() {
            steps.push(Step::Handles(leg));
        }
        if let Some(code) = budget.app_close.filter(|_| current && !self.closed) {
            steps.push(Step::AppCloses(leg, code));
        }
    }

    /// What an app still does when the client is gone.
    pub(super) fn afterwards(&self, leg: usize, steps: &mut Vec<Step>) {
        if self.stalled && !self.lost {
            steps.push(Step::Reads(leg));
        } else if !self.inbox.is_empty() {
            steps.push(Step::Handles(leg));
        }
    }

    fn owes_pong(&self) -> bool {
        !self.pings.is_empty() && !self.closed && !self.lost
    }

    /// Whether it has not done yet what a library does at once.
    pub(super) fn is_late(&self) -> bool {
        self.owes_pong() || (!self.unread.is_empty() && !self.lost)
    }

    /// Bytes arrive.
    pub(super) fn gets(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.unread.extend_from_slice(bytes);
        if self.stalled { Ok(()) } else { self.reads() }
    }

    pub(super) fn stalls(&mut self) {
        self.stalled = true;
    }

    pub(super) fn reads(&mut self) -> Result<(), String> {
        self.stalled = false;
        let bytes = std::mem::take(&mut self.unread);
        let mut at = 0;
        while let Some(unit) = self.library.next(&bytes[at..]).map_err(|v| format!("at the app: {v}"))? {
            let piece = &bytes[at..at + unit.len];
            at += unit.len;
            match unit.kind {
                // The last payload byte of a message is its number, unmasked.
                Kind::Data { ends_message: true } => self.inbox.push(piece[piece.len() - 1]),
                Kind::Data { .. } => {}
                Kind::Control(control) if control.opcode == Opcode::Ping => self.pinged(control.payload()),
                Kind::Control(control) if control.opcode == Opcode::Close => {
                    if !self.closed {
                        self.closes(control.code());
                    }
                }
                Kind::Control(_) => {}
            }
        }
        self.unread = bytes[at..].to_vec();
        Ok(())
    }

    fn pinged(&mut self, payload: &[u8]) {
        let near = Ping::parse(payload, self.nonce).is_some_and(|ping| !ping.kind.goes_far());
        if self.sidecar && near {
            frame::write(&mut self.says, Opcode::Pong, payload, None);
        } else {
            self.pings.push(payload.to_vec());
        }
    }

    pub(super) fn pongs(&mut self) {
        if let Some(latest) = self.pings.pop() {
            frame::write(&mut self.says, Opcode::Pong, &latest, None);
        }
        self.pings.clear();
    }

    pub(super) fn greets(&mut self, leg: u8) {
        frame::write(&mut self.says, Opcode::Binary, &[leg, 0], None);
    }

    pub(super) fn reply(&mut self, leg: u8, n: u8) {
        if !self.closed && !self.zombie {
            frame::write(&mut self.says, Opcode::Binary, &[leg, n], None);
        }
    }

    pub(super) fn closes(&mut self, code: u16) {
        self.closed = true;
        self.pings.clear();
        frame::write(&mut self.says, Opcode::Close, &close_payload(code, ""), None);
    }

    /// It dies, in the middle of what it says.
    pub(super) fn crash(&mut self) {
        self.lost = true;
        self.unread.clear();
        self.inbox.clear();
        self.pings.clear();
        self.says.truncate(self.says.len() / 2);
    }

    /// The relay has let go of its leg: nobody hears it any more.
    pub(super) fn left(&mut self) {
        self.says.clear();
        self.pings.clear();
        if self.lost {
            *self = Self { lost: true, ..Self::new(0, Nonce(0), false, 0) };
        }
    }
}
