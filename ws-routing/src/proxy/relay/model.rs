//! A client, its legs and their apps around an [`Edge`], for the explorer: every step that the world may take next, and
//! what must hold after it.
//!
//! An app has two layers, as most WebSocket libraries do: the library reads frames, answers pings (only the latest of
//! several, and whenever it likes) and a Close at once; the application handles one message after another behind it,
//! and what it replies after the Close is lost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::model_app::{App, Budget, Part, script};
use super::{Action, Blocked, DialFailure, Edge, Leg, LegShape, Nonce, Outputs, Settings, Slot};
use crate::frame::{self, Decoder, Kind, Opcode, close_payload};

/// A step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The client sends the next part of its messages.
    ClientSends,
    ClientPings,
    ClientCloses,
    /// The relay reads what the client has sent.
    ClientHeard,
    /// The library of that leg's app reads all that is there.
    Reads(usize),
    /// It answers the latest ping.
    Pongs(usize),
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
    /// The relay sees the end of a leg.
    LossSeen(usize),
    /// Time passes up to what is due next.
    Time,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    edge: Edge,
    now: Duration,
    budget: Budget,
    settings: Arc<Settings>,
    /// What the client has still to send, part by part.
    script: Vec<Part>,
    /// From the client, not read by the relay.
    wire: Vec<u8>,
    client_closed: bool,
    /// It was the first to say so.
    client_began: bool,
    from_relay: Decoder,
    heard: Heard,
    legs: Vec<App>,
    current: Option<usize>,
    next: Option<usize>,
    dial: Option<Dial>,
    owner: u8,
    /// Where the connection is, or was.
    node: u8,
    crashed: bool,
    /// (leg, message) as the applications handled them.
    handled: Vec<(usize, u8)>,
    finished: bool,
}

/// What the client got.
#[derive(Clone, Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    words: Vec<(u8, u8)>,
    pongs: u8,
    close: Option<u16>,
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

const MASK: [u8; 4] = [9, 8, 7, 6];

impl World {
    pub(super) fn new(settings: &Settings, budget: Budget) -> Self {
        let settings = Arc::new(Settings { ping_interval: NEVER, ..settings.clone() });
        let leg = Leg::new(Duration::ZERO, &settings, shape(0, false));
        let mut world = Self {
            edge: Edge::new(Duration::ZERO, Arc::clone(&settings), Nonce(1), false, leg),
            now: Duration::ZERO,
            script: script(budget.messages),
            budget,
            settings,
            wire: Vec::new(),
            client_closed: false,
            client_began: false,
            from_relay: Decoder::new(false, false, 0),
            heard: Heard::default(),
            legs: Vec::new(),
            current: Some(0),
            next: None,
            dial: None,
            owner: 0,
            node: 0,
            crashed: false,
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
        if self.budget.owners > 0 {
            steps.extend((0..3).filter(|node| *node != self.owner).map(Step::Owner));
        }
        if self.budget.crashes > 0 {
            let places = self.current.into_iter().chain(self.next);
            steps.extend(places.map(|leg| Step::Crash(self.legs[leg].node)));
        }
        if self.due().is_some() && self.is_prompt() {
            steps.push(Step::Time);
        }
        steps
    }

    /// Takes a step.
    ///
    /// # Errors
    ///
    /// What does not hold after it.
    pub(super) fn take(&mut self, step: Step) -> Result<(), String> {
        let mut out = Puts::default();
        match step {
            Step::ClientSends => {
                let part = self.script.remove(0);
                self.wire.extend(part.bytes);
            }
            Step::ClientPings => {
                self.budget.pings -= 1;
                frame::write(&mut self.wire, Opcode::Ping, b"?", Some(MASK));
            }
            Step::ClientCloses => {
                self.client_closed = true;
                self.client_began = self.heard.close.is_none();
                frame::write(&mut self.wire, Opcode::Close, &close_payload(1000, ""), Some(MASK));
            }
            Step::ClientHeard => {
                let taken = self.edge.client_bytes(self.now, &self.wire, &mut out);
                self.wire.drain(..taken);
            }
            Step::Reads(leg) => self.legs[leg].reads()?,
            Step::Pongs(leg) => self.legs[leg].pongs(),
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
            Step::LossSeen(leg) => {
                let slot = if self.current == Some(leg) { Slot::Current } else { Slot::Next };
                self.edge.leg_lost(self.now, slot, &mut out);
            }
            Step::Time => self.now = self.due().unwrap_or(self.now),
        }
        self.after(&mut out)?;
        match self.due() {
            Some(due) if step == Step::Time && due <= self.now => {
                Err(format!("{:?} is still due: the relay spins", self.edge.phase))
            }
            _ => Ok(()),
        }
    }

    /// What does not hold when nothing more can happen.
    pub(super) fn end(&self) -> Result<(), String> {
        if !self.finished && (!self.edge.reads_client() || self.current.is_none()) {
            return Err(format!("the connection hangs in {:?}", self.edge.phase));
        }
        if !self.finished && !self.wire.is_empty() {
            return Err("bytes of the client are never read".into());
        }
        let own = self.client_began || self.app_closed();
        if self.finished && !own && !self.crashed {
            return Err(format!("closed without need: {:?}", self.heard.close));
        }
        if self.finished && self.heard.close.is_none() && !self.crashed {
            return Err("cut without a Close".into());
        }
        let mut counts = BTreeMap::new();
        self.handled.iter().for_each(|(_, n)| *counts.entry(*n).or_insert(0) += 1);
        let safe = !self.crashed || self.settings.redelivery.is_some();
        let lost = (1..=self.sent()).find(|n| !counts.contains_key(n));
        if let Some(n) = lost
            && safe
            && (!self.finished || (self.client_began && self.closed_well()))
        {
            return Err(format!("message {n} is lost"));
        }
        if !self.crashed && !self.finished {
            let unheard = self.handled.iter().find(|(leg, n)| !self.heard.words.contains(&(*leg as u8, *n)));
            if let Some((leg, n)) = unheard {
                return Err(format!("the reply of leg {leg} to message {n} is lost"));
            }
        }
        Ok(())
    }

    fn closed_well(&self) -> bool {
        self.heard.close == Some(1000)
    }

    fn app_closed(&self) -> bool {
        self.heard.close.is_some_and(|code| code >= 4000)
    }

    /// How many messages the client has sent whole.
    fn sent(&self) -> u8 {
        self.budget.messages - self.script.iter().filter(|part| part.ends).count() as u8
    }

    fn client_steps(&self, steps: &mut Vec<Step>) {
        if !self.client_closed && self.heard.close.is_none() {
            if !self.script.is_empty() {
                steps.push(Step::ClientSends);
            }
            let at_frame = !self.script.first().is_some_and(|part| part.torn);
            if self.budget.pings > 0 && at_frame {
                steps.push(Step::ClientPings);
            }
            if self.budget.client_closes && at_frame {
                steps.push(Step::ClientCloses);
            }
        }
        if self.heard.close.is_some() && !self.client_closed {
            steps.push(Step::ClientCloses);
        }
        if !self.wire.is_empty() && self.edge.reads_client() && self.would_take() {
            steps.push(Step::ClientHeard);
        }
    }

    /// Whether the relay can do anything with what the client has sent.
    fn would_take(&self) -> bool {
        let mut edge = self.edge.clone();
        let taken = edge.client_bytes(self.now, &self.wire, &mut Puts::default());
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

    fn due(&self) -> Option<Duration> {
        let due = [self.edge.deadline(), self.edge.retry_at()].into_iter().flatten().min();
        due.filter(|due| *due < NEVER)
    }

    fn open(&mut self, node: u8, announced: u64) {
        let mut says = Vec::new();
        frame::write(&mut says, Opcode::Binary, &[self.legs.len() as u8, 0], None);
        self.legs.push(App {
            node,
            library: Decoder::new(true, false, 0),
            unread: Vec::new(),
            inbox: Vec::new(),
            pings: Vec::new(),
            says,
            closed: false,
            lost: false,
            announced,
        });
    }

    fn handles(&mut self, leg: usize) -> Result<(), String> {
        let app = &mut self.legs[leg];
        let n = app.inbox.remove(0);
        app.reply(leg as u8, n);
        let repeated = self.handled.iter().any(|(_, seen)| *seen == n);
        let may_repeat = app.announced > 0;
        app.announced = app.announced.saturating_sub(1);
        if repeated && !may_repeat {
            return Err(format!("message {n} is repeated unannounced"));
        }
        // What was announced begins again on its leg; everything else goes on.
        let before = self.handled.iter().filter(|(at, _)| !repeated || *at == leg).map(|(_, n)| *n).max();
        if before.is_some_and(|before| n <= before) {
            return Err(format!("message {n} comes after message {before:?}"));
        }
        self.handled.push((leg, n));
        Ok(())
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
            let leg = Leg::new(self.now, &self.settings, shape(leg as u64, true));
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
        self.crashed = true;
        for app in self.legs.iter_mut().filter(|app| app.node == node) {
            app.lost = true;
            app.unread.clear();
            app.inbox.clear();
            app.pings.clear();
            app.says.truncate(app.says.len() / 2);
        }
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
                self.legs[leg].unread.extend(bytes);
            }
        }
        self.heard.bytes.append(&mut out.client);
        self.client_reads()?;
        while let Some(action) = self.edge.action() {
            match action {
                Action::Replace => self.replace(),
                Action::Drop(Slot::Current) => self.current = None,
                Action::Drop(Slot::Next) => self.next = None,
                Action::Promote => {
                    self.current = self.next.take();
                    self.node = self.current.map_or(self.node, |leg| self.legs[leg].node);
                }
                Action::GiveUpDial => self.dial = None,
                Action::Resume | Action::Fence(_) => {}
                Action::Finish => self.finished = true,
            }
        }
        Ok(())
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

    fn client_reads(&mut self) -> Result<(), String> {
        loop {
            let bytes = std::mem::take(&mut self.heard.bytes);
            let unit = self.from_relay.next(&bytes).map_err(|violation| violation.to_string())?;
            let Some(unit) = unit else {
                self.heard.bytes = bytes;
                return Ok(());
            };
            match unit.kind {
                _ if self.heard.close.is_some() => return Err("something follows the Close".into()),
                Kind::Data { .. } => self.heard.words.push((bytes[2], bytes[3])),
                Kind::Control(control) if control.opcode == Opcode::Pong => self.heard.pongs += 1,
                Kind::Control(control) if control.opcode == Opcode::Close => {
                    self.heard.close = Some(control.code());
                }
                Kind::Control(_) => {}
            }
            self.heard.bytes = bytes[unit.len..].to_vec();
        }
    }

    /// What must hold at any time.
    fn check(&self) -> Result<(), String> {
        let words = &self.heard.words;
        if let Some(pair) = words.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("the client hears {:?} after {:?} (leg, message)", pair[1], pair[0]));
        }
        if let Some((leg, _)) = words.last()
            && self.current.is_some_and(|current| usize::from(*leg) > current)
        {
            return Err(format!("leg {leg} is heard before it took over"));
        }
        if self.heard.pongs > 1 {
            return Err("the client's one ping is answered twice".into());
        }
        if self.due().is_some_and(|due| due < self.now) {
            return Err(format!("{:?} is overdue: the relay spins", self.edge.phase));
        }
        Ok(())
    }
}

fn shape(nonce: u64, moved: bool) -> LegShape {
    // A plain node: its app itself answers all pings, with the latest.
    LegShape { nonce: Nonce(100 + nonce), sidecar: false, moved, own: false, compressed: false }
}
