//! What the API puts between the messages of a connection: never inside one, and the app's own bytes stay as they are.
//!
//! With permessage-deflate agreed, an uncompressed message between compressed ones is legal (RFC 7692 §6): the
//! compressor's window does not see it.

use std::time::Duration;

use super::{
    mailbox::Phase,
    relay::{Outputs, Session},
};
use crate::{
    frame::{self, Opcode, close_payload},
    proxy::relay::{Ping, PingKind, control},
};

impl Session {
    /// Where this leg stands, as far as the API is concerned.
    pub(crate) fn phase(&self) -> Phase {
        match self.is_live() && self.closing.until.is_none() {
            true => Phase::Live,
            false if self.is_waiting() => Phase::Waiting,
            false => Phase::Over,
        }
    }

    /// Whether a message may be put towards the client now.
    pub(crate) fn takes_to_client(&self) -> bool {
        self.phase() == Phase::Live && self.from_app.at_message()
    }

    /// Whether a message may be put towards the app now. Not while the app is asked whether it has said all.
    pub(crate) fn takes_to_app(&self) -> bool {
        self.phase() == Phase::Live && self.settling.is_none() && self.from_leg.at_message()
    }

    /// Puts a whole frame towards the client.
    pub(crate) fn put_to_client(&mut self, frame: &[u8], out: &mut impl Outputs) {
        self.messages.to_client += 1;
        out.leg(frame);
    }

    /// Asks the client's WebSocket stack whether it has got what was put so far.
    pub(crate) fn ask_receipt(&mut self, number: u64, out: &mut impl Outputs) {
        let payload = self.asked_client.own(PingKind::Confirm, number);
        out.leg(&control(Opcode::Ping, &payload, None));
    }

    /// Up to which receipt the client has answered, if that is news.
    pub(crate) fn take_confirmed(&mut self) -> Option<u64> {
        self.confirmed.take()
    }

    /// Puts a message towards the app, as if the client had sent it.
    pub(crate) fn put_to_app(&mut self, text: bool, payload: &[u8], out: &mut impl Outputs) {
        self.messages.to_app += 1;
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        let mut bytes = Vec::with_capacity(payload.len() + 3 * frame::MAX_HEADER);
        if let Some(within) = self.within {
            let mark = Ping { kind: PingKind::Keepalive, number: 0 }.payload(within.mark);
            frame::write(&mut bytes, Opcode::Ping, &mark, Some(self.mask()));
        }
        frame::write(&mut bytes, opcode, payload, Some(self.mask()));
        out.app(&bytes);
    }

    /// Closes both sides with a code and a reason of the API's caller.
    pub(crate) fn close_with(&mut self, now: Duration, code: u16, reason: &str, out: &mut impl Outputs) {
        self.closing.begin(now, code);
        out.leg(&control(Opcode::Close, &close_payload(code, reason), None));
        if self.from_leg.at_frame() {
            let payload = close_payload(code, reason);
            out.app(&control(Opcode::Close, &payload, Some(self.mask())));
        }
    }
}
