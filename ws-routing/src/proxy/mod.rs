//! The proxy: a handshake is checked, routed by its key, opened at the owner, and its bytes are relayed; when the owner
//! changes, the far end changes behind the client's connection.
//!
//! Reading order: `service` (one client's way through), `core` (which node, and how a leg is opened), `relay` (the
//! machine), `drive` (its shell), `wire` and `memory` (a socket and what is in flight around it), `serving` (what a
//! connection's task holds), `trunk` (legs that share connections), `moves` and `probes` (what makes connections
//! move), `tls` and `http2` (clients that come by them), `journal` and `watch` (what can be seen of it), [`error`] (the
//! one table from failure to status or close code).

pub mod connect;
pub mod error;
pub mod handshake;

mod arrival;
mod builder;
mod connection;
pub(crate) mod core;
mod drive;
mod fence;
mod health;
#[cfg(feature = "tls")]
mod http2;
mod journal;
mod leg;
mod memory;
mod moves;
mod network;
mod probes;
pub(crate) mod relay;
mod service;
mod serving;
mod sockets;
#[cfg(feature = "tls")]
mod tls;
mod tower;
pub(crate) mod trunk;
mod watch;
pub(crate) mod wire;

pub(crate) use arrival::Arrival;
pub use arrival::Via;
pub use builder::Builder;
pub use core::DialSettings;
pub use leg::{LegStream, Legs};
pub use network::{Connecting, Network, Tcp};
pub use relay::{Redelivery, Settings};
pub use service::{Held, Proxy};
pub(crate) use service::{hashed, shown};
pub(crate) use serving::Joined;
pub use tower::{Body, ClientAddr};
pub use trunk::SharedLeg;
pub use watch::{Move, MoveWatch, News, NodeStatus, Standing};
