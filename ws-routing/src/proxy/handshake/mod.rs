//! The opening handshake: read and checked at the client's side, rendered for the next hop, its answer checked.
//!
//! [`head`] reads heads, [`Handshake`] is what is kept of a request, [`LegHeaders`] is what two processes of ours tell
//! each other in it, [`ResponseHead`] and [`Accepted`] are the answer, [`body`] passes on the body of one that refuses.

pub mod body;
pub mod head;

mod answer;
mod deflate;
mod finish;
mod leg;
mod origin;
mod request;
mod strip;

pub use answer::{Accepted, Agreed, Framing, Nonsense, ResponseHead};
pub use deflate::Deflate;
pub use finish::finish;
pub use leg::LegHeaders;
pub use origin::{AllowedOrigins, InvalidOrigin};
pub use request::{Edge, Handshake};

#[cfg(test)]
mod tests;
