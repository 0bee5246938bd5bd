//! The shell around the relay of one client's connection: sockets, time and dials. One task drives it.

mod clock;
mod ending;
mod errands;
mod tally;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until},
};

use self::errands::{Dial, Errands};
use super::{
    connection::Connection,
    core::{Carried, Core, Dialed},
    error::CloseReason,
    fence,
    health::Pulse,
    moves::Orders,
    relay::{Action, DialFailure, Edge, End, Nonce, Slot},
    sockets::Sockets,
    wire::Wire,
};
use crate::{
    contract::MOVED_TO,
    metrics::{Direction, MoveReason, MoveResult},
    node::NodeId,
    trace::Span,
};

/// How many rounds one poll may take before other tasks get their turn.
const ROUNDS: usize = 32;

/// How much of what the client says is looked at while a move waits for the app, in bytes: a Close is small, and comes
/// when the client has nothing else to say. While there is no app it has to be the first thing: that the client has gone
/// behind something that waits may not be known, or that would be lost.
const LOOK_AHEAD: usize = 1024;

/// What one round found.
enum Round {
    /// Something to do: there may be more.
    Busy,
    /// Nothing, and no clock to look at: [`Drive::runs_steadily`].
    Steady,
    /// Nothing.
    Idle,
}

/// Relays one connection until it ends. Completes with how it ended.
pub(crate) struct Drive<C> {
    core: Arc<Core>,
    connection: Arc<Connection>,
    machine: Edge,
    sockets: Sockets<C>,
    /// Where the current leg leads.
    node: NodeId,
    errands: Option<Box<Errands>>,
    reconsider: bool,
    /// What was held has to be offered again: the client is read again, or another leg is.
    reoffer: bool,
    epoch: Instant,
    /// The time of this poll: looking at the clock for each part would cost more than most parts do.
    now: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whom sockets and orders wake.
    waker: Waker,
    /// When something is due, and whether that was found while bytes only passed.
    alarm: Duration,
    settled: bool,
    /// The timer wakes this task.
    armed: bool,
    finishing: Option<End>,
    counted: u64,
    /// Which view and health the machine was told of; 0: none.
    generation: u64,
    /// Beats whenever the current leg says something.
    pulse: Arc<Pulse>,
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Drive<C> {
    /// Takes over a client whose handshake was answered with what `first` agreed. `held`: what it sent behind it.
    pub(crate) fn new(
        core: Arc<Core>,
        connection: Arc<Connection>,
        client: C,
        held: &[u8],
        first: Dialed,
    ) -> Self {
        let epoch = Instant::now();
        let leg = first.leg(Duration::ZERO, core.settings(), connection.compressed());
        let machine = Edge::new(
            Duration::ZERO,
            Arc::clone(core.settings()),
            Core::nonce(),
            connection.compressed(),
            leg,
        );
        let current = Some(Wire::new(first.io, &first.leftover));
        let pulse = core.pulse(&first.node);
        Self {
            core,
            connection,
            machine,
            sockets: Sockets { client: Wire::new(client, held), current, next: None },
            node: first.node,
            errands: None,
            reconsider: true,
            reoffer: true,
            epoch,
            now: Duration::ZERO,
            timer: Box::pin(sleep_until(epoch)),
            waker: Waker::noop().clone(),
            alarm: Duration::ZERO,
            settled: false,
            armed: false,
            finishing: None,
            counted: 0,
            generation: 0,
            pulse,
        }
    }

    /// Whose relay it is.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Goes one round through everything that may have something to do.
    fn round(&mut self, cx: &mut Context<'_>) -> Round {
        let mut busy = self.has_chores() && self.chores(cx);
        busy |= self.step(cx, Self::pump_leg);
        busy |= self.step(cx, Self::pump_client);
        if self.sockets.next.is_some() {
            busy |= self.step(cx, Self::watch_next);
        }
        let mut steady = self.runs_steadily();
        if !steady {
            self.settled = false;
            busy |= self.step(cx, Self::tick);
        }
        if self.reconsider {
            self.reconsider(cx);
            steady = false;
        }
        match busy {
            true => Round::Busy,
            false if steady => Round::Steady,
            false => Round::Idle,
        }
    }

    /// Has one part do what it has to do, then does what the machine asks for before it is told of anything more: a byte
    /// that passes after a switch must not find the old leg in place.
    fn step(&mut self, cx: &mut Context<'_>, part: impl FnOnce(&mut Self, &mut Context<'_>) -> bool) -> bool {
        let busy = part(self, cx);
        (self.machine.asks() && self.act(cx)) || busy
    }

    /// Whether there is anything to do but to read: for most messages there is not.
    fn has_chores(&self) -> bool {
        self.errands.is_some() || self.reoffer || self.sockets.waits()
    }

    fn chores(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        for part in [Self::poll_dial, Self::poll_fence, Self::flush, Self::reoffer] {
            busy |= self.step(cx, part);
        }
        busy
    }

    /// Has everything that wakes this task wake it by the waker that it has now.
    fn woken(&mut self, cx: &mut Context<'_>) {
        let anew = !self.waker.will_wake(cx.waker());
        if anew {
            self.armed = false;
            self.waker.clone_from(cx.waker());
            self.connection.ticket().wakes(cx.waker());
        }
        self.sockets.woken(anew);
    }

    fn take_orders(&mut self, cx: &mut Context<'_>) {
        let Orders { reconsider, leave, cut } = self.connection.ticket().take();
        let now = self.now;
        self.reconsider |= reconsider;
        if leave {
            self.machine.close(now, CloseReason::Restart, &mut self.sockets.ports(cx));
        }
        if cut {
            self.cut(cx);
        }
    }

    /// Lets go of the legs to nodes that are silent altogether.
    fn cut(&mut self, cx: &mut Context<'_>) {
        let now = self.now;
        let heading = self.errands.as_ref().and_then(|errands| errands.heading.as_ref());
        if self.sockets.next.is_some() && heading.is_some_and(|(node, _)| self.core.is_dead(node)) {
            self.machine.leg_lost(now, Slot::Next, &mut self.sockets.ports(cx));
            self.act(cx);
        }
        if self.core.is_dead(&self.node) {
            self.machine.leg_lost(now, Slot::Current, &mut self.sockets.ports(cx));
        }
    }

    fn poll_dial(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(errands) = &mut self.errands else { return false };
        let Some(Dial { is_move, dialing }) = &mut errands.dial else { return false };
        let Poll::Ready(result) = dialing.as_mut().poll(cx) else { return false };
        let is_move = *is_move;
        errands.dial = None;
        let now = self.now;
        match result {
            Ok(dialed) => self.connected(now, dialed, cx),
            Err(DialFailure::Unreachable) if is_move && self.machine.orphaned_until().is_some() => {
                self.replace()
            }
            Err(failure) => {
                self.move_failed();
                self.machine.dial_failed(now, failure, &mut self.sockets.ports(cx));
                if self.machine.is_refused() {
                    // It stays for good.
                    self.count_late(false);
                }
            }
        }
        true
    }

    fn poll_fence(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(errands) = &mut self.errands else { return false };
        if errands.fence.as_mut().is_some_and(|fence| fence.as_mut().poll(cx).is_ready()) {
            errands.fence = None;
        }
        if errands.are_done() {
            self.errands = None;
        }
        false
    }

    fn connected(&mut self, now: Duration, dialed: Dialed, cx: &mut Context<'_>) {
        let leg = dialed.leg(now, self.core.settings(), self.connection.compressed());
        let same = dialed.node == self.node;
        let reason = self.take_heading().map_or(MoveReason::Lost, |(_, reason)| reason);
        self.errands().heading = Some((dialed.node, reason));
        self.sockets.next = Some(Box::new(Wire::new(dialed.io, &dialed.leftover)));
        self.machine.connected(now, leg, same, &mut self.sockets.ports(cx));
        // What was delivered again, before an ending forgets it.
        self.count_messages();
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.now;
        let client = self.sockets.client.flush(cx);
        if client {
            self.machine.client_took(now);
        }
        let leg = self.sockets.current.as_mut().is_some_and(|leg| leg.flush(cx));
        if leg {
            self.machine.leg_took(now);
        }
        if let Some(next) = &mut self.sockets.next {
            next.flush(cx);
        }
        client || leg
    }

    /// Offers what was held to a machine that takes it now.
    fn reoffer(&mut self, cx: &mut Context<'_>) -> bool {
        if !std::mem::take(&mut self.reoffer) {
            return false;
        }
        let now = self.now;
        if let Some(leg) = &mut self.sockets.current {
            let input = leg.held();
            let taken = self.machine.leg_bytes(now, input.bytes(), &mut self.sockets.ports(cx));
            if let Some(leg) = &mut self.sockets.current {
                leg.give_back(input, taken);
            }
            self.act(cx);
        }
        let input = self.sockets.client.held();
        let taken = self.machine.client_bytes(now, input.bytes(), &mut self.sockets.ports(cx));
        self.sockets.client.give_back(input, taken);
        true
    }

    fn pump_leg(&mut self, cx: &mut Context<'_>) -> bool {
        let parked = self.sockets.current.as_ref().is_none_or(Wire::is_parked);
        if parked || !self.machine.reads_leg() || self.sockets.client.blocked() {
            return false;
        }
        let now = self.now;
        self.refresh_standing();
        let Some(leg) = &mut self.sockets.current else { return false };
        let Poll::Ready(input) = leg.read_leg(cx) else { return false };
        if input.is_empty() {
            self.machine.leg_lost(now, Slot::Current, &mut self.sockets.ports(cx));
            return true;
        }
        self.pulse.beat(self.epoch + now);
        self.core.metrics().bytes(Direction::ToClient).inc_by(input.fresh() as u64);
        let taken = self.machine.leg_bytes(now, input.bytes(), &mut self.sockets.ports(cx));
        if let Some(leg) = &mut self.sockets.current {
            leg.give_back(input, taken);
        }
        true
    }

    fn pump_client(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.now;
        if self.sockets.client.broken() && self.finishing.is_none() {
            self.machine.client_ended(now, false, &mut self.sockets.ports(cx));
            return true;
        }
        if self.sockets.client.is_parked() {
            return false;
        }
        let room = if self.machine.orphaned_until().is_some() { 1 } else { LOOK_AHEAD };
        let ahead = self.machine.looks_ahead() && self.sockets.client.holds() < room;
        let reads = self.machine.reads_client() || ahead;
        if !reads || self.sockets.current.as_ref().is_some_and(Wire::blocked) {
            return false;
        }
        let Poll::Ready(input) = self.sockets.read_client(cx) else { return false };
        if input.is_empty() {
            let held = self.sockets.client.holds() > 0;
            self.machine.client_ended(now, held, &mut self.sockets.ports(cx));
            return true;
        }
        self.core.metrics().bytes(Direction::ToApp).inc_by(input.fresh() as u64);
        let taken = self.machine.client_bytes(now, input.bytes(), &mut self.sockets.ports_for(cx, &input));
        self.sockets.client.give_back(input, taken);
        true
    }

    fn watch_next(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(next) = &mut self.sockets.next else { return false };
        if next.overhear(cx).is_pending() {
            return false;
        }
        let now = self.now;
        self.machine.leg_lost(now, Slot::Next, &mut self.sockets.ports(cx));
        true
    }

    /// Does what the machine asks for.
    fn act(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Some(action) = self.machine.action() {
            busy = true;
            match action {
                Action::Replace => self.replace(),
                Action::Fence(nonce) => self.errands().fence = Some(self.tell(nonce)),
                Action::GiveUpDial => {
                    if self.take_dial().is_some() {
                        self.move_failed();
                    }
                }
                Action::Drop(Slot::Current) => self.sockets.current = None,
                Action::Drop(Slot::Next) => {
                    self.sockets.next = None;
                    self.move_failed();
                }
                Action::Promote => self.promote(),
                Action::Resume => self.reoffer = true,
                Action::Finish => self.finish(cx),
            }
        }
        busy
    }

    fn promote(&mut self) {
        self.sockets.current = self.sockets.next.take().map(|next| *next);
        let pause = self.machine.take_pause();
        if let Some(pause) = pause {
            self.core.metrics().move_pause().observe(pause);
        }
        if let Some((node, reason)) = self.take_heading() {
            self.move_ended(&node, reason, MoveResult::Moved, pause);
            self.connection.ticket().placed(&node);
            self.pulse = self.core.pulse(&node);
            self.node = node;
            self.generation = 0;
        }
        self.reoffer = true;
        self.reconsider = true;
    }

    /// Whether the node is leaving may have changed since the machine was told.
    fn refresh_standing(&mut self) {
        let generation = self.core.generation();
        if self.generation != generation {
            self.generation = generation;
            self.machine.set_leaving(self.core.is_leaving(&self.node));
        }
    }

    /// Looks whether the connection is where it belongs, and begins or gives up a move.
    fn reconsider(&mut self, cx: &mut Context<'_>) {
        self.reconsider = false;
        let standing = self.core.standing(self.connection.key(), &self.node);
        self.machine.set_leaving(standing.leaving);
        let now = self.now;
        let target = standing.target.filter(|(node, _)| *node != self.node);
        self.count_late(target.is_some() && !self.machine.is_refused());
        let heading = self.errands.as_ref().and_then(|errands| errands.heading.as_ref());
        if let Some((heading, _)) = heading
            && self.machine.orphaned_until().is_none()
            && target.as_ref().is_none_or(|(node, _)| node != heading)
        {
            self.machine.cancel_move(&mut self.sockets.ports(cx));
            self.act(cx);
        }
        let Some((node, reason)) = target else { return self.machine.stay() };
        if !self.machine.can_move(now) {
            return;
        }
        self.machine.begin_move(format!("{MOVED_TO}{node}"));
        let from = self.node.clone();
        let carried = Carried { sequence: self.machine.sequence(), redelivered: 0 };
        let dialing = Core::open_move(&self.core, &self.connection, node.clone(), from, carried);
        let span = self.trace_move();
        let errands = self.errands();
        errands.heading = Some((node, reason));
        errands.dial = Some(Dial { is_move: true, dialing: Box::pin(dialing) });
        errands.span = span;
        // A dial has to be polled once to be woken.
        cx.waker().wake_by_ref();
    }

    /// Looks for another leg in place of the one that was lost.
    fn replace(&mut self) {
        let Some(until) = self.machine.orphaned_until() else { return };
        self.take_heading();
        let span = self.take_span().or_else(|| self.trace_move());
        let (from, until) = (self.node.clone(), self.epoch + until);
        let carried =
            Carried { sequence: self.machine.leg_sequence(), redelivered: self.machine.redelivers() };
        let dialing = Core::open_replacement(&self.core, &self.connection, from, carried, until);
        let errands = self.errands();
        errands.dial = Some(Dial { is_move: false, dialing: Box::pin(dialing) });
        errands.span = span;
    }

    fn trace_move(&self) -> Option<Span> {
        self.core.tracer.linked("move", self.connection.trace.as_deref().copied())
    }

    /// Has the node that is left cut its leg.
    fn tell(&self, nonce: Nonce) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (core, connection, node) =
            (Arc::clone(&self.core), Arc::clone(&self.connection), self.node.clone());
        Box::pin(async move { fence::cut(&*core.network, &node, connection.id(), nonce).await })
    }

    fn rounds(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS {
            if let Some(end) = self.finishing {
                return self.poll_finish(end, cx);
            }
            match self.round(cx) {
                Round::Busy => continue,
                Round::Steady if self.sleeps(cx) => return Poll::Pending,
                Round::Steady | Round::Idle if !self.wait(cx) => return Poll::Pending,
                Round::Steady | Round::Idle => {}
            }
            self.now = self.epoch.elapsed();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Future for Drive<C> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        self.now = self.epoch.elapsed();
        self.woken(cx);
        self.take_orders(cx);
        self.act(cx);
        let polled = self.rounds(cx);
        self.count_messages();
        polled
    }
}
