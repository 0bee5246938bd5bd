//! Where a conversation stands: how many messages came, and what the words between processes say of that.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    elsewhere::{Elsewhere, UNSURE},
    event::Place,
};
use crate::{
    frame::{Control, may_travel},
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
    elsewhere: Elsewhere,
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
    /// The same, but the leg had no time to say so: nobody is left here to be told.
    Elsewhere,
    /// The leg has ended without a word, and nobody has said where its connection is.
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
    pub(super) fn new(leg: &LegHeaders, mark: Nonce, elsewhere: Elsewhere) -> Self {
        let (sequence, redelivered) = (leg.sequence, leg.redelivered);
        Self { nonce: Nonce::of(leg), mark, elsewhere, marked: false, sequence, redelivered }
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

    /// How the end of a leg without a Close ends the conversation.
    pub(super) async fn lost(&self) -> End {
        // Without a nonce nobody could name it: it is the client's own end.
        let patience = self.nonce.map_or(Duration::ZERO, |_| UNSURE);
        match timeout(patience, self.elsewhere.told()).await {
            Ok(true) => End::Elsewhere,
            Ok(false) | Err(_) => End::Lost,
        }
    }

    /// How a Close ends the conversation: one that breaks the protocol is answered as such, and told of as such.
    pub(super) fn closed(&self, control: &Control) -> End {
        let (code, payload) = (control.code(), control.payload());
        if !payload.is_empty() && !may_travel(code) {
            return CloseReason::ClientProtocol("a close code that may not travel").into();
        }
        let Ok(reason) = str::from_utf8(payload.get(2..).unwrap_or_default()) else {
            return CloseReason::NotUtf8.into();
        };
        match self.nonce.and_then(|nonce| nonce.unmark(reason)) {
            Some(_) => End::Moved,
            None => End::Closed { code, reason: reason.to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        Key,
        app::messages::{Assembly, Incoming},
        frame::{Opcode, close_payload, write},
    };

    fn row(nonce: Option<&str>) -> Row {
        let mut leg = LegHeaders::new(Key::new("k").unwrap());
        leg.nonce = nonce.map(Into::into);
        Row::new(&leg, Nonce(1), Elsewhere::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_leg_that_is_lost_may_be_elsewhere_and_only_a_balancers() {
        let began = Instant::now();
        assert!(matches!(row(None).lost().await, End::Lost));
        assert!(began.elapsed() < UNSURE);
        let named = row(Some("0000000000000007"));
        assert!(matches!(named.lost().await, End::Lost));
        assert!(began.elapsed() >= UNSURE);
        named.elsewhere.tell(true);
        assert!(matches!(named.lost().await, End::Elsewhere), "also when that was told before");
        let (own, began) = (row(Some("0000000000000007")), Instant::now());
        own.elsewhere.tell(false);
        assert!(matches!(own.lost().await, End::Lost) && began.elapsed() < UNSURE);
    }

    /// The code and the reason that a Close of the client's comes to.
    fn end(payload: &[u8]) -> (u16, String) {
        let mut bytes = Vec::new();
        write(&mut bytes, Opcode::Close, payload, Some([1, 2, 3, 4]));
        let (_, incoming) = Assembly::new(100).next(&bytes).unwrap();
        let Some(Incoming::Control(control)) = incoming else { panic!("{incoming:?}") };
        let row = row(None);
        match row.closed(&control) {
            End::Closed { code, reason } | End::Close { code, reason } => (code, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_close_that_may_not_travel_breaks_the_protocol() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert_eq!(end(&close_payload(code, "x")).0, 1002, "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(end(&close_payload(code, "x")), (code, "x".into()));
        }
        assert_eq!(end(&[]).0, 1005, "none was given");
        assert_eq!(end(&[&1000_u16.to_be_bytes()[..], b"\xff"].concat()).0, 1007);
    }
}
