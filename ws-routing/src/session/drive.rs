//! The shell around one session: sockets and time. One task drives it.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    mailbox::{Outcome, Phase, Post, Receipts, Taken},
    relay::{Finished, Outputs, Session},
    seat::{Orders, Seated, Whither},
};
use crate::{
    metrics::{Direction, Metrics},
    proxy::{
        LegStream,
        error::CloseReason,
        relay::Blocked,
        wire::{Input, Wire},
    },
    seeded::{self, Bug},
};

/// How many rounds one poll may take before other tasks get their turn.
const ROUNDS: usize = 32;

/// How long what was said last may take to be written.
const FAREWELL: Duration = Duration::from_secs(5);

/// Relays one leg until it ends. Completes with how it ended.
pub(crate) struct Drive<'a> {
    machine: Session,
    sockets: Sockets,
    metrics: &'a Metrics,
    seated: &'a mut Seated,
    phase: Phase,
    settling: bool,
    receipts: Receipts,
    /// Something was posted, and not all of it was put.
    posted: bool,
    /// What came behind the handshakes has not been offered yet.
    fresh: bool,
    epoch: Instant,
    /// The time of this poll.
    now: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whom the sockets wake.
    waker: Waker,
    finishing: Option<Finished>,
}

impl<'a> Drive<'a> {
    pub(crate) fn new(
        machine: Session,
        leg: Wire<LegStream>,
        app: Wire<LegStream>,
        metrics: &'a Metrics,
        seated: &'a mut Seated,
    ) -> Self {
        let phase = seated.seat().phase();
        let epoch = Instant::now();
        let timer = Box::pin(sleep_until(epoch));
        Self {
            machine,
            sockets: Sockets { leg, app },
            metrics,
            seated,
            phase,
            settling: false,
            receipts: Receipts::default(),
            posted: false,
            fresh: true,
            epoch,
            now: Duration::ZERO,
            timer,
            waker: Waker::noop().clone(),
            finishing: None,
        }
    }

    /// Goes one round through everything that may have something to do; whether anything had.
    fn round(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = self.flush(cx);
        busy |= self.offer(cx);
        busy |= self.pump_app(cx);
        busy |= self.pump_leg(cx);
        let (now, blocked) = (self.now, self.sockets.blocked());
        self.machine.tick(now, blocked, &mut self.sockets.ports(cx));
        self.count();
        self.follow_phase();
        busy |= self.deliver(cx);
        if let Some(finished) = self.machine.finished() {
            self.finishing = Some(finished);
            self.timer.as_mut().reset(Instant::now() + FAREWELL);
            return true;
        }
        busy
    }

    fn take_orders(&mut self, cx: &mut Context<'_>) {
        let Orders { drain, leave, posted } = self.seated.seat().take(cx.waker());
        self.posted |= posted;
        if drain {
            self.machine.drain();
        }
        if leave {
            let now = self.now;
            self.machine.close(now, CloseReason::Restart, &mut self.sockets.ports(cx));
        }
    }

    /// Tells who asks for this connection where its leg stands.
    fn follow_phase(&mut self) {
        if let Some(number) = self.machine.take_confirmed() {
            self.receipts.confirmed(number);
        }
        let settling = self.machine.is_settling();
        if std::mem::replace(&mut self.settling, settling) != settling {
            self.seated.seat().mailbox().set_settling(settling);
        }
        let phase = self.machine.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        match phase {
            Phase::Waiting => {}
            Phase::Live => {
                self.posted = true;
                self.seated.live();
            }
            Phase::Over => self.seated.over(match self.machine.finished() {
                Some(Finished { cut: true, .. }) => Some(Whither::Sought),
                Some(Finished { adrift: true, .. }) => Some(Whither::Unsure),
                _ => self.machine.moved_to().cloned().map(Whither::To),
            }),
        }
    }

    /// Puts what was posted between the messages that pass; whether anything was put.
    fn deliver(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.posted {
            return false;
        }
        let mut put = false;
        while !self.sockets.leg.blocked() && self.machine.takes_to_client() {
            let Some(taken) = self.seated.seat().mailbox().next_to_client() else { break };
            self.hand_over(taken, cx);
            put = true;
        }
        while !self.sockets.app.blocked() && self.machine.takes_to_app() {
            let Some(taken) = self.seated.seat().mailbox().next_to_app() else { break };
            self.hand_over(taken, cx);
            put = true;
        }
        self.posted = self.seated.seat().mailbox().waits();
        put
    }

    fn hand_over(&mut self, Taken { post, outcome }: Taken, cx: &mut Context<'_>) {
        if outcome.is_closed() {
            return;
        }
        let now = self.now;
        let out = &mut self.sockets.ports(cx);
        match post {
            Post::Message { text, payload, receipt } => {
                self.machine.put_to_client(text, &payload, out);
                if receipt && !seeded::has(Bug::AcknowledgeEarly) {
                    return self.machine.ask_receipt(self.receipts.next(outcome), out);
                }
            }
            Post::ToApp { text, payload } => self.machine.put_to_app(text, &payload, out),
            Post::Close { code, reason } => self.machine.close_with(now, code, &reason, out),
            Post::Nothing => {}
        }
        // Who does not wait any more needs not be told.
        let _ = outcome.send(Outcome::Done);
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let leg = self.sockets.leg.flush(cx);
        let app = self.sockets.app.flush(cx);
        if app {
            let now = self.now;
            self.machine.app_took(now);
        }
        leg || app
    }

    /// Offers what came behind the handshakes.
    fn offer(&mut self, cx: &mut Context<'_>) -> bool {
        if !std::mem::take(&mut self.fresh) {
            return false;
        }
        let now = self.now;
        let input = self.sockets.leg.held();
        let taken = self.machine.leg_bytes(now, input.bytes(), &mut self.sockets.ports(cx));
        self.sockets.leg.give_back(input, taken);
        let input = self.sockets.app.held();
        let taken = self.machine.app_bytes(now, input.bytes(), &mut self.sockets.ports(cx));
        self.sockets.app.give_back(input, taken);
        true
    }

    fn pump_app(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.machine.reads_app() || self.sockets.leg.blocked() {
            return false;
        }
        let Poll::Ready(input) = self.sockets.read_app(cx) else { return false };
        if input.is_empty() {
            self.machine.app_ended(&mut self.sockets.ports(cx));
            return true;
        }
        self.seated.seat().touch();
        self.metrics.bytes(Direction::ToClient).inc_by(input.fresh() as u64);
        let now = self.now;
        let taken = self.machine.app_bytes(now, input.bytes(), &mut self.sockets.ports_for(cx, &input));
        self.sockets.app.give_back(input, taken);
        true
    }

    fn pump_leg(&mut self, cx: &mut Context<'_>) -> bool {
        if self.sockets.leg.broken() && self.machine.finished().is_none() {
            self.machine.leg_ended();
            return true;
        }
        if !self.machine.reads_leg() || self.sockets.app.blocked() {
            return false;
        }
        let Poll::Ready(input) = self.sockets.leg.read_leg(cx) else { return false };
        if input.is_empty() {
            self.machine.leg_ended();
            return true;
        }
        self.seated.seat().touch();
        self.metrics.bytes(Direction::ToApp).inc_by(input.fresh() as u64);
        let now = self.now;
        let taken = self.machine.leg_bytes(now, input.bytes(), &mut self.sockets.ports(cx));
        self.sockets.leg.give_back(input, taken);
        true
    }

    fn count(&mut self) {
        let messages = self.machine.take_messages();
        for (direction, count) in
            [(Direction::ToApp, messages.to_app), (Direction::ToClient, messages.to_client)]
        {
            if count > 0 {
                self.metrics.messages(direction).inc_by(count);
            }
        }
    }

    /// Arms the one timer; whether something is due already.
    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.machine.deadline() else { return false };
        let due = self.epoch + due;
        if self.timer.deadline() > due || self.timer.deadline() <= self.epoch + self.now {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn poll_finish(&mut self, finished: Finished, cx: &mut Context<'_>) -> Poll<Finished> {
        let late = self.timer.as_mut().poll(cx).is_ready();
        let app = self.sockets.app.poll_end(cx);
        let leg = self.sockets.leg.poll_end(cx);
        if !late {
            ready!(leg);
            ready!(app);
        }
        Poll::Ready(finished)
    }
}

impl Future for Drive<'_> {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        self.now = self.epoch.elapsed();
        let anew = !self.waker.will_wake(cx.waker());
        if anew {
            self.waker.clone_from(cx.waker());
        }
        self.sockets.woken(anew);
        self.take_orders(cx);
        for _ in 0..ROUNDS {
            if let Some(finished) = self.finishing {
                return self.poll_finish(finished, cx);
            }
            if self.round(cx) {
                continue;
            }
            if !self.wait(cx) {
                return Poll::Pending;
            }
            self.now = self.epoch.elapsed();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The sockets of one session.
struct Sockets {
    leg: Wire<LegStream>,
    app: Wire<LegStream>,
}

impl Sockets {
    /// The task has been woken, for whichever of them: [`Wire::woken`].
    fn woken(&mut self, anew: bool) {
        self.leg.woken(anew);
        self.app.woken(anew);
    }

    /// The client's side is the leg's, the leg's side the app's.
    fn blocked(&self) -> Blocked {
        Blocked { client: self.leg.blocked(), leg: self.app.blocked() }
    }

    fn ports<'s, 'b>(&'s mut self, cx: &'s mut Context<'b>) -> Ports<'s, 'b> {
        Ports { sockets: self, cx, lent: None }
    }

    /// Reads what the app says: [`Wire::read`].
    fn read_app(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        let input = self.app.read(cx);
        if self.leg.borrows() { input.map(Input::into_lent) } else { input }
    }

    /// As [`Sockets::ports`], for a machine that is given `input`.
    fn ports_for<'s, 'b>(&'s mut self, cx: &'s mut Context<'b>, input: &'s Input) -> Ports<'s, 'b> {
        Ports { sockets: self, cx, lent: input.lent() }
    }
}

/// The sockets as the machine writes to them.
struct Ports<'s, 'b> {
    sockets: &'s mut Sockets,
    cx: &'s mut Context<'b>,
    /// What is written may be a part of this.
    lent: Option<&'s Bytes>,
}

impl Outputs for Ports<'_, '_> {
    fn leg(&mut self, bytes: &[u8]) {
        self.sockets.leg.put_lent(self.cx, bytes, self.lent);
    }

    fn app(&mut self, bytes: &[u8]) {
        self.sockets.app.put(self.cx, bytes);
    }
}
