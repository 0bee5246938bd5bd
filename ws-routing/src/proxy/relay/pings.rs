//! Pings of our own among those that pass through, and which of them a pong answers.
//!
//! A peer may answer only the latest of several pings (RFC 6455 §5.5.3), so a pong also answers what was sent before
//! it. Of ours that holds for those that go as far as the one that was answered: a sidecar answers a keepalive ping
//! itself, which says nothing of the app behind it.

use std::collections::VecDeque;

use crate::proxy::handshake::LegHeaders;

/// The random number by which one leg's pings and the move's Close are known for ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonce(pub(crate) u64);

impl Nonce {
    /// The one that a leg's headers give.
    pub(crate) fn of(leg: &LegHeaders) -> Option<Self> {
        u64::from_str_radix(leg.nonce.as_deref()?, 16).ok().map(Self)
    }

    /// Puts the mark of ours before the reason of a move's Close.
    pub(crate) fn mark(self, reason: &str) -> String {
        format!("{:016x} {reason}", self.0)
    }

    /// Takes the mark off; `None` when the Close is not ours.
    pub(crate) fn unmark(self, reason: &str) -> Option<&str> {
        reason.strip_prefix(&format!("{:016x} ", self.0))
    }
}

/// What a ping of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingKind {
    /// Is the next process there?
    Keepalive = 1,
    /// From here on this leg is the connection's.
    Live = 2,
    /// Has the app read all that was sent?
    Settle = 3,
    /// Has the app read the messages up to this number?
    Confirm = 4,
}

impl PingKind {
    /// Whether it passes a sidecar and is answered by what stands behind it.
    pub(crate) const fn goes_far(self) -> bool {
        matches!(self, Self::Settle | Self::Confirm)
    }
}

/// A ping of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ping {
    pub(crate) kind: PingKind,
    pub(crate) number: u64,
}

impl Ping {
    /// Nonce, kind and number, as 17 bytes.
    pub(crate) fn payload(self, nonce: Nonce) -> [u8; 17] {
        let mut payload = [0; 17];
        payload[..8].copy_from_slice(&nonce.0.to_be_bytes());
        payload[8] = self.kind as u8;
        payload[9..].copy_from_slice(&self.number.to_be_bytes());
        payload
    }

    /// Reads what [`Ping::payload`] made; `None` when it is somebody else's.
    pub(crate) fn parse(payload: &[u8], nonce: Nonce) -> Option<Self> {
        let payload: &[u8; 17] = payload.try_into().ok()?;
        if payload[..8] != nonce.0.to_be_bytes() {
            return None;
        }
        let kind = match payload[8] {
            1 => PingKind::Keepalive,
            2 => PingKind::Live,
            3 => PingKind::Settle,
            4 => PingKind::Confirm,
            _ => return None,
        };
        Some(Self { kind, number: u64::from_be_bytes(*payload.last_chunk()?) })
    }
}

/// The pings that one peer has not answered yet, oldest first. Bounded: the oldest are forgotten.
#[derive(Clone, Debug)]
pub(crate) struct PingBook {
    nonce: Nonce,
    /// Whether the next process answers keepalive and live pings in place of what stands behind it.
    relayed_further: bool,
    /// None without an entry, as it is most of the time.
    #[allow(clippy::box_collection)] // What each connection holds counts: a word here.
    sent: Option<Box<VecDeque<Sent>>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Sent {
    Own(Ping),
    Relayed(Box<[u8]>),
    /// Relayed for a leg that has gone: its pong is nobody's.
    Stale(Box<[u8]>),
}

/// What is to be done about a pong.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answered {
    /// It answers a ping of ours, or of a leg that has gone: it is not passed on.
    pub(crate) swallow: bool,
    /// The latest relayed ping that it answers too: whoever sent that is told.
    pub(crate) relayed: Option<Box<[u8]>>,
    /// The highest number of a settle ping that was answered.
    pub(crate) settled: Option<u64>,
    /// The highest number of a confirm ping that was answered.
    pub(crate) confirmed: Option<u64>,
}

impl PingBook {
    const CAPACITY: usize = 32;

    pub(crate) fn new(nonce: Nonce, relayed_further: bool) -> Self {
        Self { nonce, relayed_further, sent: None }
    }

    pub(crate) fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// Notes a ping of ours and returns its payload.
    pub(crate) fn own(&mut self, kind: PingKind, number: u64) -> [u8; 17] {
        let ping = Ping { kind, number };
        self.note(Sent::Own(ping));
        ping.payload(self.nonce)
    }

    /// Notes a ping that passes through.
    pub(crate) fn relayed(&mut self, payload: &[u8]) {
        // Of relayed pings in a row only the latest needs an answer.
        if let Some(sent) = &mut self.sent
            && matches!(sent.back(), Some(Sent::Relayed(_)))
        {
            sent.pop_back();
        }
        self.note(Sent::Relayed(payload.into()));
    }

    /// Finds out what a pong with this payload answers.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> Answered {
        let own = Ping::parse(payload, self.nonce);
        let mut answered = Answered { swallow: own.is_some(), ..Answered::default() };
        let Some(sent) = &mut self.sent else { return answered };
        let at = match own {
            Some(ping) => sent.iter().position(|s| *s == Sent::Own(ping)),
            None => {
                sent.iter().rposition(|s| matches!(s, Sent::Relayed(p) | Sent::Stale(p) if **p == *payload))
            }
        };
        let Some(at) = at else { return answered };
        answered.swallow |= matches!(sent[at], Sent::Stale(_));
        let far = !self.relayed_further || own.is_none_or(|ping| ping.kind.goes_far());
        settle_up_to(sent, at, far, &mut answered);
        if sent.is_empty() {
            self.sent = None;
        }
        if own.is_none() {
            // The pong itself is the answer to the latest relayed one.
            answered.relayed = None;
        }
        answered
    }

    /// The latest relayed ping without an answer, which the next leg is to be asked instead.
    pub(crate) fn take_relayed(&mut self) -> Option<Box<[u8]>> {
        let sent = self.sent.as_mut()?;
        let at = sent.iter().rposition(|s| matches!(s, Sent::Relayed(_)))?;
        match sent.remove(at) {
            Some(Sent::Relayed(payload)) => Some(payload),
            _ => None,
        }
    }

    /// The leg for which pings were relayed is gone.
    pub(crate) fn forget_relayed(&mut self) {
        for sent in self.sent.iter_mut().flat_map(|sent| sent.iter_mut()) {
            if let Sent::Relayed(payload) = sent {
                *sent = Sent::Stale(std::mem::take(payload));
            }
        }
    }

    fn note(&mut self, ping: Sent) {
        let sent = self.sent.get_or_insert_default();
        if sent.len() == Self::CAPACITY {
            sent.pop_front();
        }
        sent.push_back(ping);
    }
}

/// Takes out the entries up to `at` that the answer reaches.
fn settle_up_to(sent: &mut VecDeque<Sent>, at: usize, far: bool, answered: &mut Answered) {
    let mut index = 0;
    sent.retain(|sent| {
        let before = index <= at;
        index += 1;
        match sent {
            _ if !before => true,
            Sent::Own(ping) if !far && ping.kind.goes_far() => true,
            Sent::Relayed(_) if !far => true,
            Sent::Own(Ping { kind: PingKind::Settle, number }) => {
                answered.settled = answered.settled.max(Some(*number));
                false
            }
            Sent::Own(Ping { kind: PingKind::Confirm, number }) => {
                answered.confirmed = answered.confirmed.max(Some(*number));
                false
            }
            Sent::Relayed(payload) => {
                answered.relayed = Some(payload.clone());
                false
            }
            Sent::Own(_) | Sent::Stale(_) => false,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(relayed_further: bool) -> PingBook {
        PingBook::new(Nonce(7), relayed_further)
    }

    #[test]
    fn a_pong_of_ours_answers_the_latest_ping_that_was_relayed_before_it() {
        let mut book = book(false);
        book.relayed(b"first");
        book.relayed(b"second");
        let settle = book.own(PingKind::Settle, 1);
        book.relayed(b"after");
        let answered = book.pong(&settle);
        assert_eq!(answered.relayed.as_deref(), Some(&b"second"[..]));
        assert!(answered.swallow && answered.settled == Some(1));
        assert_eq!(book.pong(b"after"), Answered::default());
    }

    #[test]
    fn a_pong_that_a_sidecar_gave_says_nothing_of_the_app() {
        let mut book = book(true);
        book.relayed(b"app?");
        book.own(PingKind::Settle, 1);
        let keepalive = book.own(PingKind::Keepalive, 2);
        let answered = book.pong(&keepalive);
        assert_eq!(answered, Answered { swallow: true, ..Answered::default() });
        book.relayed(b"later");
        assert_eq!(
            book.pong(b"later").settled,
            Some(1),
            "a later relayed ping went as far as the settle ping"
        );
    }

    #[test]
    fn pongs_for_a_leg_that_has_gone_are_swallowed() {
        let mut book = book(false);
        book.relayed(b"old");
        book.forget_relayed();
        assert!(book.pong(b"old").swallow);
        assert!(!book.pong(b"unasked").swallow);
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = book(false);
        for number in 0..10_000 {
            book.own(PingKind::Confirm, number);
            book.relayed(b"x");
        }
        assert_eq!(book.sent.map(|sent| sent.len()), Some(PingBook::CAPACITY));
    }
}
