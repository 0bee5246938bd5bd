//! What is known of a session from the start.

use crate::proxy::relay::Nonce;

/// What a session's handshake has settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// permessage-deflate was agreed.
    pub(crate) compressed: bool,
    /// It takes the place of another leg.
    pub(crate) moved_in: bool,
    /// The app's end of the stream, if that is within this process.
    pub(crate) within: Option<Within>,
}

/// An app's end within this process: it is told which frames are the balancer's own, and which are ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within {
    /// What a ping of ours before a message that is not the client's carries.
    pub(crate) mark: Nonce,
    /// Whether something stands behind it that may be dead.
    pub(crate) pinged: bool,
}
