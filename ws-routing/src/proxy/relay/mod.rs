//! The relay of one client's connection, as a state machine without socket and clock.
//!
//! * `edge`: what stands between a client and its upstream leg: the machine's events and what it asks for
//! * `changeover`, `phase`, `transit`: how the far end changes while the client stays
//! * `closing`: how a connection ends
//! * `pings`: pings of ours among those that pass
//! * `redelivery`: client messages that a crash must not lose
//! * `clocks`, `keepalive`: signs of life, and the app's pace
//! * `leg`, `run`: one upstream leg, and bytes that pass as they came

mod changeover;
pub(crate) mod clocks;
mod closing;
mod edge;
mod keepalive;
mod leg;
mod phase;
mod pings;
mod redelivery;
mod run;
mod transit;

#[cfg(test)]
pub(crate) mod explore;
#[cfg(test)]
mod redelivery_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use changeover::DialFailure;
pub(crate) use closing::{By, End};
pub(crate) use edge::{Action, Blocked, Edge, Outputs, Slot};
pub(crate) use leg::{Leg, LegShape};
pub(crate) use pings::{Nonce, Ping, PingBook, PingKind};
pub use redelivery::Redelivery;
pub(crate) use run::{Run, control};

/// The longest app message that reaches the client only when it is whole, and the bound of each direction's buffer,
/// in bytes.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Times that hold for every connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a leg may be silent before it is pinged. Default 20 s.
    pub ping_interval: Duration,
    /// How long a ping may go unanswered before the peer counts as dead. Default 10 s.
    pub ping_timeout: Duration,
    /// The same for a node without a sidecar, whose event loop may be busy. Default 60 s.
    pub app_timeout: Duration,
    /// How long a move waits for the answer to its settle ping before it is put off. Default 1 s.
    pub move_linger: Duration,
    /// How long a leg must say nothing before a move closes it; `None`, the default, learns it from the app's replies.
    pub move_quiet: Option<Duration>,
    /// How long a client is held while no node can be reached. Default 10 s.
    pub orphan_grace: Duration,
    /// How long a client may take nothing of what waits for it. Default 60 s.
    pub stall_timeout: Duration,
    /// How many app messages of a moved leg are dropped. Default 0.
    pub skip_on_move: u32,
    /// Whether client messages are kept until the app has them, and delivered again after a crash; `None`, the
    /// default: they are not.
    pub redelivery: Option<Redelivery>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(10),
            app_timeout: Duration::from_secs(60),
            move_linger: Duration::from_secs(1),
            move_quiet: None,
            orphan_grace: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            skip_on_move: 0,
            redelivery: None,
        }
    }
}
