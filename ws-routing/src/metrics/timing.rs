//! Distributions of durations.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// The distribution of a duration. Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub struct Timing(Arc<Counts>);

/// How many durations are at most as long as each bound, and longer than the one before; the last is without a bound.
#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Microseconds.
    sum: AtomicU64,
}

/// Seconds: from a loopback's handshake to the longest time that anything waits by default.
const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl Timing {
    /// Counts a duration: two atomic additions.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = BOUNDS.partition_point(|bound| *bound < seconds);
        self.0.buckets[at].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many durations were up to that many seconds long, and longer than the bound before; the last bound is
    /// infinite.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(&self.0.buckets).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect()
    }
}

/// A timing as the encoder takes it: its traits are no part of what others see.
#[derive(Clone, Debug)]
pub(super) struct Exported(pub(super) Timing);

impl TypedMetric for Exported {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Exported {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(Timing(counts)) = self;
        let buckets = self.0.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(counts.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let timing = Timing::default();
        for micros in [0, 1_000, 1_001, 30_000_000, 30_000_001] {
            timing.observe(Duration::from_micros(micros));
        }
        let taken: Vec<_> = timing.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(taken, [(0.001, 2), (0.0025, 1), (30.0, 1), (f64::INFINITY, 1)]);
    }
}
