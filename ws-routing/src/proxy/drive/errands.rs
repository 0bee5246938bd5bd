//! What the shell does beside relaying: most connections do nothing of it, at most times.

use std::{future::Future, pin::Pin};

use super::{
    super::{core::Dialed, moves::Late, relay::DialFailure},
    Drive,
};
use crate::{metrics::MoveReason, node::NodeId, trace::Span};

/// A dial, what it is for, and the word to a node that was left.
#[derive(Default)]
pub(super) struct Errands {
    /// Where the next leg leads, or the dial that will make it.
    pub(super) heading: Option<(NodeId, MoveReason)>,
    pub(super) dial: Option<Dial>,
    /// Tells the node that was left without a Close.
    pub(super) fence: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The move that is under way, for those who trace it.
    pub(super) span: Option<Span>,
    /// While the connection is not where it belongs.
    late: Option<Late>,
}

pub(super) struct Dial {
    pub(super) is_move: bool,
    pub(super) dialing: Pin<Box<dyn Future<Output = Result<Dialed, DialFailure>> + Send>>,
}

impl Errands {
    pub(super) fn are_done(&self) -> bool {
        self.heading.is_none()
            && self.dial.is_none()
            && self.fence.is_none()
            && self.span.is_none()
            && self.late.is_none()
    }
}

impl<C> Drive<C> {
    /// Those that are under way, which begin with it.
    pub(super) fn errands(&mut self) -> &mut Errands {
        self.errands.get_or_insert_default()
    }

    /// Counts whether the connection is where it belongs.
    pub(super) fn count_late(&mut self, late: bool) {
        match &mut self.errands {
            Some(errands) if !late => errands.late = None,
            Some(errands) if errands.late.is_some() => {}
            _ if late => self.errands().late = Some(Late::new(&self.core)),
            _ => {}
        }
    }

    pub(super) fn take_heading(&mut self) -> Option<(NodeId, MoveReason)> {
        self.errands.as_mut()?.heading.take()
    }

    pub(super) fn take_dial(&mut self) -> Option<Dial> {
        self.errands.as_mut()?.dial.take()
    }

    pub(super) fn take_span(&mut self) -> Option<Span> {
        self.errands.as_mut()?.span.take()
    }
}
