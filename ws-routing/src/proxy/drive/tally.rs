//! What a relayed connection has counted and told.

use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{super::journal::Moved, Drive};
use crate::{
    metrics::{Direction, MoveReason, MoveResult},
    node::NodeId,
};

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Drive<C> {
    pub(super) fn move_failed(&mut self) {
        let Some((node, reason)) = self.take_heading() else { return };
        let closed = self.finishing.is_some();
        self.move_ended(&node, reason, if closed { MoveResult::Closed } else { MoveResult::Postponed }, None);
    }

    pub(super) fn move_ended(
        &mut self,
        to: &NodeId,
        reason: MoveReason,
        result: MoveResult,
        pause: Option<Duration>,
    ) {
        self.core.metrics().moves(reason, result).inc();
        if let Some(mut span) = self.take_span() {
            span.set("ws.connection", self.connection.id.to_string());
            span.set("ws.from", self.node.as_str());
            span.set("ws.to", to.as_str());
            span.set("ws.reason", reason.as_str());
            span.set("ws.result", result.as_str());
            if let Some(pause) = pause {
                span.set("ws.pause", pause.as_secs_f64());
            }
            if result == MoveResult::Closed {
                span.fail();
            }
        }
        self.core.journal.note(|| Moved {
            at: SystemTime::now(),
            connection: self.connection.id.into(),
            key: self.connection.key.clone(),
            from: self.node.clone(),
            to: to.clone(),
            reason,
            result,
            pause,
        });
    }

    pub(super) fn count_messages(&mut self) {
        let sequence = self.machine.sequence();
        if sequence != self.counted {
            self.core.metrics().messages(Direction::ToApp).inc_by(sequence - self.counted);
            self.counted = sequence;
        }
        let again = self.machine.take_redelivery_counts();
        if again.redelivered > 0 {
            self.core.metrics().redelivered().inc_by(again.redelivered);
        }
        if again.unkept > 0 {
            self.core.metrics().unkept().inc_by(again.unkept);
        }
        let said = self.machine.take_app_messages();
        if said > 0 {
            self.core.metrics().messages(Direction::ToClient).inc_by(said);
        }
    }
}
