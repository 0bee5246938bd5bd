//! What one connection knows of time: signs of life, and how fast its app replies. Times are since its beginning.

use std::time::Duration;

use super::Settings;

/// Whether a peer still gives signs of life. Slow is not dead: the clock rests while we do not listen, and any byte
/// that is taken or said is a sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    pub(super) seen: Duration,
    pub(super) asked: Option<Duration>,
    interval: Duration,
    timeout: Duration,
}

/// What a [`Liveness`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Fine,
    Ask,
    Dead,
}

impl Liveness {
    pub(crate) fn new(now: Duration, interval: Duration, timeout: Duration) -> Self {
        Self { seen: now, asked: None, interval, timeout }
    }

    /// A byte was read or written, or the clock rests.
    pub(crate) fn seen(&mut self, now: Duration) {
        self.seen = now;
        self.asked = None;
    }

    pub(crate) fn check(&mut self, now: Duration) -> Check {
        match self.asked {
            Some(asked) if now >= asked + self.timeout => Check::Dead,
            None if now >= self.seen + self.interval => {
                self.asked = Some(now);
                Check::Ask
            }
            _ => Check::Fine,
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.asked.map_or(self.seen + self.interval, |asked| asked + self.timeout)
    }

    /// As [`Liveness::check`] while nothing can be asked, because the peer takes nothing: with not a byte taken or said
    /// for as long as a ping may go unanswered, it is dead.
    pub(crate) fn check_stuck(&mut self, now: Duration) -> Check {
        if now >= self.stuck_deadline() { Check::Dead } else { Check::Fine }
    }

    pub(crate) fn stuck_deadline(&self) -> Duration {
        self.asked.map_or(self.seen, |asked| asked.max(self.seen)) + self.timeout
    }
}

/// How long this connection's app takes from a client message to its own next message: the longest of the last 16.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyPace {
    waiting_since: Option<Duration>,
    /// In milliseconds, a ring.
    last: [u16; 16],
    at: u8,
}

impl ReplyPace {
    pub(super) fn client_message(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now);
    }

    pub(super) fn app_message(&mut self, now: Duration) {
        if let Some(since) = self.waiting_since.take() {
            self.last[usize::from(self.at)] =
                now.saturating_sub(since).as_millis().try_into().unwrap_or(u16::MAX);
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
        let mut life = Liveness::new(ms(0), ms(20_000), ms(10_000));
        assert_eq!(life.check(ms(19_999)), Check::Fine);
        assert_eq!(life.check(life.deadline()), Check::Ask);
        assert_eq!(life.check(ms(29_999)), Check::Fine);
        assert_eq!(life.check(life.deadline()), Check::Dead);
        life.seen(ms(30_000));
        assert_eq!(life.check(ms(30_001)), Check::Fine);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_unasked() {
        let mut life = Liveness::new(ms(0), ms(20_000), ms(10_000));
        assert_eq!(life.check_stuck(ms(9_999)), Check::Fine);
        life.seen(ms(9_999));
        assert_eq!(life.check_stuck(ms(19_998)), Check::Fine, "any progress is a sign of life");
        assert_eq!(life.check_stuck(life.stuck_deadline()), Check::Dead);
        life.seen(ms(30_000));
        assert_eq!(life.check(ms(50_000)), Check::Ask);
        assert_eq!(life.check_stuck(ms(59_999)), Check::Fine, "it has all of its time from the ping on");
        assert_eq!(life.check_stuck(ms(60_000)), Check::Dead);
    }
}
