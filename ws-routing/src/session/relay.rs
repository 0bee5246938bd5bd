//! Between a leg and the app, at the node that serves it: bytes and events in, bytes and actions out.

use std::time::Duration;

use super::shape::{Shape, Within};
use crate::{
    contract::MOVED_TO,
    frame::{Control, Decoder, Kind, Opcode, close_payload},
    node::NodeId,
    proxy::{
        error::CloseReason,
        relay::{
            Blocked, Nonce, Ping, PingBook, PingKind, Run, Settings,
            clocks::{Check, Liveness, Patience},
            control,
        },
    },
};

/// Where the machine's bytes go. What is put is sent in order; nothing waits here.
pub(crate) trait Outputs {
    /// Towards the client.
    fn leg(&mut self, bytes: &[u8]);
    /// Towards the app.
    fn app(&mut self, bytes: &[u8]);
}

/// One leg and its app.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) from_leg: Decoder,
    pub(super) from_app: Decoder,
    /// What a balancer's pings carry; without it every ping is the client's.
    leg_nonce: Option<Nonce>,
    /// Pings that went to the client, of the app's and our own for receipts.
    pub(super) asked_client: PingBook,
    /// Pings that went to the app, of the client's, the balancer's and our own.
    asked_app: PingBook,
    app_life: Liveness,
    patience: Patience,
    /// What the app has to take waits.
    app_stuck: bool,
    /// When the balancer is to be told again that we live, while the app takes nothing and so we read nothing.
    sign: Option<Duration>,
    sign_interval: Duration,
    /// The app's end of the stream, if that is within this process.
    pub(super) within: Option<Within>,
    live: bool,
    /// App messages still to be dropped.
    skip: u32,
    /// The balancer has closed this leg because the connection is elsewhere now.
    moved: bool,
    /// Where it is, as that Close says.
    moved_to: Option<NodeId>,
    /// Until when a settle ping means that the connection is about to leave.
    pub(super) settling: Option<Duration>,
    settle_for: Duration,
    draining: bool,
    pub(super) closing: Closing,
    finished: Option<Finished>,
    pub(super) messages: Messages,
    /// The highest number of a receipt's ping that the client has answered since it was last taken.
    pub(super) confirmed: Option<u64>,
}

/// Messages relayed since they were last counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Messages {
    pub(crate) to_app: u64,
    pub(crate) to_client: u64,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// The code that was sent first; 1006 when there was none.
    pub(crate) code: u16,
    /// The connection is at another node now.
    pub(crate) moved: bool,
    /// The app's side was lost, and the leg is cut so that the connection moves.
    pub(crate) cut: bool,
    /// The leg of a balancer ended without a word: the client may be gone, or on its way elsewhere.
    pub(crate) adrift: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Closing {
    code: Option<u16>,
    leg_said: bool,
    app_said: bool,
    /// We began it: what either side says in between is dropped.
    ours: bool,
    pub(super) until: Option<Duration>,
}

impl Closing {
    /// We close both sides.
    pub(super) fn begin(&mut self, now: Duration, code: u16) {
        *self = Self { code: Some(code), ours: true, until: Some(now + HANDSHAKE), ..*self };
    }
}

/// The longest closing handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long after the answer to a settle ping the move's Close may come: the longest wait for silence, and then some.
const SETTLE: Duration = Duration::from_secs(3);

impl Session {
    /// A leg whose handshake is done. `moved_in`: it takes the place of another and is not live yet.
    pub(crate) fn new(
        now: Duration,
        settings: &Settings,
        leg_nonce: Option<Nonce>,
        own: Nonce,
        shape: Shape,
    ) -> Self {
        let Shape { compressed, moved_in, within } = shape;
        Self {
            from_leg: Decoder::new(true, compressed, 0),
            from_app: Decoder::new(false, compressed, 0),
            leg_nonce,
            asked_client: PingBook::new(own, false),
            asked_app: PingBook::new(own, false),
            app_life: Liveness::new(now),
            patience: Patience::with_app(settings),
            app_stuck: false,
            sign: None,
            sign_interval: settings.ping_interval.min(settings.ping_timeout),
            within,
            live: !moved_in,
            skip: if moved_in { settings.skip_on_move } else { 0 },
            moved: false,
            moved_to: None,
            settling: None,
            settle_for: settings.move_linger + SETTLE,
            draining: false,
            closing: Closing::default(),
            finished: None,
            messages: Messages::default(),
            confirmed: None,
        }
    }

    pub(crate) fn reads_leg(&self) -> bool {
        self.finished.is_none() && !self.closing.leg_said
    }

    pub(crate) fn reads_app(&self) -> bool {
        self.finished.is_none() && !self.closing.app_said
    }

    /// How it ended, once it has.
    pub(crate) fn finished(&self) -> Option<Finished> {
        self.finished
    }

    /// Whether this leg is the connection's.
    pub(crate) fn is_live(&self) -> bool {
        self.live && !self.moved && self.finished.is_none()
    }

    /// Whether this leg is not the connection's yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.live && !self.moved && self.finished.is_none() && self.closing.until.is_none()
    }

    /// Where the connection is now, once the balancer has said so.
    pub(crate) fn moved_to(&self) -> Option<&NodeId> {
        self.moved_to.as_ref()
    }

    pub(crate) fn take_messages(&mut self) -> Messages {
        std::mem::take(&mut self.messages)
    }

    /// The node has begun to drain: its app's farewells mean the node, not the client.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes bytes of the leg and returns how many were consumed; the rest is to be offered again.
    pub(crate) fn leg_bytes(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> usize {
        let mut run = Run::default();
        while self.reads_leg() {
            let unit = match self.from_leg.next(run.rest(bytes)) {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                Err(violation) => {
                    run.flush(bytes, |b| out.app(b));
                    self.close(now, CloseReason::ClientProtocol(violation.reason()), out);
                    self.closing.leg_said = true;
                    return bytes.len();
                }
            };
            match unit.kind {
                Kind::Data { ends_message } => {
                    // The client is read again: the move was put off.
                    self.settling = None;
                    self.messages.to_app += u64::from(ends_message);
                    self.pass(&mut run, unit.len, bytes, !self.closing.ours, |b| out.app(b));
                }
                Kind::Control(control) => {
                    let pass = !self.closing.ours && self.leg_control(now, &control, out, &mut run, bytes);
                    self.pass(&mut run, unit.len, bytes, pass, |b| out.app(b));
                }
            }
        }
        run.flush(bytes, |b| out.app(b));
        self.end_if_said();
        run.end()
    }

    /// Takes bytes of the app and returns how many were consumed; the rest is to be offered again.
    pub(crate) fn app_bytes(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> usize {
        self.app_life.seen(now);
        let mut run = Run::default();
        while self.reads_app() {
            let unit = match self.from_app.next(run.rest(bytes)) {
                Ok(Some(unit)) => unit,
                Ok(None) => break,
                Err(violation) => {
                    run.flush(bytes, |b| out.leg(b));
                    tracing::warn!(%violation, "the app breaks the protocol");
                    self.close(now, CloseReason::AppNonsense, out);
                    self.closing.app_said = true;
                    return bytes.len();
                }
            };
            match unit.kind {
                Kind::Data { ends_message } => {
                    self.messages.to_client += u64::from(ends_message);
                    let pass = !self.skips(ends_message) && !self.closing.ours;
                    self.pass(&mut run, unit.len, bytes, pass, |b| out.leg(b));
                }
                Kind::Control(control) => {
                    run.flush(bytes, |b| out.leg(b));
                    let pass = !self.closing.ours && self.app_control(now, &control, out);
                    self.pass(&mut run, unit.len, bytes, pass, |b| out.leg(b));
                }
            }
        }
        run.flush(bytes, |b| out.leg(b));
        self.end_if_said();
        run.end()
    }

    /// The leg ended without a Close: the app is told by the end of its own connection.
    pub(crate) fn leg_ended(&mut self) {
        let adrift = self.leg_nonce.is_some() && self.closing.until.is_none();
        let code = self.closing.code.unwrap_or(1006);
        self.finished.get_or_insert(Finished { code, moved: self.moved, cut: false, adrift });
    }

    /// The app ended without a Close: the leg is cut, so that whoever relays it looks for another node.
    pub(crate) fn app_ended(&mut self, out: &mut impl Outputs) {
        if self.closing.leg_said && !self.closing.ours && self.from_app.at_frame() {
            // The client waits for its Close to be answered, and the app has nothing more to say.
            out.leg(&control(Opcode::Close, &close_payload(self.closing.code.unwrap_or(1000), ""), None));
        }
        self.lose_app();
    }

    /// The app's side is lost: the connection goes on at another node, unless somebody has said Close.
    fn lose_app(&mut self) {
        let cut = !self.closing.leg_said && !self.closing.ours;
        let code = self.closing.code.unwrap_or(1006);
        self.finished.get_or_insert(Finished { code, moved: self.moved, cut, adrift: false });
    }

    /// Closes both sides with a reason of ours.
    pub(crate) fn close(&mut self, now: Duration, reason: CloseReason, out: &mut impl Outputs) {
        if self.closing.until.is_some() || self.finished.is_some() {
            return;
        }
        self.closing.begin(now, reason.code());
        if !self.from_app.at_frame() || !self.from_leg.at_frame() {
            return self.finish();
        }
        out.leg(&control(Opcode::Close, &close_payload(reason.code(), &reason.reason()), None));
        let payload = close_payload(1001, "the client's connection ends");
        out.app(&control(Opcode::Close, &payload, Some(self.mask())));
    }

    /// Lets time pass, and asks the app for a sign of life when it is due.
    pub(crate) fn tick(&mut self, now: Duration, blocked: Blocked, out: &mut impl Outputs) {
        if self.closing.until.is_some_and(|until| now >= until) {
            return self.finish();
        }
        self.settling = self.settling.filter(|until| now < *until);
        self.show_life(now, blocked, out);
        self.app_stuck = blocked.leg;
        if self.app_rests(blocked) {
            return self.app_life.seen(now);
        }
        let check = match self.app_stuck {
            true => self.app_life.check_stuck(now, self.patience),
            false => self.app_life.check(now, self.patience),
        };
        match check {
            Check::Fine => {}
            Check::Ask => {
                let payload = self.asked_app.own(PingKind::Keepalive, 0);
                out.app(&control(Opcode::Ping, &payload, Some(self.mask())));
            }
            Check::Dead => {
                let taken = if self.app_stuck { "takes nothing" } else { "answers no ping" };
                tracing::warn!("the app {taken}");
                self.lose_app();
            }
        }
    }

    /// When [`Session::tick`] is due at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.closing.until {
            _ if self.finished.is_some() => None,
            None => [Some(self.app_deadline()), self.sign, self.settling].into_iter().flatten().min(),
            until => until,
        }
    }

    fn app_deadline(&self) -> Duration {
        match self.app_stuck {
            true => self.app_life.stuck_deadline(self.patience),
            false => self.app_life.deadline(self.patience),
        }
    }

    /// Says unasked that we live, while what the balancer asks may lie unread behind what a slow app has not taken.
    fn show_life(&mut self, now: Duration, blocked: Blocked, out: &mut impl Outputs) {
        let Some(nonce) = self.leg_nonce.filter(|_| blocked.leg && self.closing.until.is_none()) else {
            self.sign = None;
            return;
        };
        if *self.sign.get_or_insert(now + self.sign_interval) > now {
            return;
        }
        self.sign = Some(now + self.sign_interval);
        if self.from_app.at_frame() && !blocked.client {
            // No ping has this number: it answers none.
            let payload = Ping { kind: PingKind::Keepalive, number: u64::MAX }.payload(nonce);
            out.leg(&control(Opcode::Pong, &payload, None));
        }
    }

    /// The app has taken bytes.
    pub(crate) fn app_took(&mut self, now: Duration) {
        self.app_life.seen(now);
    }

    /// Whether the app's silence means nothing now.
    ///
    /// What stands within this process cannot be dead, and has its own limits for what it waits for.
    fn app_rests(&self, blocked: Blocked) -> bool {
        self.within.is_some_and(|within| !within.pinged)
            || !self.reads_app()
            || blocked.client
            || !(blocked.leg || self.from_leg.at_frame())
            || self.closing.until.is_some()
    }

    /// Whether the app's message is one that greets every connection, and this is not the connection's first leg.
    fn skips(&mut self, ends_message: bool) -> bool {
        let skips = self.skip > 0;
        self.skip -= u32::from(skips && ends_message);
        skips
    }

    /// Adds a unit to the run if it passes; else flushes what is before it and leaves it out.
    fn pass(&self, run: &mut Run, len: usize, bytes: &[u8], pass: bool, put: impl FnOnce(&[u8])) {
        if !pass {
            run.flush(bytes, put);
        }
        run.take(len, pass);
    }

    /// Whether the leg's control frame passes to the app.
    fn leg_control(
        &mut self,
        now: Duration,
        control: &Control,
        out: &mut impl Outputs,
        run: &mut Run,
        bytes: &[u8],
    ) -> bool {
        match control.opcode {
            Opcode::Ping => self.leg_ping(now, control, out),
            Opcode::Pong => {
                let answered = self.asked_client.pong(control.payload());
                self.confirmed = self.confirmed.max(answered.confirmed);
                if let Some(payload) = answered.relayed {
                    run.flush(bytes, |b| out.app(b));
                    out.app(&self::control(Opcode::Pong, &payload, Some(self.mask())));
                }
                !answered.swallow
            }
            _ => {
                run.flush(bytes, |b| out.app(b));
                self.leg_close(now, control, out)
            }
        }
    }

    fn leg_ping(&mut self, now: Duration, control: &Control, out: &mut impl Outputs) -> bool {
        let ours = self.leg_nonce.and_then(|nonce| Ping::parse(control.payload(), nonce));
        match ours.map(|ping| ping.kind) {
            Some(kind) if !kind.goes_far() => {
                self.live |= kind == PingKind::Live;
                if self.from_app.at_frame() {
                    out.leg(&self::control(Opcode::Pong, control.payload(), None));
                }
                // In the middle of a frame of the app's no answer fits; the frame itself is a sign of life.
                self.within.is_some() && kind == PingKind::Live
            }
            kind => {
                if kind == Some(PingKind::Settle) {
                    self.settling = Some(now + self.settle_for);
                }
                self.asked_app.relayed(control.payload());
                true
            }
        }
    }

    /// Whether the leg's Close passes to the app as it came.
    fn leg_close(&mut self, now: Duration, control: &Control, out: &mut impl Outputs) -> bool {
        self.closing.leg_said = true;
        self.closing.code.get_or_insert(control.code());
        self.closing.until.get_or_insert(now + HANDSHAKE);
        let reason = std::str::from_utf8(control.payload().get(2..).unwrap_or_default()).unwrap_or_default();
        let Some(reason) = self.leg_nonce.and_then(|nonce| nonce.unmark(reason)) else { return true };
        self.moved = true;
        self.moved_to = reason.strip_prefix(MOVED_TO).and_then(|node| node.parse().ok());
        if self.within.is_some() {
            return true;
        }
        out.app(&self::control(Opcode::Close, &close_payload(control.code(), reason), Some(self.mask())));
        false
    }

    /// Whether the app's control frame passes to the leg.
    fn app_control(&mut self, now: Duration, control: &Control, out: &mut impl Outputs) -> bool {
        match control.opcode {
            Opcode::Ping => {
                self.asked_client.relayed(control.payload());
                true
            }
            Opcode::Pong => {
                let answered = self.asked_app.pong(control.payload());
                if let Some(payload) = answered.relayed {
                    out.leg(&self::control(Opcode::Pong, &payload, None));
                }
                !answered.swallow
            }
            _ => self.app_close(now, control),
        }
    }

    fn app_close(&mut self, now: Duration, control: &Control) -> bool {
        self.closing.app_said = true;
        if self.draining && !self.closing.leg_said && matches!(control.code(), 1001 | 1012) {
            // It is the node that goes: without a Close the connection moves.
            self.lose_app();
            return false;
        }
        self.closing.code.get_or_insert(control.code());
        self.closing.until.get_or_insert(now + HANDSHAKE);
        true
    }

    fn end_if_said(&mut self) {
        if self.closing.leg_said && self.closing.app_said {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let code = self.closing.code.unwrap_or(1006);
        self.finished.get_or_insert(Finished { code, moved: self.moved, cut: false, adrift: false });
    }

    pub(super) fn mask(&self) -> [u8; 4] {
        (self.asked_app.nonce().0 as u32).to_be_bytes()
    }
}
