//! How a connection ends: the client's Close, the app's, or one of ours, each with its answer and a bound.

use std::time::Duration;

use super::{Action, Edge, Outputs, Slot, phase::Phase, run::control};
use crate::{
    frame::{Control, Kind, Opcode, Violation, close_payload, may_travel},
    proxy::error::CloseReason,
};

/// The longest closing handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The code that was sent first; 1006 when there was none.
    pub(crate) code: u16,
    /// Who began.
    pub(crate) by: By,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Client,
    App,
    Us,
}

impl End {
    pub(super) fn client() -> Self {
        Self { code: 1006, by: By::Client }
    }
}

/// A connection that is ending.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    end: End,
    pub(super) until: Duration,
    /// The client has said Close, or what it says is not understood any more.
    client: Ear,
    /// The leg's Close has been seen, or there is no leg.
    leg_done: bool,
    finished: bool,
}

/// What becomes of what the client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ear {
    /// It is relayed until its Close.
    Open,
    /// It is read and dropped until its Close.
    Dropping,
    /// It is read and dropped until it ends: its frames are not understood.
    Deaf(Violation),
    /// Its Close was seen.
    Done,
}

impl Ending {
    pub(super) fn reads_client(&self) -> bool {
        self.client != Ear::Done && !self.finished
    }

    pub(super) fn reads_leg(&self) -> bool {
        !self.leg_done && !self.finished
    }

    pub(super) fn drops_client(&self) -> bool {
        self.client != Ear::Open
    }

    pub(super) fn deaf(&self) -> bool {
        matches!(self.client, Ear::Deaf(_))
    }

    /// Whether the client has nothing more to say that matters.
    fn heard(&self) -> bool {
        matches!(self.client, Ear::Done | Ear::Deaf(_))
    }

    /// The payload with which the client's Close is answered in the app's place.
    fn answer(&self) -> Vec<u8> {
        match self.client {
            Ear::Deaf(violation) => {
                let reason = CloseReason::ClientProtocol(violation.reason());
                close_payload(reason.code(), &reason.reason())
            }
            _ if self.end.code == 1005 => Vec::new(),
            _ if may_travel(self.end.code) => close_payload(self.end.code, ""),
            _ => close_payload(1002, ""),
        }
    }

    pub(super) fn drops_leg(&self) -> bool {
        self.end.by == By::Us
    }

    pub(super) fn code(&self) -> u16 {
        self.end.code
    }

    pub(super) fn end(&self) -> Option<End> {
        self.finished.then_some(self.end)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        (!self.finished).then_some(self.until)
    }
}

impl Edge {
    /// Closes the connection with a code of ours: to the client, and as going away to the app.
    ///
    /// In the middle of a frame of the app's it waits for the frame's end, [`HANDSHAKE`] at most.
    pub(crate) fn close(&mut self, now: Duration, reason: CloseReason, out: &mut impl Outputs) {
        if self.ending.is_some() {
            return;
        }
        if self.parting.is_none() {
            self.stop_moving(out);
        }
        if !self.at_client_frame() {
            self.parting.get_or_insert_with(|| Box::new(Parting { reason, until: now + HANDSHAKE }));
            return;
        }
        out.client(&control(Opcode::Close, &close_payload(reason.code(), &reason.reason()), None));
        let leg_done = match &self.current {
            Some(leg) if self.client.decoder.at_frame() => {
                let close = leg.control(Opcode::Close, &close_payload(1001, "the client's connection ends"));
                out.leg(Slot::Current, &close);
                false
            }
            _ => {
                self.drop_current();
                true
            }
        };
        let end = End { code: reason.code(), by: By::Us };
        let until = now + HANDSHAKE;
        self.ending = Some(Box::new(Ending { end, until, client: Ear::Dropping, leg_done, finished: false }));
    }

    /// Whether it is worth looking at what the client says though it is not read: a client that leaves needs no other
    /// leg, and must not wait for one.
    pub(crate) fn looks_ahead(&self) -> bool {
        let orphan = || self.orphaned_until().is_some() && self.redelivers() == 0;
        self.ending.is_none() && self.parting.is_none() && (self.phase().may_be_given_up() || orphan())
    }

    /// Looks at what the client says though it is not read. If it leaves, it needs no other leg: one that is still its
    /// own goes on, and where there is none its Close is answered here. Whether the latter has been done.
    pub(super) fn leaves_orphaned(&mut self, now: Duration, bytes: &[u8], out: &mut impl Outputs) -> bool {
        if self.orphaned_until().is_none() {
            if self.client_leaves(bytes) {
                self.put_off(now, out);
            }
            return false;
        }
        let Some(close) = self.orphans_close(bytes) else { return false };
        self.client_closed(now, &close, out);
        // Nobody's answer is waited for.
        self.end_unanswered(out);
        true
    }

    /// Whether the client's Close, or what ends its connection as well, is among what it has said.
    fn client_leaves(&self, mut bytes: &[u8]) -> bool {
        let mut decoder = self.client.decoder.clone();
        loop {
            match decoder.next(bytes) {
                Ok(Some(unit)) => {
                    if matches!(&unit.kind, Kind::Control(control) if control.opcode == Opcode::Close) {
                        return true;
                    }
                    bytes = &bytes[unit.len..];
                }
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// The client's Close, if nothing is in front of it that the next leg is to have.
    fn orphans_close(&self, mut bytes: &[u8]) -> Option<Control> {
        let (mut decoder, mut discard) = (self.client.decoder.clone(), self.client.discard);
        while let Ok(Some(unit)) = decoder.next(bytes) {
            bytes = &bytes[unit.len..];
            match unit.kind {
                Kind::Data { .. } if !discard => return None,
                Kind::Data { ends_message } => discard = !ends_message,
                Kind::Control(control) if control.opcode == Opcode::Close => return Some(control),
                Kind::Control(_) => {}
            }
        }
        None
    }

    /// Who ends does not move, and nothing is delivered again.
    fn stop_moving(&mut self, out: &mut impl Outputs) {
        self.abandon_next(out);
        self.enter(Phase::Steady);
        self.kept = None;
    }

    /// What waits for the end of a frame of the app's is put now, if it ends here.
    pub(super) fn part(&mut self, now: Duration, out: &mut impl Outputs) {
        if self.at_client_frame()
            && let Some(parting) = self.parting.take()
        {
            self.close(now, parting.reason, out);
        }
    }

    /// The connection is over. What was put is still written.
    pub(super) fn finish(&mut self, end: End) {
        if self.ending.as_ref().is_some_and(|e| e.finished) {
            return;
        }
        let until = Duration::ZERO;
        let client = self.ending.as_ref().filter(|e| e.deaf()).map_or(Ear::Done, |e| e.client);
        self.ending = Some(Box::new(Ending { end, until, client, leg_done: true, finished: true }));
        self.parting = None;
        self.actions.push_back(Action::Finish);
    }

    /// The client breaks the protocol. To the app it says Close instead, so that what the app answers to the messages
    /// before still reaches the client.
    pub(super) fn client_violates(&mut self, now: Duration, violation: Violation, out: &mut impl Outputs) {
        if self.ending.is_none() {
            let reason = CloseReason::ClientProtocol(violation.reason());
            if let Some(leg) = &self.current {
                let payload = close_payload(reason.code(), &reason.reason());
                out.leg(Slot::Current, &leg.control(Opcode::Close, &payload));
            }
            self.client_closed_with(now, reason.code(), out);
        }
        // What it says from here on cannot be told apart.
        if let Some(ending) = &mut self.ending {
            ending.client = Ear::Deaf(violation);
        }
    }

    /// Whether what the client says is not understood any more, so that its end is all that can be waited for.
    pub(crate) fn is_deaf(&self) -> bool {
        self.ending.as_deref().is_some_and(Ending::deaf)
    }

    /// The client has said Close; it has been passed on unless we began.
    pub(super) fn client_closed(&mut self, now: Duration, control: &Control, out: &mut impl Outputs) {
        self.client_closed_with(now, control.code(), out);
    }

    fn client_closed_with(&mut self, now: Duration, code: u16, out: &mut impl Outputs) {
        match &mut self.ending {
            None => {
                self.stop_moving(out);
                let end = End { code, by: By::Client };
                let leg_done = self.current.is_none();
                let until = now + HANDSHAKE;
                let client = Ear::Done;
                self.ending = Some(Box::new(Ending { end, until, client, leg_done, finished: false }));
            }
            Some(ending) => {
                ending.client = Ear::Done;
                if ending.leg_done || ending.end.by == By::App {
                    let end = ending.end;
                    self.finish(end);
                }
            }
        }
    }

    /// The app's own Close passes to the client.
    pub(super) fn pass_app_close(
        &mut self,
        now: Duration,
        control: &Control,
        frame: &[u8],
        out: &mut impl Outputs,
    ) {
        self.stop_moving(out);
        match &mut self.ending {
            None => {
                out.client(frame);
                let end = End { code: control.code(), by: By::App };
                let until = now + HANDSHAKE;
                let client = Ear::Open;
                self.ending = Some(Box::new(Ending { end, until, client, leg_done: true, finished: false }));
                self.actions.push_back(Action::Resume);
            }
            Some(ending) => {
                match ending.client {
                    _ if ending.end.by != By::Client => {}
                    Ear::Deaf(_) => out.client(&self::control(Opcode::Close, &ending.answer(), None)),
                    _ => out.client(frame),
                }
                ending.leg_done = true;
                if ending.heard() {
                    let end = ending.end;
                    self.finish(end);
                }
            }
        }
    }

    /// The leg went away while the connection was ending.
    pub(super) fn leg_lost_at_the_end(&mut self, out: &mut impl Outputs) {
        let Some(ending) = &mut self.ending else { return };
        ending.leg_done = true;
        if !ending.heard() {
            return;
        }
        self.end_unanswered(out);
    }

    pub(super) fn tick_ending(&mut self, now: Duration, out: &mut impl Outputs) {
        if self.ending.as_ref().is_some_and(|ending| !ending.finished && now >= ending.until) {
            self.end_unanswered(out);
        }
    }

    /// Ends without what was waited for: the client's Close is answered in the app's place.
    fn end_unanswered(&mut self, out: &mut impl Outputs) {
        let Some(ending) = &self.ending else { return };
        if ending.end.by == By::Client && self.at_client_frame() {
            out.client(&control(Opcode::Close, &ending.answer(), None));
        }
        let end = ending.end;
        self.finish(end);
    }
}

/// A Close that waits for the end of the app's frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parting {
    reason: CloseReason,
    pub(super) until: Duration,
}
