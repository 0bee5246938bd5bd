//! The node that serves a connection: the leg that was routed here on one side, the application on the other.
//!
//! Reading order: `sidecar` (what arrives at its port), `legs` (one leg's way through), `relay` (the machine), `drive`
//! (its shell), `seat` (who is here), `mailbox` and `merge` (what the API puts between), `deliver` (a call's way), `sender` (calls
//! of the program that the sidecar is part of).

pub(crate) mod deliver;
mod drive;
mod fence;
mod legs;
mod mailbox;
mod merge;
mod relay;
mod route_field;
mod seat;
mod sender;
mod shape;
mod sidecar;

#[cfg(test)]
pub(crate) mod answer_tests;
#[cfg(test)]
mod leg_end_tests;
#[cfg(test)]
mod liveness_tests;
#[cfg(test)]
mod seat_tests;

pub use crate::metrics::Ack;
pub use deliver::SendSettings;
pub use sender::{Message, SendError, Sender, Sent};
pub use sidecar::{Sidecar, SidecarParts};
