//! Waiting longer and longer between tries, never in step with others.

use std::time::Duration;

/// Doubles from a floor to a cap; each wait is between a half and the whole of that.
#[derive(Debug)]
pub(crate) struct Backoff {
    floor: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(floor: Duration, cap: Duration) -> Self {
        Self { floor, cap, next: floor }
    }

    /// How long to wait before the next try.
    pub(crate) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.cap);
        whole.mul_f64(0.5 + 0.5 * rand::random::<f64>())
    }

    /// It works again.
    pub(crate) const fn reset(&mut self) {
        self.next = self.floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_begin_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 5);
        for whole in [1, 2, 4, 5, 5] {
            let wait = backoff.wait();
            assert!(second * whole / 2 <= wait && wait < second * whole, "{wait:?} of {whole} s");
        }
        backoff.reset();
        assert!(backoff.wait() < second);
    }
}
