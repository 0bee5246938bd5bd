//! Rendezvous hashing, a membership view, and a WebSocket proxy that moves live connections between pods.

pub mod key;
pub mod node;
pub mod rendezvous;

#[cfg(feature = "proxy")]
pub mod app;
#[cfg(feature = "proxy")]
pub mod contract;
#[cfg(feature = "proxy")]
pub mod frame;
pub mod membership;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "proxy")]
pub mod session;

#[cfg(feature = "proxy")]
pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "proxy")]
pub mod drain;
#[cfg(feature = "proxy")]
pub mod metrics;
#[cfg(feature = "proxy")]
pub mod serve;

pub use key::Key;
pub use membership::Members;
pub use node::{Node, NodeId, NodeState};
