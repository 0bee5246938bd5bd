//! What one connection knows of time: signs of life, and how fast its app replies. Times are since its beginning.

use std::{num::NonZeroU64, time::Duration};

use super::Settings;

/// A time as it is kept: half of a [`Duration`], and none of it takes no more. Good for 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    /// Nanoseconds, and one.
    nanos: NonZeroU64,
}

impl From<Duration> for Stamp {
    fn from(at: Duration) -> Self {
        let seconds = at.as_secs().saturating_mul(1_000_000_000);
        let nanos = seconds.saturating_add(at.subsec_nanos().into());
        Self { nanos: NonZeroU64::MIN.saturating_add(nanos) }
    }
}

impl From<Stamp> for Duration {
    fn from(stamp: Stamp) -> Self {
        Self::from_nanos(stamp.nanos.get() - 1)
    }
}

/// How long the silence of a peer is borne.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long until it is asked.
    pub(crate) interval: Duration,
    /// How long it may leave that unanswered.
    pub(crate) timeout: Duration,
}

impl Patience {
    /// With whatever answers our pings at once: a client, or a sidecar.
    pub(crate) const fn with_peer(settings: &Settings) -> Self {
        Self { interval: settings.ping_interval, timeout: settings.ping_timeout }
    }

    /// With an app, whose event loop may be busy.
    pub(crate) const fn with_app(settings: &Settings) -> Self {
        Self { interval: settings.ping_interval, timeout: settings.app_timeout }
    }
}

/// Whether a peer still gives signs of life. Slow is not dead: the clock rests while we do not listen, and any byte
/// that is taken or said is a sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    seen: Stamp,
    asked: Option<Stamp>,
}

/// What a [`Liveness`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Fine,
    Ask,
    Dead,
}

impl Liveness {
    pub(crate) fn new(now: Duration) -> Self {
        Self { seen: now.into(), asked: None }
    }

    /// A byte was read or written, or the clock rests.
    pub(crate) fn seen(&mut self, now: Duration) {
        *self = Self::new(now);
    }

    /// Whether it was asked, and nothing has come since.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub(crate) fn check(&mut self, now: Duration, patience: Patience) -> Check {
        if now < self.deadline(patience) {
            return Check::Fine;
        }
        if self.asked.is_some() {
            return Check::Dead;
        }
        self.asked = Some(now.into());
        Check::Ask
    }

    pub(crate) fn deadline(&self, patience: Patience) -> Duration {
        match self.asked {
            Some(asked) => Duration::from(asked) + patience.timeout,
            None => Duration::from(self.seen) + patience.interval,
        }
    }

    /// As [`Liveness::check`] while nothing can be asked, because the peer takes nothing: with not a byte taken or said
    /// for as long as a ping may go unanswered, it is dead.
    pub(crate) fn check_stuck(&self, now: Duration, patience: Patience) -> Check {
        if now >= self.stuck_deadline(patience) { Check::Dead } else { Check::Fine }
    }

    pub(crate) fn stuck_deadline(&self, patience: Patience) -> Duration {
        Duration::from(self.asked.map_or(self.seen, |asked| asked.max(self.seen))) + patience.timeout
    }

    /// As if `by` had not passed.
    #[cfg(test)]
    pub(super) fn shift(&mut self, by: Duration) {
        let earlier = |at: Stamp| Duration::from(at).saturating_sub(by).into();
        *self = Self { seen: earlier(self.seen), asked: self.asked.map(earlier) };
    }
}

/// How long this connection's app takes from a client message to its own next message: the longest of the last 16.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyPace {
    waiting_since: Option<Stamp>,
    /// In milliseconds, a ring.
    last: [u16; 16],
    at: u8,
}

impl ReplyPace {
    pub(super) fn client_message(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now.into());
    }

    pub(super) fn app_message(&mut self, now: Duration) {
        if let Some(since) = self.waiting_since.take() {
            self.last[usize::from(self.at)] =
                now.saturating_sub(since.into()).as_millis().try_into().unwrap_or(u16::MAX);
            self.at = (self.at + 1) % 16;
        }
    }

    /// How long a leg must say nothing before it is taken to have said all.
    pub(super) fn quiet(&self, settings: &Settings) -> Duration {
        settings.move_quiet.unwrap_or_else(|| {
            let longest = Duration::from_millis(self.last.iter().copied().max().unwrap_or(0).into());
            (longest * 2).clamp(Duration::from_millis(100), QUIET_AT_MOST)
        })
    }
}

/// The longest wait for silence, from the answer to the settle ping on.
pub(super) const QUIET_AT_MOST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const PATIENCE: Patience = Patience { interval: ms(20_000), timeout: ms(10_000) };

    #[test]
    fn a_time_is_kept_to_the_nanosecond() {
        for at in [ms(0), Duration::new(7200, 1), Duration::new(u64::from(u32::MAX), 999_999_999)] {
            assert_eq!(Duration::from(Stamp::from(at)), at);
        }
        assert_eq!(size_of::<Option<Stamp>>(), 8);
    }

    #[test]
    fn quiet_is_twice_the_longest_of_the_last_16_replies_within_its_bounds() {
        let settings = Settings::default();
        let mut pace = ReplyPace::default();
        assert_eq!(pace.quiet(&settings), ms(100));
        pace.client_message(ms(0));
        pace.client_message(ms(200));
        pace.app_message(ms(300));
        assert_eq!(pace.quiet(&settings), ms(600), "counted from the first message that waits");
        for _ in 0..16 {
            pace.client_message(ms(1000));
            pace.app_message(ms(1010));
        }
        assert_eq!(pace.quiet(&settings), ms(100));
        pace.client_message(ms(0));
        pace.app_message(ms(90_000));
        assert_eq!(pace.quiet(&settings), ms(2000));
    }

    #[test]
    fn a_silent_peer_is_asked_and_then_given_up() {
        let mut life = Liveness::new(ms(0));
        assert_eq!(life.check(ms(19_999), PATIENCE), Check::Fine);
        assert_eq!(life.check(life.deadline(PATIENCE), PATIENCE), Check::Ask);
        assert_eq!(life.check(ms(29_999), PATIENCE), Check::Fine);
        assert_eq!(life.check(life.deadline(PATIENCE), PATIENCE), Check::Dead);
        life.seen(ms(30_000));
        assert_eq!(life.check(ms(30_001), PATIENCE), Check::Fine);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_unasked() {
        let mut life = Liveness::new(ms(0));
        assert_eq!(life.check_stuck(ms(9_999), PATIENCE), Check::Fine);
        life.seen(ms(9_999));
        assert_eq!(life.check_stuck(ms(19_998), PATIENCE), Check::Fine, "any progress is a sign of life");
        assert_eq!(life.check_stuck(life.stuck_deadline(PATIENCE), PATIENCE), Check::Dead);
        life.seen(ms(30_000));
        assert_eq!(life.check(ms(50_000), PATIENCE), Check::Ask);
        assert_eq!(
            life.check_stuck(ms(59_999), PATIENCE),
            Check::Fine,
            "it has all of its time from the ping on"
        );
        assert_eq!(life.check_stuck(ms(60_000), PATIENCE), Check::Dead);
    }
}
