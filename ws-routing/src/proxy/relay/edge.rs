//! Between a client and its upstream leg: bytes and events in, bytes and actions out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    BUFFER, End, Nonce, PingKind, Settings,
    changeover::{Losses, Phase, Retry},
    clocks::{Check, Liveness, ReplyPace},
    closing::{By, Ending, Parting},
    pings::PingBook,
};
use crate::{
    frame::{self, Control, Decoder, Kind, Opcode, Violation},
    proxy::error::CloseReason,
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
#[derive(Debug)]
pub(crate) struct Edge {
    pub(super) settings: Arc<Settings>,
    pub(super) client: Client,
    pub(super) current: Option<Leg>,
    pub(super) next: Option<Leg>,
    pub(super) phase: Phase,
    pub(super) ending: Option<Ending>,
    pub(super) parting: Option<Parting>,
    pub(super) retry: Retry,
    pub(super) losses: Losses,
    /// Client messages handed over so far.
    pub(super) sequence: u64,
    /// App messages relayed since they were last counted.
    app_messages: u64,
    pub(super) pace: ReplyPace,
    pub(super) actions: VecDeque<Action>,
    /// How long the client was not read in the last move.
    pub(super) pause: Option<Duration>,
    pub(super) blocked: Blocked,
    /// The reason of the Close that ends the leg which a move leaves.
    pub(super) farewell: String,
    /// The client's ping that a lost leg did not answer.
    pub(super) asked: Option<Box<[u8]>>,
}

/// Which writers have to wait, as the shell sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// Something waits for the client to take it.
    pub(crate) client: bool,
    /// Something waits for the current leg to take it.
    pub(crate) leg: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) decoder: Decoder,
    pub(super) book: PingBook,
    pub(super) life: Liveness,
    /// Since when it has taken nothing of what waits.
    pub(super) stalled: Option<Duration>,
    /// The rest of its message belongs to a leg that was lost.
    pub(super) discard: bool,
}

/// One upstream leg.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(super) decoder: Decoder,
    pub(super) book: PingBook,
    pub(super) life: Liveness,
    /// Its node is draining, gone or suspect: a Close of 1001 or 1012 means the node, not the client.
    pub(super) leaving: bool,
    /// App messages still to be dropped.
    pub(super) skip: u32,
    /// It takes the place of another leg.
    pub(super) moved: bool,
    /// Its node has a sidecar.
    pub(super) sidecar: bool,
}

impl Leg {
    /// A leg whose handshake is done. `sidecar`: the node answers our keepalive pings in place of its app.
    pub(crate) fn new(
        now: Duration,
        settings: &Settings,
        nonce: Nonce,
        sidecar: bool,
        moved: bool,
        compressed: bool,
    ) -> Self {
        let timeout = if sidecar { settings.ping_timeout } else { settings.app_timeout };
        Self {
            decoder: Decoder::new(false, compressed, BUFFER),
            book: PingBook::new(nonce, sidecar),
            life: Liveness::new(now, settings.ping_interval, timeout),
            leaving: false,
            skip: if moved && !sidecar { settings.skip_on_move } else { 0 },
            moved,
            sidecar,
        }
    }

    /// A masked control frame of ours. The mask hides nothing from anybody: the payload is ours.
    pub(super) fn control(&self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        control(opcode, payload, Some((self.book.nonce().0 as u32).to_be_bytes()))
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
                life: Liveness::new(now, settings.ping_interval, settings.ping_timeout),
                stalled: None,
                discard: false,
            },
            settings,
            current: Some(leg),
            next: None,
            phase: Phase::Steady,
            ending: None,
            parting: None,
            retry: Retry::default(),
            losses: Losses::default(),
            sequence: 0,
            app_messages: 0,
            pace: ReplyPace::default(),
            actions: VecDeque::new(),
            pause: None,
            blocked: Blocked::default(),
            farewell: String::new(),
            asked: None,
        }
    }

    /// What is to be done now, one after another.
    pub(crate) fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Client messages handed over so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many app messages were relayed since this was asked last.
    pub(crate) fn take_app_messages(&mut self) -> u64 {
        std::mem::take(&mut self.app_messages)
    }

    /// Whether the client is to be read.
    pub(crate) fn reads_client(&self) -> bool {
        match &self.ending {
            Some(ending) => ending.reads_client(),
            None => self.phase.reads_client() && self.current.is_some(),
        }
    }

    /// Whether the current leg is to be read.
    pub(crate) fn reads_leg(&self) -> bool {
        self.current.is_some() && self.ending.as_ref().is_none_or(Ending::reads_leg)
    }

    /// Takes bytes of the client and returns how many were consumed; the rest is to be offered again.
    pub(crate) fn client_bytes(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> usize {
        self.client.life.seen(now);
        if self.ending.as_ref().is_some_and(Ending::deaf) {
            return bytes.len();
        }
        let mut run = Run::default();
        while self.reads_client() {
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
                Kind::Data { ends_message } => self.client_data(now, ends_message),
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
            if self.client.decoder.at_message() && self.phase.stopping() {
                run.flush(bytes, |b| out.leg(Slot::Current, b));
                self.stopped(now, out);
                return run.end;
            }
        }
        run.flush(bytes, |b| out.leg(Slot::Current, b));
        run.end
    }

    /// Takes bytes of the current leg and returns how many were consumed; the rest is to be offered again.
    pub(crate) fn leg_bytes(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> usize {
        self.phase.leg_spoke(now);
        let mut run = Run::default();
        while self.reads_leg() {
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
                    let frame = &bytes[run.end..run.end + unit.len];
                    run.flush(bytes, |b| out.client(b));
                    run.take(unit.len, false);
                    if self.app_control(now, &control, frame, out) {
                        return run.end;
                    }
                }
            }
        }
        run.flush(bytes, |b| out.client(b));
        run.end
    }

    /// The client's side has ended without a Close.
    pub(crate) fn client_ended(&mut self) {
        let code = self.ending.as_ref().map_or(1006, Ending::code);
        self.finish(End { code, ..End::client() });
    }

    /// Tells which writers have to wait, lets time pass, and asks for what is due.
    pub(crate) fn tick(&mut self, now: Duration, blocked: Blocked, out: &mut impl Outputs) {
        self.blocked = blocked;
        if self.ending.is_some() {
            return self.tick_ending(now, out);
        }
        if self.parting.is_some_and(|parting| now >= parting.until) {
            return self.finish(End { code: 1006, by: By::Us });
        }
        self.tick_client(now, out);
        self.tick_leg(now, out);
        self.tick_phase(now, out);
    }

    /// When [`Edge::tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if let Some(ending) = &self.ending {
            return ending.deadline();
        }
        let stall = self.client.stalled.map(|since| since + self.settings.stall_timeout);
        let client = self.listens_to_client().then(|| self.client.life.deadline());
        let leg = self.current.as_ref().filter(|_| !self.leg_rests()).map(|leg| leg.life.deadline());
        let parting = self.parting.map(|parting| parting.until);
        [stall, client, leg, parting, self.phase.deadline()].into_iter().flatten().min()
    }

    /// The client has taken bytes.
    pub(crate) fn client_took(&mut self, now: Duration) {
        self.client.life.seen(now);
        self.client.stalled = None;
    }

    /// The current leg has taken bytes.
    pub(crate) fn leg_took(&mut self, now: Duration) {
        if let Some(leg) = &mut self.current {
            leg.life.seen(now);
        }
    }

    /// How long the client was not read in the last move or loss, once.
    pub(crate) fn take_pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// Why and how the connection ended, once [`Action::Finish`] was asked for.
    pub(crate) fn end(&self) -> Option<End> {
        self.ending.as_ref().and_then(Ending::end)
    }

    fn client_data(&mut self, now: Duration, ends_message: bool) -> bool {
        let pass = !self.client.discard && !self.drops_client();
        if ends_message {
            self.client.discard = false;
            if pass {
                self.sequence += 1;
                self.pace.client_message(now);
            }
        }
        pass
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
        !skip && !self.drops_leg()
    }

    fn drops_client(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::drops_client)
    }

    fn drops_leg(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::drops_leg)
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
            out.client(&self::control(Opcode::Pong, &payload, None));
        }
        if answered.settled {
            self.settled(now);
        }
        false
    }

    fn tick_client(&mut self, now: Duration, out: &mut impl Outputs) {
        if self.blocked.client {
            let since = *self.client.stalled.get_or_insert(now);
            if now >= since + self.settings.stall_timeout {
                self.close(now, CloseReason::Stalled, out);
            }
        } else {
            self.client.stalled = None;
        }
        if !self.listens_to_client() {
            return self.client.life.seen(now);
        }
        match self.client.life.check(now) {
            Check::Fine => {}
            Check::Ask => {
                let payload = self.client.book.own(PingKind::Keepalive, self.sequence);
                out.client(&control(Opcode::Ping, &payload, None));
            }
            Check::Dead => self.finish(End { code: 1006, ..End::client() }),
        }
    }

    fn tick_leg(&mut self, now: Duration, out: &mut impl Outputs) {
        let (rests, sequence) = (self.leg_rests(), self.sequence);
        let Some(leg) = &mut self.current else { return };
        if rests {
            return leg.life.seen(now);
        }
        match leg.life.check(now) {
            Check::Ask => {
                let payload = leg.book.own(PingKind::Keepalive, sequence);
                let ping = leg.control(Opcode::Ping, &payload);
                out.leg(Slot::Current, &ping);
            }
            Check::Fine => {}
            Check::Dead => self.leg_lost(now, Slot::Current, out),
        }
    }

    /// Whether silence of the client means anything now: it is read, and could be asked.
    fn listens_to_client(&self) -> bool {
        self.reads_client() && !self.blocked.client && !self.blocked.leg && self.at_client_frame()
    }

    /// Whether silence of the leg means nothing now: it is not read, or could not be asked.
    fn leg_rests(&self) -> bool {
        !self.reads_leg() || self.blocked.client || self.blocked.leg || !self.client.decoder.at_frame()
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

/// A whole control frame.
pub(crate) fn control(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame::MAX_HEADER + payload.len());
    frame::write(&mut out, opcode, payload, mask);
    out
}

/// The bytes that pass as they came: a part of what was read that is written in one go.
#[derive(Debug, Default)]
pub(crate) struct Run {
    start: usize,
    end: usize,
}

impl Run {
    /// Takes `len` bytes more. Before bytes that do not pass, the run must have been flushed.
    pub(crate) fn take(&mut self, len: usize, pass: bool) {
        self.end += len;
        if !pass {
            self.start = self.end;
        }
    }

    pub(crate) fn flush(&mut self, bytes: &[u8], put: impl FnOnce(&[u8])) {
        if self.start < self.end {
            put(&bytes[self.start..self.end]);
            self.start = self.end;
        }
    }

    /// What has not been taken.
    pub(crate) fn rest<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.end..]
    }

    /// How many bytes were taken.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}
