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

    /// Whether the app is being asked whether it has said all, and told nothing new meanwhile.
    pub(crate) fn is_settling(&self) -> bool {
        self.settling.is_some()
    }

    /// Whether a message may be put towards the client now.
    pub(crate) fn takes_to_client(&self) -> bool {
        self.phase() == Phase::Live && self.from_app.at_message()
    }

    /// Whether a message may be put towards the app now.
    pub(crate) fn takes_to_app(&self) -> bool {
        self.phase() == Phase::Live && !self.is_settling() && self.from_leg.at_message()
    }

    /// Puts a message towards the client.
    pub(crate) fn put_to_client(&mut self, text: bool, payload: &[u8], out: &mut impl Outputs) {
        /// What is longer is not copied to go with its header.
        const TOGETHER: usize = 4096;
        self.messages.to_client += 1;
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        if payload.len() <= TOGETHER {
            let mut frame = Vec::with_capacity(payload.len() + frame::MAX_HEADER);
            frame::write(&mut frame, opcode, payload, None);
            return out.leg(&frame);
        }
        let mut header = Vec::with_capacity(frame::MAX_HEADER);
        frame::write_header(&mut header, opcode, payload.len(), None);
        out.leg(&header);
        out.leg(payload);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::write,
        proxy::relay::{Nonce, Ping, Settings},
        session::shape::Shape,
    };

    #[derive(Default)]
    struct Heard {
        leg: Vec<u8>,
        app: Vec<u8>,
    }

    impl Outputs for Heard {
        fn leg(&mut self, bytes: &[u8]) {
            self.leg.extend_from_slice(bytes);
        }

        fn app(&mut self, bytes: &[u8]) {
            self.app.extend_from_slice(bytes);
        }
    }

    const NOW: Duration = Duration::ZERO;
    const LEG: Nonce = Nonce(7);
    const MASK: Option<[u8; 4]> = Some([0; 4]);

    fn session(compressed: bool, moved_in: bool) -> Session {
        let shape = Shape { compressed, moved_in, within: None };
        Session::new(NOW, &Settings::default(), Some(LEG), Nonce(8), shape)
    }

    fn ping(session: &mut Session, kind: PingKind, out: &mut Heard) {
        let mut bytes = Vec::new();
        write(&mut bytes, Opcode::Ping, &Ping { kind, number: 0 }.payload(LEG), MASK);
        session.leg_bytes(NOW, &bytes, out);
    }

    #[test]
    fn nothing_is_put_inside_a_message_of_the_app() {
        // A compressed message in two frames, with a ping between them, as it comes byte by byte.
        let bytes = [&[0x41, 2, b'a', b'b'][..], &[0x89, 1, b'p'], &[0x80, 1, b'c']].concat();
        let (mut session, mut out) = (session(true, false), Heard::default());
        let mut held = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            let begun = session.takes_to_client();
            assert_eq!(begun, out.leg.is_empty(), "at byte {at}");
            held.push(*byte);
            let taken = session.app_bytes(NOW, &held, &mut out);
            held.drain(..taken);
        }
        assert!(session.takes_to_client());
        session.put_to_client(true, b"x", &mut out);
        assert_eq!(out.leg, [&bytes[..], &[0x81, 1, b'x']].concat(), "the app's own bytes stay as they are");
    }

    #[test]
    fn a_leg_that_is_not_live_takes_nothing_until_it_is() {
        let (mut session, mut out) = (session(false, true), Heard::default());
        assert_eq!(session.phase(), Phase::Waiting);
        assert!(!session.takes_to_client() && !session.takes_to_app());
        ping(&mut session, PingKind::Live, &mut out);
        assert_eq!(session.phase(), Phase::Live);
        assert!(session.takes_to_client() && session.takes_to_app());
    }

    #[test]
    fn the_app_is_left_alone_from_the_settle_ping_on() {
        let (mut session, mut out) = (session(false, false), Heard::default());
        ping(&mut session, PingKind::Settle, &mut out);
        assert!(session.takes_to_client() && !session.takes_to_app());
        session.leg_bytes(NOW, &[0x81, 0x80, 0, 0, 0, 0], &mut out);
        assert!(session.takes_to_app(), "the client is read again: the move was put off");
        ping(&mut session, PingKind::Settle, &mut out);
        session.tick(Duration::from_secs(10), Default::default(), &mut out);
        assert!(session.takes_to_app(), "no Close has come");
    }

    #[test]
    fn the_moves_close_says_where_the_connection_is() {
        let (mut session, mut out) = (session(false, false), Heard::default());
        let mut bytes = Vec::new();
        let reason = LEG.mark("moved to 10.0.0.2:7400");
        write(&mut bytes, Opcode::Close, &close_payload(1001, &reason), MASK);
        session.leg_bytes(NOW, &bytes, &mut out);
        assert_eq!(session.phase(), Phase::Over);
        assert_eq!(session.moved_to().map(ToString::to_string).as_deref(), Some("10.0.0.2:7400"));
    }

    #[test]
    fn a_receipt_is_answered_by_the_clients_pong_which_the_app_never_sees() {
        let (mut session, mut out) = (session(false, false), Heard::default());
        session.ask_receipt(1, &mut out);
        session.ask_receipt(2, &mut out);
        let payload = Ping { kind: PingKind::Confirm, number: 2 }.payload(Nonce(8));
        let mut pong = Vec::new();
        write(&mut pong, Opcode::Pong, &payload, MASK);
        assert_eq!(session.take_confirmed(), None);
        session.leg_bytes(NOW, &pong, &mut out);
        assert_eq!(session.take_confirmed(), Some(2));
        assert!(out.app.is_empty());
    }
}
