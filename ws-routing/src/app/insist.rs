//! Handing a message over, again and again if need be.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::verdict::Verdict;

/// The pause before the second attempt, doubled before each further one up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Something that can be tried.
pub(super) trait Attempt: Sync {
    /// Tries it, for at most `limit`.
    fn attempt(&self, limit: Duration) -> impl Future<Output = Verdict> + Send;
}

/// What an attempt has in any case, however little is left of the time to retry.
const LEAST: Duration = Duration::from_secs(1);

/// Makes attempts of at most `limit` each until one is not to be made again. [`Verdict::Again`]: `retry` is over.
pub(super) async fn insist(retry: Duration, limit: Duration, what: &impl Attempt) -> Verdict {
    let until = Instant::now() + retry;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = limit.min(left.max(LEAST));
        let verdict = what.attempt(limit).await;
        let left = until.saturating_duration_since(Instant::now());
        if !matches!(verdict, Verdict::Again) || left.is_zero() {
            return verdict;
        }
        // The last attempt is when the time is over.
        sleep(jittered(pause).min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One attempt, which ends after `limit` in any case; `late` is told when it does so.
pub(super) async fn within(
    limit: Duration,
    attempt: impl Future<Output = Verdict>,
    late: impl FnOnce(),
) -> Verdict {
    timeout(limit, attempt).await.unwrap_or_else(|_| {
        late();
        Verdict::Again
    })
}

/// Between half and the whole of it, so that what failed together is not tried again together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use super::*;

    /// An application that hangs so many times, then answers. Keeps when it was asked.
    struct Hanging {
        times: usize,
        asked: Mutex<Vec<Instant>>,
    }

    impl Attempt for Hanging {
        async fn attempt(&self, limit: Duration) -> Verdict {
            let count = {
                let mut asked = self.asked.lock().unwrap();
                asked.push(Instant::now());
                asked.len()
            };
            if count > self.times { Verdict::Handled } else { within(limit, pending(), || ()).await }
        }
    }

    /// An application that fails at once until it is well.
    struct Failing {
        well: Instant,
    }

    impl Attempt for Failing {
        async fn attempt(&self, _: Duration) -> Verdict {
            if Instant::now() < self.well { Verdict::Again } else { Verdict::Handled }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_is_asked_until_the_time_to_retry_is_over() {
        for well in [3900, 4000, 4100] {
            let (began, well) = (Instant::now(), Duration::from_millis(well));
            let retry = Duration::from_secs(4);
            let verdict = insist(retry, Duration::from_secs(10), &Failing { well: began + well }).await;
            assert_eq!(matches!(verdict, Verdict::Handled), well <= retry, "{well:?}");
            assert!(
                began.elapsed() >= well.min(retry) && began.elapsed() <= retry + Duration::from_millis(1)
            );
        }
    }

    async fn insisted(retry: u64, limit: u64, times: usize) -> (bool, usize, Duration) {
        let (began, app) = (Instant::now(), Hanging { times, asked: Mutex::default() });
        let verdict = insist(Duration::from_secs(retry), Duration::from_secs(limit), &app).await;
        let asked = app.asked.lock().unwrap().len();
        (matches!(verdict, Verdict::Handled), asked, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_once_is_asked_again() {
        let (done, asked, took) = insisted(30, 10, 1).await;
        assert!(done && asked == 2 && took < Duration::from_secs(11), "{asked} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_to_retry_bounds_the_first_attempt_too() {
        let (done, asked, took) = insisted(2, 10, 9).await;
        assert!(!done && asked == 1 && took <= Duration::from_secs(3), "{asked} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_retry_there_is_one_attempt() {
        let (done, asked, took) = insisted(0, 10, 1).await;
        assert!(!done && asked == 1 && took <= Duration::from_secs(2), "{asked} in {took:?}");
    }
}
