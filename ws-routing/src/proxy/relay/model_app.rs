//! The apps of the explorer's world, and what its client sends.

use super::model::Step;
use crate::frame::{self, Decoder, Kind, Opcode, close_payload};

/// How often each thing may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) messages: u8,
    pub(super) owners: u8,
    pub(super) crashes: u8,
    pub(super) dial_failures: u8,
    pub(super) pings: u8,
    pub(super) client_closes: bool,
    pub(super) app_close: Option<u16>,
}

#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) node: u8,
    pub(super) library: Decoder,
    pub(super) unread: Vec<u8>,
    /// Read by the library, not handled.
    pub(super) inbox: Vec<u8>,
    pub(super) pings: Vec<Vec<u8>>,
    pub(super) says: Vec<u8>,
    pub(super) closed: bool,
    pub(super) lost: bool,
    /// Messages that may be repeats.
    pub(super) announced: u64,
}

impl App {
    pub(super) fn steps(&self, leg: usize, budget: &Budget, current: bool, steps: &mut Vec<Step>) {
        if self.lost {
            return;
        }
        if !self.unread.is_empty() {
            steps.push(Step::Reads(leg));
        }
        if !self.pings.is_empty() && !self.closed {
            steps.push(Step::Pongs(leg));
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
        if !self.unread.is_empty() && !self.lost {
            steps.push(Step::Reads(leg));
        } else if !self.inbox.is_empty() {
            steps.push(Step::Handles(leg));
        }
    }

    pub(super) fn reads(&mut self) -> Result<(), String> {
        let bytes = std::mem::take(&mut self.unread);
        let mut at = 0;
        while let Some(unit) = self.library.next(&bytes[at..]).map_err(|v| format!("the app sees: {v}"))? {
            let piece = &bytes[at..at + unit.len];
            at += unit.len;
            match unit.kind {
                // The last payload byte of a message is its number, unmasked.
                Kind::Data { ends_message: true } => self.inbox.push(piece[piece.len() - 1]),
                Kind::Data { .. } => {}
                Kind::Control(control) if control.opcode == Opcode::Ping => {
                    self.pings.push(control.payload().to_vec());
                }
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

    pub(super) fn pongs(&mut self) {
        if let Some(latest) = self.pings.pop() {
            frame::write(&mut self.says, Opcode::Pong, &latest, None);
        }
        self.pings.clear();
    }

    pub(super) fn reply(&mut self, leg: u8, n: u8) {
        if !self.closed {
            frame::write(&mut self.says, Opcode::Binary, &[leg, n], None);
        }
    }

    pub(super) fn closes(&mut self, code: u16) {
        self.closed = true;
        frame::write(&mut self.says, Opcode::Close, &close_payload(code, ""), None);
    }
}

/// What the client sends at once.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// It begins in the middle of a frame.
    pub(super) torn: bool,
    /// It ends a message.
    pub(super) ends: bool,
}

/// The client's messages in parts: the first whole, the second torn in the middle of its frame, the third in two
/// fragments, and so on.
pub(super) fn script(messages: u8) -> Vec<Part> {
    let mut parts = Vec::new();
    for n in 1..=messages {
        let two = match n % 3 {
            1 => [client_frame(0x82, &[0, n]), Vec::new()],
            2 => {
                let mut frame = client_frame(0x82, &[0, 0, 0, 0, n]);
                let rest = frame.split_off(8);
                [frame, rest]
            }
            _ => [client_frame(0x02, &[0, 0]), client_frame(0x80, &[n])],
        };
        let [first, second] = two;
        let alone = second.is_empty();
        parts.push(Part { bytes: first, torn: false, ends: alone });
        if !alone {
            parts.push(Part { bytes: second, torn: n % 3 == 2, ends: true });
        }
    }
    parts
}

/// A frame with a mask of zeros, so that its payload is readable as it is.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}
