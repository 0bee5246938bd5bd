//! Signs of life of both sides, and what is asked for without them.

use std::time::Duration;

use super::{
    Action, Edge, End, Outputs, PingKind, Slot,
    clocks::{Check, Patience},
    run::control,
};
use crate::{
    frame::Opcode,
    proxy::error::CloseReason,
    seeded::{self, Bug},
};

impl Edge {
    pub(super) fn tick_client(&mut self, now: Duration, out: &mut impl Outputs) {
        if self.blocked.client {
            let since = *self.client.stalled.get_or_insert(now.into());
            if now >= Duration::from(since) + self.settings.stall_timeout {
                return self.close(now, CloseReason::Stalled, out);
            }
        } else {
            self.client.stalled = None;
        }
        if !self.listens_to_client() {
            return self.client.life.seen(now);
        }
        match self.client.life.check(now, Patience::with_peer(&self.settings)) {
            Check::Fine => {}
            Check::Ask => {
                let payload = self.client.book.own(PingKind::Keepalive, self.sequence);
                out.client(&control(Opcode::Ping, &payload, None));
            }
            Check::Dead => self.finish(End { code: 1006, ..End::client() }),
        }
    }

    pub(super) fn tick_leg(&mut self, now: Duration, out: &mut impl Outputs) {
        let (rests, stuck, sequence) = (self.leg_rests(), self.leg_stuck(), self.sequence);
        let within_frame = self.within_leg_frame();
        let Some(leg) = &mut self.current else { return };
        if rests {
            return leg.life.seen(now);
        }
        let patience = leg.patience(&self.settings, within_frame);
        match if stuck { leg.life.check_stuck(now, patience) } else { leg.life.check(now, patience) } {
            Check::Ask => {
                let payload = leg.book.own(PingKind::Keepalive, sequence);
                let ping = leg.control(Opcode::Ping, &payload);
                out.leg(Slot::Current, &ping);
            }
            Check::Fine => {}
            Check::Dead => self.leg_lost(now, Slot::Current, out),
        }
    }

    /// Asks the app what it has read, and lets go of what it has surely handled.
    pub(super) fn tick_kept(&mut self, now: Duration, out: &mut impl Outputs) {
        if !self.keeps_now() {
            return;
        }
        let (Some(kept), Some(leg)) = (&mut self.kept, &mut self.current) else { return };
        if kept.expire(now) {
            self.actions.push_back(Action::Resume);
        }
        if self.client.decoder.at_frame()
            && let Some(number) = kept.ask(now)
        {
            let payload = leg.book.own(PingKind::Confirm, number);
            let ping = leg.control(Opcode::Ping, &payload);
            out.leg(Slot::Current, &ping);
            if seeded::has(Bug::ConfirmEarly) {
                kept.confirmed(now, number);
            }
        }
    }

    /// When one of the clocks of this file is due.
    pub(super) fn keepalive_deadline(&self) -> Option<Duration> {
        let stall = self.client.stalled_since().map(|since| since + self.settings.stall_timeout);
        let client =
            self.listens_to_client().then(|| self.client.life.deadline(Patience::with_peer(&self.settings)));
        let leg = self.current.as_ref().filter(|_| !self.leg_rests()).map(|leg| {
            let patience = leg.patience(&self.settings, self.within_leg_frame());
            if self.leg_stuck() { leg.life.stuck_deadline(patience) } else { leg.life.deadline(patience) }
        });
        let kept = self.kept.as_ref().filter(|_| self.keeps_now());
        let ask = kept.filter(|_| self.client.decoder.at_frame()).and_then(|kept| kept.ask_at());
        let expire = kept.and_then(|kept| kept.expire_at());
        [stall, client, leg, ask, expire].into_iter().flatten().min()
    }

    /// Whether what is kept is asked about and let go of now: not once the leg is being left.
    fn keeps_now(&self) -> bool {
        self.current.is_some() && self.phase().reads_client() && self.parting.is_none()
    }

    /// Whether silence of the client means anything now: it is read, and could be asked.
    fn listens_to_client(&self) -> bool {
        self.reads_client() && !self.blocked.client && !self.blocked.leg && self.at_client_frame()
    }

    /// Whether silence of the leg means nothing now: it is not read, or could not be asked.
    fn leg_rests(&self) -> bool {
        !self.reads_leg() || self.blocked.client || !(self.leg_stuck() || self.can_ask_leg())
    }

    /// Whether a leg without a sidecar takes nothing: its app may be hung. A sidecar shows its life unasked, and looks
    /// after its app itself.
    fn leg_stuck(&self) -> bool {
        self.blocked.leg && self.current.as_ref().is_some_and(|leg| !leg.sidecar)
    }

    fn within_leg_frame(&self) -> bool {
        self.leg_holds || !self.at_client_frame()
    }

    fn can_ask_leg(&self) -> bool {
        !self.blocked.leg && self.client.decoder.at_frame()
    }
}
