//! The client of the explorer's world.

use crate::frame::{self, Decoder, Kind, Opcode, close_payload};

#[derive(Clone, Debug)]
pub(super) struct Client {
    /// What it has still to send, part by part.
    pub(super) script: Vec<Part>,
    /// Sent, not read by the relay.
    pub(super) wire: Vec<u8>,
    pub(super) closed: bool,
    /// It was the first to say so.
    pub(super) began: bool,
    from_relay: Decoder,
    unread: Vec<u8>,
    /// (leg, message) as the apps' replies came.
    pub(super) words: Vec<(u8, u8)>,
    /// Pings that it has not answered.
    pub(super) pings: Vec<Vec<u8>>,
    pub(super) pongs: u8,
    /// The Close that it got.
    pub(super) close: Option<u16>,
}

/// What the client sends at once.
#[derive(Clone, Debug)]
pub(super) struct Part {
    bytes: Vec<u8>,
    /// It begins in the middle of a frame.
    torn: bool,
    /// It ends a message.
    ends: bool,
}

const MASK: [u8; 4] = [9, 8, 7, 6];

impl Client {
    pub(super) fn new(messages: u8) -> Self {
        Self {
            script: script(messages),
            wire: Vec::new(),
            closed: false,
            began: false,
            from_relay: Decoder::new(false, false, 0),
            unread: Vec::new(),
            words: Vec::new(),
            pings: Vec::new(),
            pongs: 0,
            close: None,
        }
    }

    pub(super) fn may_speak(&self) -> bool {
        !self.closed && self.close.is_none()
    }

    pub(super) fn at_frame(&self) -> bool {
        !self.script.first().is_some_and(|part| part.torn)
    }

    /// How many messages it has still to end.
    pub(super) fn unsent(&self) -> u8 {
        self.script.iter().filter(|part| part.ends).count() as u8
    }

    pub(super) fn sends(&mut self) {
        let part = self.script.remove(0);
        self.wire.extend(part.bytes);
    }

    pub(super) fn asks(&mut self) {
        frame::write(&mut self.wire, Opcode::Ping, b"?", Some(MASK));
    }

    pub(super) fn answers(&mut self) {
        if let Some(latest) = self.pings.pop() {
            frame::write(&mut self.wire, Opcode::Pong, &latest, Some(MASK));
        }
        self.pings.clear();
    }

    pub(super) fn closes(&mut self) {
        self.closed = true;
        self.began = self.close.is_none();
        self.pings.clear();
        frame::write(&mut self.wire, Opcode::Close, &close_payload(1000, ""), Some(MASK));
    }

    /// Bytes arrive.
    pub(super) fn gets(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.unread.extend_from_slice(bytes);
        loop {
            let bytes = std::mem::take(&mut self.unread);
            let unit = self.from_relay.next(&bytes).map_err(|violation| violation.to_string())?;
            let Some(unit) = unit else {
                self.unread = bytes;
                return Ok(());
            };
            match unit.kind {
                _ if self.close.is_some() => return Err("something follows the Close".into()),
                Kind::Data { .. } => self.words.push((bytes[2], bytes[3])),
                Kind::Control(control) if control.opcode == Opcode::Pong => self.pongs += 1,
                Kind::Control(control) if control.opcode == Opcode::Close => {
                    self.close = Some(control.code());
                    self.pings.clear();
                }
                Kind::Control(control) if !self.closed => self.pings.push(control.payload().to_vec()),
                Kind::Control(_) => {}
            }
            self.unread = bytes[unit.len..].to_vec();
        }
    }
}

/// The client's messages in parts: the first whole, the second torn in the middle of its frame, the third in two
/// fragments of which the first comes along with the second message's rest, and so on.
fn script(messages: u8) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for n in 1..=messages {
        match n % 3 {
            1 => parts.push(Part { bytes: client_frame(0x82, &[0, n]), torn: false, ends: true }),
            2 => {
                let mut first = client_frame(0x82, &[0, 0, 0, 0, n]);
                let rest = first.split_off(8);
                parts.push(Part { bytes: first, torn: false, ends: false });
                parts.push(Part { bytes: rest, torn: true, ends: true });
            }
            _ => {
                if let Some(last) = parts.last_mut() {
                    last.bytes.extend(client_frame(0x02, &[0, 0]));
                }
                parts.push(Part { bytes: client_frame(0x80, &[n]), torn: false, ends: true });
            }
        }
    }
    parts
}

/// A frame with a mask of zeros, so that its payload is readable as it is.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}
