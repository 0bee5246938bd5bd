//! One time for all states: each is told as if it were now, so that states which differ only in when they are reached
//! are the same.

use std::time::Duration;

use super::world::World;
use crate::proxy::relay::{
    clocks::{Liveness, ReplyPace},
    phase::Phase,
    transit::{Losses, Transit},
};

/// It is always this time. What is due lies after it, what was before it; nothing reaches back further.
pub(super) const NOW: Duration = Duration::from_secs(7200);

/// Shifts all times of `world` so that it is [`NOW`], and forgets what nobody looks at any more.
pub(super) fn rebase(world: &mut World) {
    let shift = Shift { by: world.now - NOW };
    world.now = NOW;
    let edge = &mut world.edge;
    edge.pace = ReplyPace::default();
    let _ = (edge.take_app_messages(), edge.take_redelivery_counts());
    let keepalive = world.budget.keepalive;
    shift.life(&mut edge.client.life, keepalive);
    if let Some(leg) = &mut edge.current {
        shift.life(&mut leg.life, keepalive);
    }
    if let Some(transit) = &mut edge.transit {
        shift.transit(transit, keepalive);
    }
    edge.forget_transit(NOW);
    if let Some(parting) = &mut edge.parting {
        shift.one(&mut parting.until);
    }
    if let Some(ending) = &mut edge.ending {
        shift.one(&mut ending.until);
    }
    if let Some(kept) = &mut edge.kept {
        kept.messages.iter_mut().for_each(|message| shift.option(&mut message.confirmed));
        shift.option(&mut kept.unasked.since);
    }
}

struct Shift {
    by: Duration,
}

impl Shift {
    fn one(&self, at: &mut Duration) {
        *at = at.saturating_sub(self.by);
    }

    fn option(&self, at: &mut Option<Duration>) {
        if let Some(at) = at {
            self.one(at);
        }
    }

    fn life(&self, life: &mut Liveness, matters: bool) {
        if matters {
            life.shift(self.by);
        } else {
            life.seen(NOW);
        }
    }

    fn transit(&self, transit: &mut Transit, keepalive: bool) {
        transit.pause = None;
        transit.farewell.clear();
        if let Some(leg) = &mut transit.next {
            self.life(&mut leg.life, keepalive);
        }
        self.phase(&mut transit.phase);
        self.option(&mut transit.retry.at);
        self.losses(&mut transit.losses);
    }

    fn phase(&self, phase: &mut Phase) {
        match phase {
            Phase::Steady | Phase::Dialing => {}
            Phase::Stopping { until } => self.one(until),
            // Since when the client waits is only counted.
            Phase::Settling { since, until } | Phase::Orphan { since, until, .. } => {
                *since = NOW;
                self.one(until);
            }
            Phase::Quiet { since, silent, until, .. } | Phase::Closing { since, silent, until } => {
                *since = NOW;
                self.one(silent);
                self.one(until);
            }
        }
    }

    fn losses(&self, losses: &mut Losses) {
        for last in &mut losses.last {
            self.option(last);
            *last = last.filter(|at| NOW < *at + Losses::WINDOW);
        }
    }
}
