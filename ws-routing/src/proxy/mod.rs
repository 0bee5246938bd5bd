//! The path of a client's bytes: handshake, upstream connection, and the one table of failures.

pub mod connect;
pub mod error;
pub mod handshake;
