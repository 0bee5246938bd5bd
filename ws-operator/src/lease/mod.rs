//! Which replica writes: the one that holds the Lease.
//!
//! [`evaluate`] decides, without a clock of its own; `campaign` acts on it, and stops writing long before another
//! replica may begin. Clocks of different machines are never compared: how old a Lease is, every replica measures
//! from when it saw the last change itself.

mod campaign;
mod store;

pub(crate) use campaign::{Leading, campaign};
pub use store::{Store, Stored};

use std::time::Duration;

use tokio::time::Instant;

/// How long a holder that is not heard of is waited for.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often the holder renews it.
pub const RENEW: Duration = Duration::from_secs(3);

/// How long after its last renewal the holder goes on writing.
pub const WRITE: Duration = Duration::from_secs(10);

/// How often the others look.
pub const POLL: Duration = Duration::from_secs(2);

/// A Lease, as a replica has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; `None`: nobody, it was given back.
    pub holder: Option<String>,
    /// Its version, which changes with every renewal.
    pub version: String,
    /// How long the holder is waited for, as it says itself.
    pub lasts: Duration,
    /// When this replica saw that version first.
    pub since: Instant,
}

/// What a replica does about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It takes it.
    Acquire,
    /// It has it, and says so again.
    Renew,
    /// Somebody else has it, until then at least.
    Wait(Instant),
}

/// Decides about the Lease; `None`: there is none.
#[must_use]
pub fn evaluate(now: Instant, lease: Option<&Seen>, me: &str) -> Move {
    match lease {
        None | Some(Seen { holder: None, .. }) => Move::Acquire,
        Some(Seen { holder: Some(holder), .. }) if holder == me => Move::Renew,
        Some(Seen { lasts, since, .. }) => {
            let end = *since + *lasts;
            if now >= end { Move::Acquire } else { Move::Wait(end) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_leases() {
        let now = Instant::now() + Duration::from_secs(3600);
        let seen = |holder: Option<&str>, lasts: u64, ago: u64| {
            Some(Seen {
                holder: holder.map(Into::into),
                version: "1".into(),
                lasts: Duration::from_secs(lasts),
                since: now - Duration::from_secs(ago),
            })
        };
        let wait = |seconds| Move::Wait(now + Duration::from_secs(seconds));
        for (lease, expected) in [
            (None, Move::Acquire),
            (seen(None, 15, 0), Move::Acquire),
            (seen(Some("me"), 15, 0), Move::Renew),
            (seen(Some("me"), 15, 600), Move::Renew),
            (seen(Some("other"), 15, 0), wait(15)),
            (seen(Some("other"), 15, 14), wait(1)),
            (seen(Some("other"), 15, 15), Move::Acquire),
            (seen(Some("other"), 60, 15), wait(45)),
            (seen(Some("other"), 60, 600), Move::Acquire),
        ] {
            assert_eq!(evaluate(now, lease.as_ref(), "me"), expected, "{lease:?}");
        }
    }
}
