//! Where a conversation stands: how many messages came, and what the words between processes say of that.

use super::event::Place;
use crate::{
    frame::Control,
    proxy::{
        error::CloseReason,
        handshake::LegHeaders,
        relay::{Nonce, Ping, PingKind},
    },
};

/// The row of one client's messages.
#[derive(Debug)]
pub(super) struct Row {
    /// By which the balancer's own frames are known.
    nonce: Option<Nonce>,
    /// By which the sidecar's own are.
    mark: Nonce,
    /// The next message is not the client's.
    marked: bool,
    /// How many client messages came before the next.
    sequence: u64,
    /// How many of the next messages may be repeats.
    redelivered: u64,
}

/// What a ping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pinged {
    /// A question, which whatever came before it precedes.
    Asked,
    /// From here on the leg is the connection's. The sidecar has answered it.
    Live,
    /// A word of the sidecar's. No answer is expected.
    Noted,
}

/// How a conversation ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client is served by another node now.
    Moved,
    /// The leg was cut.
    Lost,
    /// The client, or whoever relays it, has closed.
    Closed { code: u16, reason: String },
    /// We close.
    Close { code: u16, reason: String },
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self::Close { code: reason.code(), reason: reason.reason() }
    }
}

impl Row {
    pub(super) fn new(leg: &LegHeaders, mark: Nonce) -> Self {
        let (sequence, redelivered) = (leg.sequence, leg.redelivered);
        Self { nonce: Nonce::of(leg), mark, marked: false, sequence, redelivered }
    }

    /// The place of the message that has come.
    pub(super) fn next(&mut self) -> Place {
        if std::mem::take(&mut self.marked) {
            return Place::Foreign;
        }
        self.sequence += 1;
        let redelivered = self.redelivered > 0;
        self.redelivered = self.redelivered.saturating_sub(1);
        Place::Own { number: self.sequence, redelivered }
    }

    /// The number of the message that will not come.
    pub(super) fn missing(&self) -> u64 {
        self.sequence + 1
    }

    pub(super) fn pinged(&mut self, payload: &[u8]) -> Pinged {
        if let Some(mark) = Ping::parse(payload, self.mark) {
            self.marked = mark.number == 0;
            self.sequence += mark.number;
            self.redelivered = self.redelivered.saturating_sub(mark.number);
            return Pinged::Noted;
        }
        match self.nonce.and_then(|nonce| Ping::parse(payload, nonce)) {
            // What came before the move was counted elsewhere.
            Some(Ping { kind: PingKind::Live, number }) => {
                self.sequence = number;
                Pinged::Live
            }
            _ => Pinged::Asked,
        }
    }

    pub(super) fn closed(&self, control: &Control) -> End {
        let reason = String::from_utf8_lossy(control.payload().get(2..).unwrap_or_default());
        match self.nonce.and_then(|nonce| nonce.unmark(&reason)) {
            Some(_) => End::Moved,
            None => End::Closed { code: control.code(), reason: reason.into_owned() },
        }
    }
}
