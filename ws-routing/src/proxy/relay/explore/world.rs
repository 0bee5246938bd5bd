//! A client, its legs and their apps around an [`Edge`], for the explorer: every step that the world may take next.
//!
//! Steps that nothing can tell apart are one: what the client sends is read by the relay when that reads at all, and a
//! library reads what arrives unless it stalls. Time is always the same, see `rebase`, so that states which differ only
//! in when they are reached are one as well.

use std::{sync::Arc, time::Duration};

use super::{app::App, budget::Budget, client::Client, rebase};
use crate::proxy::relay::{
    Action, Blocked, DialFailure, Edge, Leg, LegShape, Nonce, Outputs, Settings, Slot, phase::Phase,
};

/// A step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The client sends the next part of its messages, and the relay reads it.
    ClientSends,
    ClientPings,
    ClientPongs,
    ClientCloses,
    /// The relay reads what it has left lying.
    ClientHeard,
    /// The library of that leg's app reads nothing until it reads all that is there.
    Stalls(usize),
    Reads(usize),
    /// It answers the latest ping.
    Pongs(usize),
    /// It never answers the pings that it has got.
    Forgets(usize),
    /// The application handles one message and replies.
    Handles(usize),
    AppCloses(usize, u16),
    /// The relay reads what the current leg's app has said.
    AppHeard,
    /// The owner is another node now.
    Owner(u8),
    DialDone,
    DialFails,
    /// A node dies, in the middle of what it says, and is back at once.
    Crash(u8),
    /// The relay gives the current leg up, though its node lives.
    GivesUp,
    /// The relay sees the end of a leg.
    LossSeen(usize),
    /// Time passes up to what is due next.
    Time,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) edge: Edge,
    pub(super) now: Duration,
    pub(super) budget: Budget,
    pub(super) settings: Arc<Settings>,
    pub(super) client: Client,
    pub(super) legs: Vec<App>,
    pub(super) current: Option<usize>,
    pub(super) next: Option<usize>,
    dial: Option<Dial>,
    owner: u8,
    /// Where the connection is, or was.
    node: u8,
    /// What was under way may be lost.
    pub(super) lossy: bool,
    /// The client has not answered in time.
    pub(super) client_silent: bool,
    /// (leg, message) as the applications handled them.
    pub(super) handled: Vec<(usize, u8)>,
    pub(super) finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Dial {
    node: u8,
    is_move: bool,
    redelivered: u64,
    /// Where the connection was.
    from: u8,
}

/// What the relay put, in order.
#[derive(Default)]
struct Puts {
    client: Vec<u8>,
    legs: Vec<(Slot, Vec<u8>)>,
}

impl Outputs for Puts {
    fn client(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
    }

    fn leg(&mut self, slot: Slot, bytes: &[u8]) {
        self.legs.push((slot, bytes.to_vec()));
    }
}

/// Nothing keeps the world waiting for longer than what is under way.
const NEVER: Duration = Duration::from_secs(3600);

/// The nodes.
const NODES: u8 = 3;

impl World {
    pub(super) fn new(settings: &Settings, budget: Budget) -> Self {
        let interval = if budget.keepalive { settings.ping_interval } else { NEVER };
        // What it would learn from the pace of replies is told apart nowhere.
        let quiet = Some(Duration::from_millis(100));
        let settings = Arc::new(Settings { ping_interval: interval, move_quiet: quiet, ..settings.clone() });
        let leg = Leg::new(rebase::NOW, &settings, shape(0, false, budget.sidecars));
        let mut world = Self {
            edge: Edge::new(rebase::NOW, Arc::clone(&settings), Nonce(1), false, leg),
            now: rebase::NOW,
            client: Client::new(budget.messages),
            budget,
            settings,
            legs: Vec::new(),
            current: Some(0),
            next: None,
            dial: None,
            owner: 0,
            node: 0,
            lossy: false,
            client_silent: false,
            handled: Vec::new(),
            finished: false,
        };
        world.open(0, 0);
        world
    }

    /// Everything that may happen next.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.finished {
            self.legs.iter().enumerate().for_each(|(leg, app)| app.afterwards(leg, &mut steps));
            return steps;
        }
        self.client_steps(&mut steps);
        for (leg, app) in self.legs.iter().enumerate() {
            app.steps(leg, &self.budget, self.current == Some(leg), &mut steps);
        }
        self.relay_steps(&mut steps);
        self.node_steps(&mut steps);
        if self.due().is_some() && self.is_prompt() && (self.budget.late > 0 || !self.anybody_late()) {
            steps.push(Step::Time);
        }
        steps
    }

    /// Whether nothing more happens by itself, but that silence is asked about now and then.
    pub(super) fn rests(&self, steps: &[Step]) -> bool {
        match steps {
            [] => true,
            [Step::Time] => self.budget.keepalive && !self.is_underway(),
            _ => false,
        }
    }

    /// All of it by which states differ, as text.
    pub(super) fn told(&self) -> String {
        let Self { edge: e, budget, client, legs, current, next, dial, owner, node, handled, .. } = self;
        let edge = (&e.client, &e.current, &e.transit, &e.ending, &e.parting);
        let rest = (e.sequence, &e.actions, &e.kept);
        let flags = (self.lossy, self.client_silent, self.finished);
        format!(
            "{edge:?}{rest:?}{budget:?}{client:?}{legs:?}{current:?}{next:?}{dial:?}{owner}{node}{handled:?}{flags:?}"
        )
    }

    /// Takes a step.
    ///
    /// # Errors
    ///
    /// What does not hold after it.
    pub(super) fn take(&mut self, step: Step) -> Result<(), String> {
        let mut out = Puts::default();
        let due = self.steadily_due();
        match step {
            Step::ClientSends => self.client.sends(),
            Step::ClientPings => {
                self.budget.pings -= 1;
                self.client.asks();
            }
            Step::ClientPongs => self.client.answers(),
            Step::ClientCloses => self.client.closes(),
            Step::ClientHeard => {}
            Step::Stalls(leg) => {
                self.budget.stalls -= 1;
                self.legs[leg].stalls();
            }
            Step::Reads(leg) => self.legs[leg].reads()?,
            Step::Pongs(leg) => self.legs[leg].pongs(),
            Step::Forgets(leg) => {
                self.budget.pongs_lost -= 1;
                self.legs[leg].pings.clear();
            }
            Step::Handles(leg) => self.handles(leg)?,
            Step::AppCloses(leg, code) => {
                self.budget.app_close = None;
                self.legs[leg].closes(code);
            }
            Step::AppHeard => self.app_heard(&mut out),
            Step::Owner(node) => {
                self.budget.owners -= 1;
                self.owner = node;
            }
            Step::DialDone | Step::DialFails => self.dialed(step == Step::DialDone, &mut out),
            Step::Crash(node) => self.crash(node),
            Step::GivesUp => self.give_up(&mut out),
            Step::LossSeen(leg) => {
                let slot = if self.current == Some(leg) { Slot::Current } else { Slot::Next };
                self.edge.leg_lost(self.now, slot, &mut out);
            }
            Step::Time => self.time_passes(),
        }
        let hears = self.edge.reads_client() || self.edge.looks_ahead();
        if hears && is_said(step) && !self.client.wire.is_empty() {
            let taken = self.edge.client_bytes(self.now, &self.client.wire, &mut out);
            self.client.wire.drain(..taken);
        }
        self.after(&mut out)?;
        if step != Step::Time && self.steadily_due().is_some_and(|now| Some(now) < due) {
            return Err("bytes that only passed made something due sooner: no clock was looked at".into());
        }
        if step == Step::Time && self.due().is_some_and(|due| due <= self.now) {
            return Err(format!("{:?} is still due: the relay spins", self.edge.phase()));
        }
        rebase::rebase(self);
        Ok(())
    }

    /// When something is due, if the relay relies on it that no bytes change that.
    fn steadily_due(&self) -> Option<Duration> {
        self.edge.runs_steadily().then(|| self.edge.deadline()).flatten()
    }

    fn client_steps(&self, steps: &mut Vec<Step>) {
        let client = &self.client;
        if client.close.is_some() && !client.closed {
            steps.push(Step::ClientCloses);
        }
        // What is said while nobody reads is as if it were said later, but for what is looked for.
        if self.edge.looks_ahead() && self.budget.client_closes && client.may_speak() && client.at_frame() {
            steps.push(Step::ClientCloses);
        }
        if !self.edge.reads_client() {
            return;
        }
        if !client.wire.is_empty() {
            if self.would_take() {
                steps.push(Step::ClientHeard);
            }
            return;
        }
        if !client.may_speak() {
            return;
        }
        if !client.script.is_empty() {
            steps.push(Step::ClientSends);
        }
        if client.at_frame() {
            let others = [
                (self.budget.pings > 0, Step::ClientPings),
                (!client.pings.is_empty(), Step::ClientPongs),
                (self.budget.client_closes, Step::ClientCloses),
            ];
            steps.extend(others.into_iter().filter(|(may, _)| *may).map(|(_, step)| step));
        }
    }

    fn relay_steps(&self, steps: &mut Vec<Step>) {
        let current = self.current.map(|leg| &self.legs[leg]);
        if current.is_some_and(|app| !app.says.is_empty()) && self.edge.reads_leg() {
            steps.push(Step::AppHeard);
        }
        for leg in self.current.into_iter().chain(self.next) {
            let app = &self.legs[leg];
            if app.lost && (app.says.is_empty() || self.current != Some(leg)) {
                steps.push(Step::LossSeen(leg));
            }
        }
        if let Some(dial) = self.dial {
            steps.push(Step::DialDone);
            if dial.is_move && self.budget.dial_failures > 0 {
                steps.push(Step::DialFails);
            }
        }
    }

    fn node_steps(&self, steps: &mut Vec<Step>) {
        if self.budget.owners > 0 {
            // Nodes that nobody has seen yet are all alike.
            let seen = self.legs.iter().map(|app| app.node).chain([self.owner]).max().unwrap_or(0);
            let known = NODES.min(seen + 2);
            steps.extend((0..known).filter(|node| *node != self.owner).map(Step::Owner));
        }
        if self.budget.crashes > 0 {
            let places = self.current.into_iter().chain(self.next).filter(|leg| !self.legs[*leg].lost);
            steps.extend(places.map(|leg| Step::Crash(self.legs[leg].node)));
        }
        if self.budget.zombies > 0 && self.current.is_some_and(|leg| !self.legs[leg].lost) {
            steps.push(Step::GivesUp);
        }
    }

    /// Whether the relay can do anything with what the client has sent.
    fn would_take(&self) -> bool {
        let mut edge = self.edge.clone();
        let taken = edge.client_bytes(self.now, &self.client.wire, &mut Puts::default());
        taken > 0 || edge.reads_client() != self.edge.reads_client()
    }

    /// An application replies within its time: nobody waits for what nobody will say.
    fn is_prompt(&self) -> bool {
        let heard = self.current.is_none_or(|leg| {
            let app = &self.legs[leg];
            app.inbox.is_empty() && (app.says.is_empty() || !self.edge.reads_leg()) && !app.lost
        });
        heard && self.dial.is_none()
    }

    /// Whether somebody has not done yet what libraries do at once: answer pings, read, end a message.
    fn anybody_late(&self) -> bool {
        let legs = self.current.into_iter().chain(self.next);
        self.client_late()
            || self.edge.phase().stopping()
            || legs.map(|leg| &self.legs[leg]).any(App::is_late)
    }

    fn client_late(&self) -> bool {
        !self.client.pings.is_empty() && !self.client.closed && self.edge.reads_client()
    }

    /// Whether anything but the next question about silence is waited for.
    fn is_underway(&self) -> bool {
        let kept = self.edge.kept.as_ref().is_some_and(|kept| kept.count() > 0);
        let steady =
            *self.edge.phase() == Phase::Steady && self.edge.ending.is_none() && self.edge.parting.is_none();
        !steady || self.edge.retry_at().is_some() || kept
    }

    pub(super) fn due(&self) -> Option<Duration> {
        let due = [self.edge.deadline(), self.edge.retry_at()].into_iter().flatten().min();
        due.filter(|due| *due + Duration::from_secs(1800) < self.now + NEVER)
    }

    fn time_passes(&mut self) {
        if self.anybody_late() {
            self.budget.late -= 1;
            self.client_silent |= self.client_late();
            // It may be taken for dead.
            self.lossy |= self.budget.keepalive;
        }
        self.now = self.due().unwrap_or(self.now);
    }

    fn open(&mut self, node: u8, announced: u64) {
        let leg = self.legs.len();
        let nonce = shape(leg as u64, false, self.budget.sidecars).nonce;
        let mut app = App::new(node, nonce, self.budget.sidecars, announced);
        if leg > 0 {
            app.greets(leg as u8);
        }
        self.legs.push(app);
    }

    fn app_heard(&mut self, out: &mut Puts) {
        let Some(leg) = self.current else { return };
        let taken = self.edge.leg_bytes(self.now, &self.legs[leg].says, out);
        self.legs[leg].says.drain(..taken);
        if self.legs[leg].lost && taken == 0 {
            // A torn message: nothing more comes behind it.
            self.legs[leg].says.clear();
        }
    }

    fn dialed(&mut self, done: bool, out: &mut Puts) {
        let Some(dial) = self.dial.take() else { return };
        if done {
            let leg = self.legs.len();
            self.open(dial.node, dial.redelivered);
            self.next = Some(leg);
            let leg = Leg::new(self.now, &self.settings, shape(leg as u64, true, self.budget.sidecars));
            return self.edge.connected(self.now, leg, dial.node == dial.from, out);
        }
        self.budget.dial_failures -= 1;
        if self.edge.orphaned_until().is_some() {
            self.replace();
        } else {
            self.edge.dial_failed(self.now, DialFailure::Unreachable, out);
        }
    }

    fn crash(&mut self, node: u8) {
        self.budget.crashes -= 1;
        self.lossy = true;
        self.legs.iter_mut().filter(|app| app.node == node && !app.lost).for_each(App::crash);
    }

    fn give_up(&mut self, out: &mut Puts) {
        self.budget.zombies -= 1;
        self.lossy = true;
        self.edge.leg_lost(self.now, Slot::Current, out);
    }

    /// Does what the shell does after each event.
    fn after(&mut self, out: &mut Puts) -> Result<(), String> {
        self.deliver(out)?;
        self.reconsider(out);
        self.deliver(out)?;
        self.edge.tick(self.now, Blocked::default(), out);
        self.deliver(out)?;
        self.check()
    }

    fn deliver(&mut self, out: &mut Puts) -> Result<(), String> {
        for (slot, bytes) in out.legs.drain(..) {
            let leg = if slot == Slot::Current { self.current } else { self.next };
            if let Some(leg) = leg.filter(|leg| !self.legs[*leg].lost) {
                self.legs[leg].gets(&bytes)?;
            }
        }
        self.client.gets(&std::mem::take(&mut out.client))?;
        while let Some(action) = self.edge.action() {
            match action {
                Action::Replace => self.replace(),
                Action::Drop(Slot::Current) => {
                    let left = self.current.take();
                    self.leave(left);
                }
                Action::Drop(Slot::Next) => {
                    let left = self.next.take();
                    self.leave(left);
                }
                Action::Promote => {
                    let left = std::mem::replace(&mut self.current, self.next.take());
                    self.leave(left);
                    self.node = self.current.map_or(self.node, |leg| self.legs[leg].node);
                }
                Action::GiveUpDial => self.dial = None,
                Action::Fence(nonce) => {
                    self.legs.iter_mut().filter(|app| app.nonce == nonce).for_each(|app| app.fenced = true);
                }
                Action::Resume => {}
                Action::Finish => self.finished = true,
            }
        }
        Ok(())
    }

    /// A leg is let go of. One whose app was not asked to end has it work on what it has.
    fn leave(&mut self, leg: Option<usize>) {
        let Some(app) = leg.and_then(|leg| self.legs.get_mut(leg)) else { return };
        app.zombie |= !app.closed;
        app.left();
    }

    fn replace(&mut self) {
        let redelivered = self.edge.redelivers();
        self.dial = Some(Dial { node: self.owner, is_move: false, redelivered, from: self.node });
    }

    fn reconsider(&mut self, out: &mut Puts) {
        let heading = self.dial.map(|dial| dial.node).or(self.next.map(|leg| self.legs[leg].node));
        let orphaned = self.edge.orphaned_until().is_some();
        if heading.is_some_and(|node| node != self.owner) && !orphaned {
            self.edge.cancel_move(out);
        }
        if self.owner == self.node {
            self.edge.stay();
        } else if self.edge.can_move(self.now) {
            self.edge.begin_move("moved".into());
            self.dial = Some(Dial { node: self.owner, is_move: true, redelivered: 0, from: self.node });
        }
    }
}

/// Whether the relay reads the client in this step.
fn is_said(step: Step) -> bool {
    matches!(
        step,
        Step::ClientSends | Step::ClientPings | Step::ClientPongs | Step::ClientCloses | Step::ClientHeard
    )
}

fn shape(nonce: u64, moved: bool, sidecar: bool) -> LegShape {
    LegShape { nonce: Nonce(100 + nonce), sidecar, moved, own: false, compressed: false }
}
