//! What a connection knows of a change of its far end, from the first step until nothing depends on it any more. Most
//! have none, at most times.

use std::time::Duration;

use super::{Edge, Leg, phase::Phase};

/// A move or a loss that is under way, or was not long ago.
#[derive(Clone, Debug, Default)]
pub(super) struct Transit {
    pub(super) phase: Phase,
    pub(super) next: Option<Leg>,
    pub(super) retry: Retry,
    pub(super) losses: Losses,
    /// How long the client was not read in the last move.
    pub(super) pause: Option<Duration>,
    /// The reason of the Close that ends the leg which a move leaves.
    pub(super) farewell: String,
    /// The client's ping that a lost leg did not answer.
    pub(super) asked: Option<Box<[u8]>>,
}

impl Transit {
    /// Whether a connection without it would do the same from here on.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.phase == Phase::Steady
            && self.next.is_none()
            && self.retry == Retry::default()
            && !self.losses.matter(now)
            && self.pause.is_none()
            && self.asked.is_none()
    }
}

/// When a move that could not be made is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    attempts: u32,
    pub(super) at: Option<Duration>,
    /// The app refused the handshake for good: no further move.
    pub(super) refused: bool,
}

impl Retry {
    pub(super) fn call_off(&mut self) {
        *self = Self { refused: self.refused, ..Self::default() };
    }

    pub(super) fn put_off(&mut self, now: Duration) {
        let wait = Duration::from_millis(250) * 2_u32.pow(self.attempts.min(5));
        self.attempts += 1;
        self.at = (!self.refused).then_some(now + wait);
    }
}

/// Legs lost, and replaced at the very node, within the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub(super) last: [Option<Duration>; 2],
}

impl Losses {
    pub(super) const WINDOW: Duration = Duration::from_secs(10);

    pub(super) fn replaced_at_same_node(&mut self, now: Duration) {
        self.last = [self.last[1], Some(now)];
    }

    /// Whether a loss now is the third in a row.
    fn is_third(&self, now: Duration) -> bool {
        self.last[0].is_some_and(|first| now < first + Self::WINDOW)
    }

    /// Whether one of them may still make a loss the third.
    fn matter(&self, now: Duration) -> bool {
        self.last.iter().flatten().any(|last| now < *last + Self::WINDOW)
    }
}

impl Edge {
    /// Where the connection stands.
    pub(super) fn phase(&self) -> &Phase {
        self.transit.as_ref().map_or(&Phase::Steady, |transit| &transit.phase)
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if self.transit.is_some() || phase != Phase::Steady {
            self.in_transit().phase = phase;
        }
    }

    /// What is known of a change, which is begun with it.
    pub(super) fn in_transit(&mut self) -> &mut Transit {
        self.transit.get_or_insert_default()
    }

    /// The current leg said something.
    pub(super) fn leg_spoke(&mut self, now: Duration) {
        if let Some(transit) = &mut self.transit {
            transit.phase.leg_spoke(now);
        }
    }

    /// When a move may be tried again.
    pub(super) fn retry(&self) -> Retry {
        self.transit.as_ref().map_or_else(Retry::default, |transit| transit.retry)
    }

    /// Whether a leg that is lost now is the third in a row.
    pub(super) fn is_third_loss(&self, now: Duration) -> bool {
        self.transit.as_ref().is_some_and(|transit| transit.losses.is_third(now))
    }

    /// The leg that a move has opened.
    pub(super) fn next(&self) -> Option<&Leg> {
        self.transit.as_ref().and_then(|transit| transit.next.as_ref())
    }

    pub(super) fn take_next(&mut self) -> Option<Leg> {
        self.transit.as_mut().and_then(|transit| transit.next.take())
    }

    /// How long the client was not read in the last move or loss, once.
    pub(crate) fn take_pause(&mut self) -> Option<Duration> {
        self.transit.as_mut().and_then(|transit| transit.pause.take())
    }

    /// Forgets what nothing depends on any more.
    pub(super) fn forget_transit(&mut self, now: Duration) {
        if self.transit.as_ref().is_some_and(|transit| transit.is_over(now)) {
            self.transit = None;
        }
    }
}
