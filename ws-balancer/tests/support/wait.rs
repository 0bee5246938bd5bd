//! Waiting for conditions, always with a bound.

use std::{fmt, future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Polls `check` every 10 ms until it says true. Panics with `what` after `within`.
pub async fn eventually(within: Duration, what: impl fmt::Display, mut check: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + within;
    while !check().await {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The future's value. Panics with `what` after `within`.
pub async fn bounded<T>(within: Duration, what: impl fmt::Display, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(within, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {within:?}: {what}"),
    }
}

/// Seconds, for short test bodies.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Milliseconds, for short test bodies.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
