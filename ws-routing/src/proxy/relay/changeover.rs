//! How the far end of a connection changes while the client stays: make before break (DESIGN: "Moves").

use std::time::Duration;

use super::{
    Action, By, Edge, End, Leg, Outputs, PingKind, Slot,
    clocks::QUIET_AT_MOST,
    phase::{CLOSE_SILENCE, Phase},
    transit::Retry,
};
use crate::{
    frame::{Control, Opcode, close_payload},
    proxy::error::CloseReason,
    seeded::{self, Bug},
};

/// How long a move waits for the end of the client's message.
const STOP: Duration = Duration::from_secs(5);
/// The longest wait for a leg's Close.
const CLOSE: Duration = Duration::from_secs(5);
/// How long an app is looked for again where the client came in without a balancer.
const OWN_APP: Duration = Duration::from_secs(2);

/// Why an opened or unopened leg cannot take the connection over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialFailure {
    /// Nobody answered, or with an error that may pass.
    Unreachable,
    /// The app refuses the handshake for good.
    Refused,
    /// It agreed another subprotocol or extension.
    Mismatch,
}

/// Why a client is closed for whom nobody was found.
fn unowned(own: bool) -> CloseReason {
    if own { CloseReason::AppFailed } else { CloseReason::NoOwner }
}

impl Edge {
    /// Whether a move may begin now.
    pub(crate) fn can_move(&self, now: Duration) -> bool {
        let retry = self.retry();
        *self.phase() == Phase::Steady
            && self.ending.is_none()
            && self.parting.is_none()
            && !retry.refused
            && retry.at.is_none_or(|at| now >= at)
    }

    /// Whether the app has refused the handshake at its next node, so that no move is tried any more.
    pub(crate) fn is_refused(&self) -> bool {
        self.retry().refused
    }

    /// When a move that was put off is due.
    pub(crate) fn retry_at(&self) -> Option<Duration> {
        if *self.phase() == Phase::Steady && self.ending.is_none() { self.retry().at } else { None }
    }

    /// A move begins: the shell opens the next leg and tells by [`Edge::connected`] or [`Edge::dial_failed`].
    ///
    /// `farewell` is the reason of the Close that ends the leg it leaves; it names the new node.
    pub(crate) fn begin_move(&mut self, farewell: String) {
        let transit = self.in_transit();
        transit.retry.at = None;
        transit.farewell = farewell;
        transit.phase = Phase::Dialing;
    }

    /// The connection is where it belongs: a move that was put off is not tried again.
    pub(crate) fn stay(&mut self) {
        if let Some(transit) = &mut self.transit
            && !seeded::has(Bug::ForgetRetry)
        {
            transit.retry.call_off();
        }
    }

    /// The move that is being dialed is not wanted any more.
    pub(crate) fn cancel_move(&mut self, out: &mut impl Outputs) {
        if matches!(self.phase(), Phase::Dialing | Phase::Stopping { .. }) {
            self.abandon_next(out);
            self.enter(Phase::Steady);
        }
    }

    /// Until when a leg is looked for, while there is none.
    pub(crate) fn orphaned_until(&self) -> Option<Duration> {
        match *self.phase() {
            Phase::Orphan { until, .. } => Some(until),
            _ => None,
        }
    }

    /// The current leg's node is draining, gone or suspect, or is not any more.
    pub(crate) fn set_leaving(&mut self, leaving: bool) {
        if let Some(leg) = &mut self.current {
            leg.leaving = leaving;
        }
    }

    /// A leg was opened, for a move or in place of a lost one. `same_node`: it is the node that was lost.
    pub(crate) fn connected(&mut self, now: Duration, leg: Leg, same_node: bool, out: &mut impl Outputs) {
        match *self.phase() {
            Phase::Dialing => {
                self.in_transit().next = Some(leg);
                if seeded::has(Bug::SwitchEarly) {
                    return self.switch(now, out);
                }
                self.enter(Phase::Stopping { until: now + STOP });
                if self.client.decoder.at_message() {
                    self.stopped(now, out);
                }
            }
            Phase::Orphan { .. } => {
                let transit = self.in_transit();
                if same_node {
                    transit.losses.replaced_at_same_node(now);
                }
                transit.next = Some(leg);
                self.switch(now, out);
            }
            _ => {
                self.in_transit().next = Some(leg);
                self.abandon_next(out);
            }
        }
    }

    /// No leg could be opened.
    pub(crate) fn dial_failed(&mut self, now: Duration, failure: DialFailure, out: &mut impl Outputs) {
        if failure == DialFailure::Mismatch {
            return self.close(now, CloseReason::NotMovable("the new node agreed another protocol"), out);
        }
        match *self.phase() {
            Phase::Dialing => {
                self.in_transit().retry.refused |= failure == DialFailure::Refused;
                self.put_off(now, out);
            }
            Phase::Orphan { .. } if failure == DialFailure::Refused => {
                self.close(now, CloseReason::NotAccepted, out);
            }
            Phase::Orphan { own, .. } => self.close(now, unowned(own), out),
            _ => {}
        }
    }

    /// A leg has ended without a Close.
    pub(crate) fn leg_lost(&mut self, now: Duration, slot: Slot, out: &mut impl Outputs) {
        match slot {
            Slot::Current if self.ending.is_some() => self.leg_lost_at_the_end(out),
            Slot::Current if self.current.is_none() => {}
            Slot::Current => self.current_gone(now, false, out),
            Slot::Next => self.next_lost(now, out),
        }
    }

    /// The app has said Close.
    pub(super) fn app_closed(
        &mut self,
        now: Duration,
        control: &Control,
        frame: &[u8],
        out: &mut impl Outputs,
    ) {
        let code = control.code();
        let leaving = self.current.as_ref().is_some_and(|leg| leg.leaving);
        let closing = matches!(self.phase(), Phase::Closing { .. });
        if self.ending.is_none() && closing && matches!(code, 1000 | 1001 | 1005) {
            self.switch(now, out);
        } else if self.ending.is_none() && leaving && matches!(code, 1001 | 1012) {
            self.answer_close(code, out);
            self.current_gone(now, true, out);
        } else {
            self.pass_app_close(now, control, frame, out);
        }
    }

    /// The client's message has ended and it is not read any more: is the app done with what was sent?
    pub(super) fn stopped(&mut self, now: Duration, out: &mut impl Outputs) {
        let Some(leg) = &mut self.current else { return };
        let payload = leg.book.own(PingKind::Settle, self.sequence);
        let ping = leg.control(Opcode::Ping, &payload);
        out.leg(Slot::Current, &ping);
        self.enter(Phase::Settling { since: now, until: now + self.settings.move_linger });
        if seeded::has(Bug::ForgetSettle) {
            self.close_current(now, now, out);
        }
    }

    /// The settle ping was answered.
    ///
    /// `number` is the ping's: that of a move which was put off says nothing of what came after it.
    pub(super) fn settled(&mut self, now: Duration, number: u64) {
        if let Phase::Settling { since, .. } = *self.phase()
            && (number == self.sequence || seeded::has(Bug::StaleSettle))
        {
            let quiet = self.pace.quiet(&self.settings);
            self.enter(Phase::Quiet { since, silent: now, quiet, until: now + QUIET_AT_MOST });
        }
    }

    pub(super) fn tick_phase(&mut self, now: Duration, out: &mut impl Outputs) {
        let blocked = self.blocked.client;
        if self.phase().deadline(blocked).is_none_or(|deadline| now < deadline) {
            return;
        }
        let stands_still = self.client.stalled_since().is_some_and(|since| now >= since + CLOSE_SILENCE);
        if let Some(transit) = &mut self.transit
            && blocked
            && stands_still
            && transit.phase.wait_for_client(now)
        {
            return;
        }
        match *self.phase() {
            Phase::Steady | Phase::Dialing => {}
            Phase::Stopping { .. } | Phase::Settling { .. } => self.put_off(now, out),
            Phase::Quiet { since, .. } => self.close_current(now, since, out),
            Phase::Closing { .. } => {
                self.fence();
                self.switch(now, out);
            }
            Phase::Orphan { own, .. } => self.close(now, unowned(own), out),
        }
    }

    /// The leg has said all: it is told to end.
    fn close_current(&mut self, now: Duration, since: Duration, out: &mut impl Outputs) {
        if let Some(leg) = &self.current {
            let farewell = self.transit.as_ref().map_or("", |transit| &transit.farewell);
            let reason = if leg.sidecar { leg.book.nonce().mark(farewell) } else { farewell.into() };
            out.leg(Slot::Current, &leg.control(Opcode::Close, &close_payload(1001, &reason)));
        }
        self.enter(Phase::Closing { since, silent: now, until: now + CLOSE });
    }

    /// The next leg takes over.
    fn switch(&mut self, now: Duration, out: &mut impl Outputs) {
        if !self.current_ended_well(now, out) {
            return;
        }
        if matches!(self.phase(), Phase::Closing { .. })
            && let Some(kept) = &mut self.kept
        {
            kept.clear();
        }
        let Some(mut leg) = self.take_next() else { return self.orphan(now) };
        self.take_asked();
        self.actions.push_back(Action::Promote);
        self.open_leg(&mut leg, out);
        leg.life.seen(now);
        self.current = Some(leg);
        self.leg_holds = false;
        let transit = self.in_transit();
        transit.pause = transit.phase.paused_since().map(|since| now.saturating_sub(since));
        transit.phase = Phase::Steady;
        transit.retry = Retry::default();
        self.client.discard |= seeded::has(Bug::SkipAtSwitch);
    }

    /// What a leg that takes over is told before anything else.
    fn open_leg(&mut self, leg: &mut Leg, out: &mut impl Outputs) {
        let mut count = self.leg_sequence();
        if leg.moved {
            leg.live(count, out);
        }
        let last = self.kept.as_mut().and_then(|kept| {
            kept.replay(|number, frames| {
                // What was too large to keep is not delivered again, but has a number.
                if number != count + 1 {
                    leg.live(number - 1, out);
                }
                out.leg(Slot::Next, frames);
                count = number;
            })
        });
        if last.is_some() && count != self.sequence {
            leg.live(self.sequence, out);
        }
        if let Some(payload) = self.in_transit().asked.take() {
            leg.book.relayed(&payload);
            out.leg(Slot::Next, &leg.control(Opcode::Ping, &payload));
        }
        if let Some(number) = last {
            let payload = leg.book.own(PingKind::Confirm, number);
            out.leg(Slot::Next, &leg.control(Opcode::Ping, &payload));
        }
        if let Some(kept) = &self.kept {
            kept.replay_open(|b| out.leg(Slot::Next, b));
        }
    }

    /// The current leg goes: what the client asked it is asked of the next, and what it asked is nobody's.
    fn take_asked(&mut self) {
        if let Some(unanswered) = self.current.as_mut().and_then(|old| old.book.take_relayed()) {
            self.in_transit().asked = Some(unanswered);
        }
        self.client.book.forget_relayed();
    }

    /// Whether the client may be left as the current leg left it: with nothing half said.
    fn current_ended_well(&mut self, now: Duration, out: &mut impl Outputs) -> bool {
        let Some(leg) = &self.current else { return true };
        if !leg.decoder.at_frame() {
            self.finish(End { code: 1006, by: By::Us });
            return false;
        }
        if !leg.decoder.at_message() {
            self.drop_current();
            self.close(now, CloseReason::Torn, out);
            return false;
        }
        true
    }

    /// The current leg is gone: lost, or closed by a node that is leaving (`said_so`).
    fn current_gone(&mut self, now: Duration, said_so: bool, out: &mut impl Outputs) {
        if self.parting.is_some() {
            return self.finish(End { code: 1006, by: By::Us });
        }
        if !self.current_ended_well(now, out) {
            return;
        }
        if let Err(reason) = self.may_be_replaced(now, said_so) {
            self.drop_current();
            return self.close(now, reason, out);
        }
        if !said_so {
            self.fence();
        }
        let cut = self.cuts_message() && !seeded::has(Bug::RestAfterLoss);
        self.client.discard |= cut;
        if self.redelivers() > 0 {
            // The handshake has to announce what is delivered again.
            self.abandon_next(out);
            self.orphan(now);
        } else if self.next().is_some() {
            self.switch(now, out);
        } else {
            self.orphan(now);
        }
    }

    /// Whether the client may be given another leg in place of the one that is gone.
    fn may_be_replaced(&self, now: Duration, said_so: bool) -> Result<(), CloseReason> {
        if (said_so || self.phase().stopping()) && self.cuts_message() {
            return Err(CloseReason::NotMovable("a message was cut off"));
        }
        if self.retry().refused {
            return Err(CloseReason::NotAccepted);
        }
        if self.kept.as_ref().is_some_and(|kept| kept.is_poisoned()) {
            return Err(CloseReason::Poisonous);
        }
        if !said_so && self.next().is_none() && self.is_third_loss(now) {
            return Err(CloseReason::AppFailed);
        }
        Ok(())
    }

    /// Whether the client is in the middle of a message whose beginning goes with the leg.
    fn cuts_message(&self) -> bool {
        let begun = !self.client.decoder.at_message() && !self.client.discard;
        begun && !self.kept.as_ref().is_some_and(|kept| kept.has_open())
    }

    /// The current leg's node may not see that it is left.
    fn fence(&mut self) {
        if seeded::has(Bug::NoFence) {
            return;
        }
        if let Some(leg) = self.current.as_ref().filter(|leg| leg.sidecar && !leg.own) {
            self.actions.push_back(Action::Fence(leg.book.nonce()));
        }
    }

    /// Answers a Close that does not pass to the client.
    fn answer_close(&self, code: u16, out: &mut impl Outputs) {
        if let Some(leg) = self.current.as_ref().filter(|_| self.client.decoder.at_frame()) {
            out.leg(Slot::Current, &leg.control(Opcode::Close, &close_payload(code, "")));
        }
    }

    /// There is no leg: the client waits for another.
    fn orphan(&mut self, now: Duration) {
        let since = self.phase().paused_since().unwrap_or(now);
        let dialing = *self.phase() == Phase::Dialing && self.redelivers() == 0;
        let own = self.current.as_ref().is_some_and(|leg| leg.own);
        self.take_asked();
        self.drop_current();
        let grace = if own { OWN_APP } else { self.settings.orphan_grace };
        self.enter(Phase::Orphan { since, until: now + grace, own });
        if !dialing {
            self.actions.push_back(Action::Replace);
        }
    }

    /// The next leg is gone before it took over.
    fn next_lost(&mut self, now: Duration, out: &mut impl Outputs) {
        if self.take_next().is_none() {
            return;
        }
        self.actions.push_back(Action::Drop(Slot::Next));
        if !matches!(self.phase(), Phase::Closing { .. }) {
            self.put_off(now, out);
        }
    }

    /// The move is tried again later; the current leg goes on.
    pub(super) fn put_off(&mut self, now: Duration, out: &mut impl Outputs) {
        self.abandon_next(out);
        self.actions.push_back(Action::Resume);
        let transit = self.in_transit();
        transit.phase = Phase::Steady;
        transit.retry.put_off(now);
    }

    /// Lets go of a next leg, or of the dial that would have made one.
    pub(super) fn abandon_next(&mut self, out: &mut impl Outputs) {
        if let Some(leg) = self.take_next() {
            out.leg(Slot::Next, &leg.control(Opcode::Close, &close_payload(1001, "not needed any more")));
            self.actions.push_back(Action::Drop(Slot::Next));
        } else {
            self.actions.push_back(Action::GiveUpDial);
        }
    }

    pub(super) fn drop_current(&mut self) {
        if self.current.take().is_some() {
            self.actions.push_back(Action::Drop(Slot::Current));
        }
    }
}
