//! Who the members are.

mod members;
#[cfg(feature = "proxy")]
mod view;

pub use members::{Fingerprint, Members};
#[cfg(feature = "proxy")]
pub use view::{View, Writer, channel};
