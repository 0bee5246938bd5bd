//! When a relayed connection's clocks are looked at: not for each message.

use std::{task::Context, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::coop::has_budget_remaining,
};

use super::{super::relay::Blocked, Drive};

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Drive<C> {
    /// Whether bytes only pass, and nothing is due yet: then no clock needs to be looked at. They make what is due come
    /// later, never sooner.
    pub(super) fn runs_steadily(&self) -> bool {
        self.settled && self.now < self.alarm && self.bytes_only_pass()
    }

    fn bytes_only_pass(&self) -> bool {
        self.sockets.blocked() == Blocked::default() && self.machine.runs_steadily()
    }

    pub(super) fn tick(&mut self, cx: &mut Context<'_>) -> bool {
        let (now, blocked) = (self.now, self.sockets.blocked());
        self.machine.tick(now, blocked, &mut self.sockets.ports(cx));
        false
    }

    /// Whether nothing is due before the timer goes off, and it wakes this task: most polls need not look at it.
    pub(super) fn sleeps(&mut self, cx: &mut Context<'_>) -> bool {
        self.armed || self.arm(cx)
    }

    /// Whether the timer has not gone off yet. A task that has used up its turn is not told, and not woken by it.
    fn arm(&mut self, cx: &mut Context<'_>) -> bool {
        let pending = self.timer.as_mut().poll(cx).is_pending();
        self.armed = pending && has_budget_remaining();
        pending
    }

    /// Arms the one timer; whether something is due already.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.now;
        (self.settled, self.armed) = (self.bytes_only_pass(), false);
        let retry = self.machine.retry_at();
        if retry.is_some_and(|at| at <= now) && self.machine.can_move(now) {
            self.reconsider = true;
        }
        let Some(due) = [self.machine.deadline(), retry.filter(|at| *at > now)].into_iter().flatten().min()
        else {
            self.alarm = Duration::MAX;
            return self.reconsider;
        };
        // A timer that goes off too early costs one look; setting it anew for each message would cost more.
        if self.alarm > due || self.alarm <= now {
            self.alarm = due;
            self.timer.as_mut().reset(self.epoch + due);
        }
        !self.arm(cx) || self.reconsider
    }
}
