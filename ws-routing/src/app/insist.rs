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

/// Makes attempts of at most `limit` each until one is not to be made again. [`Verdict::Again`]: `retry` is over.
pub(super) async fn insist(retry: Duration, mut limit: Duration, what: &impl Attempt) -> Verdict {
    let until = Instant::now() + retry;
    let mut pause = FIRST_PAUSE;
    loop {
        match what.attempt(limit).await {
            Verdict::Again if Instant::now() + pause < until => sleep(jittered(pause)).await,
            verdict => return verdict,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        let left = until.saturating_duration_since(Instant::now());
        limit = limit.min(left.max(Duration::from_secs(1)));
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
