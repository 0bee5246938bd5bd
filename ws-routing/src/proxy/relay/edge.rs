//! Between a client and its upstream leg: bytes and events in, bytes and actions out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    End, Leg, Nonce, Settings,
    clocks::{Liveness, ReplyPace, Stamp},
    closing::{By, Ending, Parting},
    pings::PingBook,
    redelivery::{Counts, Kept},
    run::Run,
    transit::Transit,
};
use crate::{
    frame::{Control, Decoder, Kind, Opcode, Violation},
    proxy::error::CloseReason,
    seeded::{self, Bug},
};

/// Where the machine's bytes go. What is put is sent in order; nothing waits here.
pub(crate) trait Outputs {
    /// Towards the client.
    fn client(&mut self, bytes: &[u8]);
    /// Towards the app, on one of the legs.
    fn leg(&mut self, slot: Slot, bytes: &[u8]);
}

/// Which of a connection's legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The one that is relayed.
    Current,
    /// The one that a move has opened.
    Next,
}

/// What the machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// There is no leg: open one, at the owner first, until [`Edge::orphaned_until`].
    Replace,
    /// The current leg is left without a Close: its node is told by other means.
    Fence(Nonce),
    /// Let a leg go once what was put is written.
    Drop(Slot),
    /// The next leg is the current one from here on.
    Promote,
    /// The move has to be tried again later: let go of a dial that is under way.
    GiveUpDial,
    /// The client is read again: what was held of it is to be offered.
    Resume,
    /// All is said: let the client go once what was put is written.
    Finish,
}

/// The machine.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(super) settings: Arc<Settings>,
    pub(super) client: Client,
    pub(super) current: Option<Leg>,
    /// While its far end changes; most have none.
    pub(super) transit: Option<Box<Transit>>,
    pub(super) ending: Option<Box<Ending>>,
    pub(super) parting: Option<Box<Parting>>,
    /// Client messages handed over so far.
    pub(super) sequence: u64,
    /// App messages relayed since they were last counted.
    app_messages: u64,
    pub(super) pace: ReplyPace,
    pub(super) actions: VecDeque<Action>,
    pub(super) blocked: Blocked,
    /// The beginning of a frame of the leg has come, and is not passed on yet.
    pub(super) leg_holds: bool,
    /// What a crash must not lose.
    pub(super) kept: Option<Box<Kept>>,
}

/// Which writers have to wait, as the shell sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// Something waits for the client to take it.
    pub(crate) client: bool,
    /// Something waits for the current leg to take it.
    pub(crate) leg: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) decoder: Decoder,
    pub(super) book: PingBook,
    pub(super) life: Liveness,
    /// Since when it has taken nothing of what waits.
    pub(super) stalled: Option<Stamp>,
    /// The rest of its message belongs to a leg that was lost.
    pub(super) discard: bool,
}

impl Client {
    pub(super) fn stalled_since(&self) -> Option<Duration> {
        self.stalled.map(Duration::from)
    }
}

impl Edge {
    /// A connection whose handshake has been answered. `nonce` is for pings to the client.
    pub(crate) fn new(
        now: Duration,
        settings: Arc<Settings>,
        nonce: Nonce,
        compressed: bool,
        leg: Leg,
    ) -> Self {
        Self {
            client: Client {
                decoder: Decoder::new(true, compressed, 0),
                book: PingBook::new(nonce, false),
                life: Liveness::new(now),
                stalled: None,
                discard: false,
            },
            kept: settings.redelivery.map(|redelivery| Box::new(Kept::new(redelivery))),
            settings,
            current: Some(leg),
            transit: None,
            ending: None,
            parting: None,
            sequence: 0,
            app_messages: 0,
            pace: ReplyPace::default(),
            actions: VecDeque::new(),
            blocked: Blocked::default(),
            leg_holds: false,
        }
    }

    /// What is to be done now, one after another.
    pub(crate) fn action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // Few ever ask again.
            self.actions.shrink_to_fit();
        }
        action
    }

    /// Whether there is any.
    pub(crate) fn asks(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether bytes only pass between whole frames: what comes next makes [`Edge::deadline`] later, never sooner, and
    /// [`Edge::tick`] has nothing to see before that.
    pub(crate) fn runs_steadily(&self) -> bool {
        self.transit.is_none()
            && self.ending.is_none()
            && self.parting.is_none()
            && self.kept.is_none()
            && self.blocked == Blocked::default()
            && self.client.stalled.is_none()
            && !self.client.life.is_asked()
            && !self.current.as_ref().is_some_and(|leg| leg.life.is_asked())
            && self.client.decoder.at_frame()
            && self.at_client_frame()
    }

    /// Client messages handed over so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many app messages were relayed since this was asked last.
    pub(crate) fn take_app_messages(&mut self) -> u64 {
        std::mem::take(&mut self.app_messages)
    }

    /// Client messages before the first that the next leg carries, if it is to take over now.
    pub(crate) fn leg_sequence(&self) -> u64 {
        self.kept.as_ref().and_then(|kept| kept.first()).map_or(self.sequence, |first| first - 1)
    }

    /// How many messages the next leg is given again, if it is to take over now.
    pub(crate) fn redelivers(&self) -> u64 {
        if seeded::has(Bug::AnnounceNothing) {
            return 0;
        }
        self.kept.as_ref().map_or(0, |kept| kept.count())
    }

    /// What redelivery did since this was asked last.
    pub(crate) fn take_redelivery_counts(&mut self) -> Counts {
        self.kept.as_mut().map_or_else(Counts::default, |kept| kept.take_counts())
    }

    /// Whether the client is to be read.
    pub(crate) fn reads_client(&self) -> bool {
        match &self.ending {
            Some(ending) => ending.reads_client(),
            None => {
                self.phase().reads_client()
                    && self.current.is_some()
                    && self.parting.is_none()
                    && !self.kept.as_ref().is_some_and(|kept| kept.holds_client())
            }
        }
    }

    /// Whether the current leg is to be read.
    pub(crate) fn reads_leg(&self) -> bool {
        self.current.is_some() && self.ending.as_deref().is_none_or(Ending::reads_leg)
    }

    /// Takes bytes of the client and returns how many were consumed; the rest is to be offered again.
    pub(crate) fn client_bytes(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> usize {
        self.client.life.seen(now);
        if self.ending.as_deref().is_some_and(Ending::deaf) {
            return bytes.len();
        }
        if self.looks_ahead() && self.leaves_orphaned(now, bytes, out) {
            return bytes.len();
        }
        let mut run = Run::default();
        while !run.rest(bytes).is_empty() && self.reads_client() && self.takes_client_frame(run.rest(bytes)) {
            let unit = match self.client.decoder.next(run.rest(bytes)) {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                Err(violation) => {
                    run.flush(bytes, |b| out.leg(Slot::Current, b));
                    self.client_violates(now, violation, out);
                    return bytes.len();
                }
            };
            let pass = match unit.kind {
                Kind::Data { ends_message } => {
                    self.client_data(now, &run.rest(bytes)[..unit.len], ends_message)
                }
                Kind::Control(control) if self.close_waits(&control) => break,
                Kind::Control(control) => self.client_control(&control),
            };
            if !pass {
                run.flush(bytes, |b| out.leg(Slot::Current, b));
            }
            run.take(unit.len, pass);
            if let Kind::Control(control) = unit.kind
                && control.opcode == Opcode::Close
            {
                run.flush(bytes, |b| out.leg(Slot::Current, b));
                self.client_closed(now, &control, out);
                return bytes.len();
            }
            if self.client.decoder.at_message() && self.phase().stopping() {
                run.flush(bytes, |b| out.leg(Slot::Current, b));
                self.stopped(now, out);
                return run.end();
            }
        }
        run.flush(bytes, |b| out.leg(Slot::Current, b));
        run.end()
    }

    /// Takes bytes of the current leg and returns how many were consumed; the rest is to be offered again.
    pub(crate) fn leg_bytes(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> usize {
        self.leg_spoke(now);
        let mut run = Run::default();
        while !run.rest(bytes).is_empty() && self.reads_leg() {
            let Some(leg) = &mut self.current else { break };
            leg.life.seen(now);
            let unit = match leg.decoder.next(run.rest(bytes)) {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                Err(violation) => {
                    run.flush(bytes, |b| out.client(b));
                    self.app_violates(now, violation, out);
                    return bytes.len();
                }
            };
            match unit.kind {
                Kind::Data { ends_message } => {
                    let pass = self.app_data(now, ends_message);
                    if !pass {
                        run.flush(bytes, |b| out.client(b));
                    }
                    run.take(unit.len, pass);
                    if self.parting.is_some() {
                        run.flush(bytes, |b| out.client(b));
                        self.part(now, out);
                    }
                }
                Kind::Control(control) => {
                    let frame = &bytes[run.end()..run.end() + unit.len];
                    run.flush(bytes, |b| out.client(b));
                    run.take(unit.len, false);
                    if self.app_control(now, &control, frame, out) {
                        return run.end();
                    }
                }
            }
        }
        run.flush(bytes, |b| out.client(b));
        self.leg_holds = !run.rest(bytes).is_empty();
        run.end()
    }

    /// The client's side has ended without a Close. `held`: not all of what it said before was taken.
    pub(crate) fn client_ended(&mut self, now: Duration, held: bool, out: &mut impl Outputs) {
        if held && self.looks_ahead() && self.orphaned_until().is_none() {
            return self.put_off(now, out);
        }
        let code = self.ending.as_deref().map_or(1006, Ending::code);
        self.finish(End { code, ..End::client() });
    }

    /// Tells which writers have to wait, lets time pass, and asks for what is due.
    pub(crate) fn tick(&mut self, now: Duration, blocked: Blocked, out: &mut impl Outputs) {
        self.blocked = blocked;
        if self.ending.is_some() {
            return self.tick_ending(now, out);
        }
        if let Some(parting) = &self.parting {
            // All else is decided.
            if now >= parting.until {
                self.finish(End { code: 1006, by: By::Us });
            }
            return;
        }
        self.tick_client(now, out);
        if self.ending.is_none() {
            self.tick_leg(now, out);
        }
        if self.ending.is_none() {
            self.tick_phase(now, out);
        }
        if self.ending.is_none() {
            self.tick_kept(now, out);
        }
        self.forget_transit(now);
    }

    /// When [`Edge::tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if let Some(ending) = &self.ending {
            return ending.deadline();
        }
        if let Some(parting) = &self.parting {
            return Some(parting.until);
        }
        [self.keepalive_deadline(), self.phase().deadline(self.blocked.client)].into_iter().flatten().min()
    }

    /// The client has taken bytes.
    pub(crate) fn client_took(&mut self, now: Duration) {
        self.client.life.seen(now);
        self.client.stalled = None;
        // What the app said last has reached the client only now: its silence begins here.
        self.leg_spoke(now);
    }

    /// The current leg has taken bytes.
    pub(crate) fn leg_took(&mut self, now: Duration) {
        if let Some(leg) = &mut self.current {
            leg.life.seen(now);
        }
    }

    /// Why and how the connection ended, once [`Action::Finish`] was asked for.
    pub(crate) fn end(&self) -> Option<End> {
        self.ending.as_deref().and_then(Ending::end)
    }

    /// Whether the client's data passes to the app.
    fn client_data(&mut self, now: Duration, bytes: &[u8], ends_message: bool) -> bool {
        let pass = !self.client.discard && !self.drops_client();
        self.client.discard &= !ends_message;
        if !pass {
            return false;
        }
        if ends_message {
            self.sequence += 1;
            self.pace.client_message(now);
        }
        if let Some(kept) = &mut self.kept {
            kept.keep(now, bytes, ends_message.then_some(self.sequence));
        }
        true
    }

    /// Whether there is room for the client's frame that begins with `bytes`, if one begins there.
    fn takes_client_frame(&mut self, bytes: &[u8]) -> bool {
        match &mut self.kept {
            Some(kept) if self.client.decoder.at_frame() && !self.client.discard => kept.takes(bytes),
            _ => true,
        }
    }

    /// Whether this is the client's Close, and has to wait for what is kept.
    fn close_waits(&mut self, control: &Control) -> bool {
        control.opcode == Opcode::Close
            && self.ending.is_none()
            && self.kept.as_mut().is_some_and(|kept| kept.holds_close())
    }

    /// Whether the client's control frame passes to the app.
    fn client_control(&mut self, control: &Control) -> bool {
        match control.opcode {
            _ if self.drops_client() => false,
            Opcode::Ping => {
                if let Some(leg) = &mut self.current {
                    leg.book.relayed(control.payload());
                }
                true
            }
            Opcode::Pong => !self.client.book.pong(control.payload()).swallow,
            _ => true,
        }
    }

    /// Whether the app's data passes to the client.
    fn app_data(&mut self, now: Duration, ends_message: bool) -> bool {
        if ends_message {
            self.pace.app_message(now);
            self.app_messages += 1;
        }
        let Some(leg) = &mut self.current else { return false };
        let skip = leg.skip > 0;
        leg.skip -= u32::from(skip && ends_message);
        if !skip {
            // Whoever is written to and takes it is alive.
            self.client.life.seen(now);
        }
        !skip && !self.drops_leg()
    }

    fn drops_client(&self) -> bool {
        self.ending.as_deref().is_some_and(Ending::drops_client)
    }

    fn drops_leg(&self) -> bool {
        self.ending.as_deref().is_some_and(Ending::drops_leg)
    }

    /// Handles the app's control frame; whether what follows it must wait.
    fn app_control(
        &mut self,
        now: Duration,
        control: &Control,
        frame: &[u8],
        out: &mut impl Outputs,
    ) -> bool {
        match control.opcode {
            Opcode::Close => {
                self.app_closed(now, control, frame, out);
                return true;
            }
            _ if self.drops_leg() => {}
            Opcode::Ping => {
                self.client.book.relayed(control.payload());
                out.client(frame);
            }
            _ => return self.app_pong(now, control, frame, out),
        }
        false
    }

    fn app_pong(&mut self, now: Duration, control: &Control, frame: &[u8], out: &mut impl Outputs) -> bool {
        let Some(leg) = &mut self.current else { return false };
        let answered = leg.book.pong(control.payload());
        if !answered.swallow {
            out.client(frame);
        }
        if let Some(payload) = answered.relayed {
            out.client(&super::control(Opcode::Pong, &payload, None));
        }
        if let Some(number) = answered.settled {
            self.settled(now, number);
        }
        if let Some(kept) = &mut self.kept
            && let Some(number) = answered.confirmed.max(answered.settled)
            && kept.confirmed(now, number)
        {
            self.actions.push_back(Action::Resume);
        }
        false
    }

    /// Whether a frame of ours may be put towards the client: nothing of the app's is half said.
    pub(super) fn at_client_frame(&self) -> bool {
        self.current.as_ref().is_none_or(|leg| leg.decoder.at_frame())
    }

    fn app_violates(&mut self, now: Duration, violation: Violation, out: &mut impl Outputs) {
        tracing::warn!(%violation, "the app breaks the protocol");
        self.drop_current();
        self.close(now, CloseReason::AppNonsense, out);
    }
}
