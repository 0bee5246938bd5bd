//! The proxy: a handshake is checked, routed by its key, opened at the owner, and its bytes are relayed.

pub mod error;
pub mod handshake;

mod relay;
