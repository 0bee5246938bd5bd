//! Who the members are: sources speak a small language of updates, a fold turns them into a set, and a view shows
//! the latest set to everybody.
//!
//! ```text
//! fixed · file · dns · kubernetes · remote ── Update ── follow ── Fold ── Writer ── View ── Members
//! ```
//!
//! Three things hold whatever a source does: readers always see a whole set, a set that was once not empty is never
//! replaced by an empty one, and an event that changes nothing publishes nothing.

use std::{error::Error, fmt, future::Future, pin::Pin};

use crate::node::{Node, NodeId};

#[cfg(feature = "proxy")]
mod backoff;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "kube")]
mod endpoints;
#[cfg(feature = "proxy")]
mod file;
mod fixed;
#[cfg(feature = "proxy")]
mod follow;
#[cfg(feature = "kube")]
mod kubernetes;
mod members;
#[cfg(feature = "proxy")]
mod open;
#[cfg(feature = "proxy")]
mod remote;
#[cfg(feature = "proxy")]
mod snapshot;
mod uri;
#[cfg(feature = "proxy")]
mod view;

#[cfg(feature = "dns")]
pub use dns::{Dns, InvalidDns, Nameserver};
#[cfg(feature = "kube")]
pub use endpoints::endpoint_nodes;
#[cfg(feature = "proxy")]
pub use file::{File, FileError, InvalidLine};
pub use fixed::{Fixed, InvalidList};
#[cfg(feature = "proxy")]
pub use follow::{FollowOptions, follow};
#[cfg(feature = "kube")]
pub use kubernetes::{InvalidKubernetes, Kubernetes};
pub use members::{Fingerprint, Fold, Members};
#[cfg(feature = "proxy")]
pub use open::OpenError;
#[cfg(feature = "proxy")]
pub use remote::{Remote, members_stream};
#[cfg(feature = "proxy")]
pub use snapshot::Snapshot;
pub use uri::{InvalidUri, MembersUri};
#[cfg(feature = "proxy")]
pub use view::{View, Writer, WriterGone, channel};

/// Something that knows who the members are, and says so as it learns it.
///
/// The first answer is an [`Update::Reset`] with everything that is known: it is what readers wait for at start-up.
/// A source that cannot answer says so once with an error and tries again by itself, waiting in between: whoever
/// drives it asks for the next answer at once.
pub trait Source: fmt::Debug + Send {
    /// Waits for the next update; `None` when there will never be another one, which leaves the members as they are.
    ///
    /// # Errors
    ///
    /// The future gives a [`SourceError`] when the source could not be asked or answered nonsense. It may be asked
    /// again.
    ///
    /// # Cancel safety
    ///
    /// None is promised: a future that was dropped may have taken an update with it. `follow` never drops
    /// one.
    fn next(&mut self) -> NextUpdate<'_>;
}

/// What [`Source::next`] returns.
pub type NextUpdate<'a> = Pin<Box<dyn Future<Output = Option<Result<Update, SourceError>>> + Send + 'a>>;

impl<S: Source + ?Sized> Source for Box<S> {
    fn next(&mut self) -> NextUpdate<'_> {
        (**self).next()
    }
}

/// One step of what a source knows, keyed by node id: applying it twice changes nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// These are all.
    Reset(Vec<Node>),
    /// These joined, or changed weight, zone or state.
    Add(Vec<Node>),
    /// These left.
    Remove(Vec<NodeId>),
    /// The source was asked again and stands by what it said: only the view's age changes.
    Confirmed,
}

/// Why a source has no answer. The members stay as they are.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SourceError(Box<dyn Error + Send + Sync>);

impl SourceError {
    /// Wraps the cause: an error of the source's own, or a text.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}
