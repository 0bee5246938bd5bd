//! Clients under measurement. Each payload that comes back is compared with the one that was sent.

mod client;
mod echo;
mod post;

pub use client::Client;
pub(crate) use client::mask;
pub use echo::{Echo, Echoed};
pub(crate) use post::message;
pub use post::{Poster, get};
