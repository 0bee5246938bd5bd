//! What may happen in a case of the explorer's.

/// How often each thing may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) messages: u8,
    pub(super) owners: u8,
    pub(super) crashes: u8,
    /// A living leg is given up, as that of a node that answers no probe.
    pub(super) zombies: u8,
    pub(super) dial_failures: u8,
    /// The client's own.
    pub(super) pings: u8,
    /// Time passes though a pong is owed, or bytes are unread.
    pub(super) late: u8,
    pub(super) pongs_lost: u8,
    /// A library does not read for a while.
    pub(super) stalls: u8,
    pub(super) client_closes: bool,
    pub(super) app_close: Option<u16>,
    /// Nodes have sidecars.
    pub(super) sidecars: bool,
    /// Silence is asked about.
    pub(super) keepalive: bool,
}

impl Budget {
    pub(super) const fn none() -> Self {
        Self {
            messages: 0,
            owners: 0,
            crashes: 0,
            zombies: 0,
            dial_failures: 0,
            pings: 0,
            late: 0,
            pongs_lost: 0,
            stalls: 0,
            client_closes: false,
            app_close: None,
            sidecars: false,
            keepalive: false,
        }
    }
}
