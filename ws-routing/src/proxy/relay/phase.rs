//! Where a connection stands in a move, and until when.
//!
//! `Steady → Dialing → Stopping → Settling → Quiet → Closing → Steady`, or, when the leg was lost, `Orphan → Steady`.

use std::time::Duration;

/// How long a closed leg must be silent to count as gone.
pub(super) const CLOSE_SILENCE: Duration = Duration::from_secs(1);

/// Where a connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// One leg, relayed both ways.
    #[default]
    Steady,
    /// The next leg is being opened; the current one is relayed.
    Dialing,
    /// The next leg is open; the client's message has to end first.
    Stopping { until: Duration },
    /// The client is not read; the app has to answer that it has read all.
    Settling { since: Duration, until: Duration },
    /// The app has read all and may still be replying.
    Quiet { since: Duration, silent: Duration, quiet: Duration, until: Duration },
    /// The current leg was closed; its last words are relayed until its own Close.
    Closing { since: Duration, silent: Duration, until: Duration },
    /// There is no leg. `own`: the lost one led to the app of this very process.
    Orphan { since: Duration, until: Duration, own: bool },
}

impl Phase {
    pub(super) fn reads_client(&self) -> bool {
        matches!(self, Self::Steady | Self::Dialing | Self::Stopping { .. })
    }

    /// Whether the client is not read, but the current leg is still its own: nobody was told yet that it is left.
    pub(super) fn may_be_given_up(&self) -> bool {
        matches!(self, Self::Settling { .. } | Self::Quiet { .. })
    }

    pub(super) fn stopping(&self) -> bool {
        matches!(self, Self::Stopping { .. })
    }

    /// The leg said something: silence begins anew.
    pub(super) fn leg_spoke(&mut self, now: Duration) {
        if let Self::Quiet { silent, .. } | Self::Closing { silent, .. } = self {
            *silent = now;
        }
    }

    /// When it is over. While the client is `blocked` the leg is not heard, and its silence means nothing.
    pub(super) fn deadline(&self, blocked: bool) -> Option<Duration> {
        match *self {
            Self::Steady | Self::Dialing => None,
            Self::Stopping { until } | Self::Settling { until, .. } | Self::Orphan { until, .. } => {
                Some(until)
            }
            Self::Quiet { until, .. } | Self::Closing { until, .. } if blocked => Some(until),
            Self::Quiet { silent, quiet, until, .. } => Some(until.min(silent + quiet)),
            Self::Closing { silent, until, .. } => Some(until.min(silent + CLOSE_SILENCE)),
        }
    }

    /// Waits for a client that takes nothing at all: the leg may have more to say to it.
    pub(super) fn wait_for_client(&mut self, now: Duration) -> bool {
        match self {
            Self::Quiet { until, .. } | Self::Closing { until, .. } => {
                *until = now + CLOSE_SILENCE;
                true
            }
            _ => false,
        }
    }

    /// Since when the client is not read.
    pub(super) fn paused_since(&self) -> Option<Duration> {
        match *self {
            Self::Settling { since, .. }
            | Self::Quiet { since, .. }
            | Self::Closing { since, .. }
            | Self::Orphan { since, .. } => Some(since),
            _ => None,
        }
    }
}
