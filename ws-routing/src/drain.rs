//! The end of a process, as a value that is passed down.
//!
//! [`channel`] makes the half that begins a drain and the half that everybody holds who must know of it. A drain goes
//! through [`Phase`]s: while *draining* connections leave, spread over the window, when it has *ended* whoever is left
//! leaves at once. A held connection keeps a [`Guard`], so that the process knows when it is empty. Only the program's
//! `run` knows the signals and the deadline.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use ws_routing::drain;
//!
//! let (signal, drain) = drain::channel();
//! let connection = tokio::spawn({
//!     let (mut departures, guard) = (drain.departures(), drain.guard());
//!     async move {
//!         departures.next().await; // now close the clients, 1012, spread over its time
//!         drop(guard);
//!     }
//! });
//! signal.begin(Duration::from_millis(10));
//! drain.empty().await;
//! # connection.await.unwrap();
//! # });
//! ```

use std::{future::pending, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{self, SignalKind},
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

/// Makes a drain that has not begun.
#[must_use]
pub fn channel() -> (Signal, Drain) {
    let (state, phase) = watch::channel(State { phase: Phase::Running, closed: false, shed: None });
    let (count, _) = watch::channel(0);
    (Signal { state: Arc::new(state) }, Drain { state: phase, count: Arc::new(count) })
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No drain has begun.
    Running,
    /// Connections are leaving, spread over the window.
    Draining(Window),
    /// The window is over: what is left leaves at once.
    Ended,
}

/// The time over which connections leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When it began.
    pub began: Instant,
    /// How long it is.
    pub length: Duration,
}

impl Window {
    /// When it is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.began + self.length
    }
}

/// The half that begins and ends a drain. Clones act on the same one.
#[derive(Clone, Debug)]
pub struct Signal {
    state: Arc<watch::Sender<State>>,
}

impl Signal {
    /// Begins to drain, unless it has begun: then the earlier window stays. Returns whether it is news.
    pub fn begin(&self, length: Duration) -> bool {
        self.state.send_if_modified(|state| {
            let news = state.phase == Phase::Running;
            if news {
                state.phase = Phase::Draining(Window { began: Instant::now(), length });
            }
            news
        })
    }

    /// Begins to drain, or has a drain that goes on end within `length` from now: who is left is spread over that anew.
    pub fn hasten(&self, length: Duration) {
        let window = Window { began: Instant::now(), length };
        self.state.send_if_modified(|state| {
            let sooner = match state.phase {
                Phase::Running => true,
                Phase::Draining(earlier) => window.deadline() < earlier.deadline(),
                Phase::Ended => false,
            };
            if sooner {
                state.phase = Phase::Draining(window);
            }
            sooner
        });
    }

    /// Ends the window: what is left leaves at once. The process may go on.
    pub fn end(&self) {
        self.state.send_modify(|state| state.phase = Phase::Ended);
    }

    /// Ends the window, and the process with it: what is asked from here on is not answered.
    pub fn close(&self) {
        self.state.send_modify(|state| {
            state.phase = Phase::Ended;
            state.closed = true;
        });
    }

    /// Has a part of the present connections leave, spread over `length`, while the process goes on.
    ///
    /// `percent` above 100 counts as 100. A later shed takes the place of one that is still going on.
    pub fn shed(&self, percent: u8, length: Duration) {
        self.state.send_modify(|state| {
            let number = state.shed.map_or(1, |shed| shed.number + 1);
            state.shed = Some(Shed { number, percent: percent.min(100), over: length });
        });
    }
}

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    /// The process ends.
    closed: bool,
    shed: Option<Shed>,
}

/// Part of the connections has to leave.
#[derive(Clone, Copy, Debug)]
struct Shed {
    number: u64,
    percent: u8,
    over: Duration,
}

/// The half that is passed down: a cheap clone.
#[derive(Clone, Debug)]
pub struct Drain {
    state: watch::Receiver<State>,
    count: Arc<watch::Sender<usize>>,
}

impl Drain {
    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    /// Whether a drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() != Phase::Running
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.count.send_modify(|count| *count += 1);
        Guard { count: Arc::clone(&self.count) }
    }

    /// The number of guards.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until a drain has begun; returns its window, or `None` when it has ended already.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn began(&self) -> Option<Window> {
        match self.wait(|state| state.phase != Phase::Running).await.phase {
            Phase::Draining(window) => Some(window),
            Phase::Running | Phase::Ended => None,
        }
    }

    /// Waits until the window is over.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn ended(&self) {
        self.wait(|state| state.phase == Phase::Ended).await;
    }

    /// Waits until the process ends: [`Signal::close`].
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn closed(&self) {
        self.wait(|state| state.closed).await;
    }

    /// Waits until there is no guard. Whether new ones can come is for the caller to know.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn empty(&self) {
        // The sender lives as long as `self`: the wait cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Tells whoever holds the connections when they have to leave, from here on.
    #[must_use]
    pub fn departures(&self) -> Departures {
        let state = self.state.clone();
        let sheds = state.borrow().shed.map_or(0, |shed| shed.number);
        Departures { state, sheds, told: None }
    }

    /// The first state that fits. Nobody can begin a drain whose signal is gone: then it waits forever.
    async fn wait(&self, fits: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.clone();
        let found = state.wait_for(fits).await.map(|state| *state);
        match found {
            Ok(state) => state,
            Err(_) => pending().await,
        }
    }
}

/// When connections have to leave: for who holds them.
#[derive(Debug)]
pub struct Departures {
    state: watch::Receiver<State>,
    /// The last shed that was told, or from before.
    sheds: u64,
    /// The phase that was told.
    told: Option<Phase>,
}

/// A share of the connections has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// How many of a hundred of those present.
    pub percent: u8,
    /// The time over which they are spread evenly; zero: at once.
    pub over: Duration,
}

impl Departures {
    /// Waits for the next departure. It takes the place of one that is still going on.
    ///
    /// # Cancel safety
    ///
    /// None is missed when it is cancelled and called again.
    pub async fn next(&mut self) -> Departure {
        loop {
            let State { phase, shed, .. } = *self.state.borrow_and_update();
            if phase != Phase::Running && self.told != Some(phase) {
                self.told = Some(phase);
                let over = if let Phase::Draining(window) = phase { window.length } else { Duration::ZERO };
                return Departure { percent: 100, over };
            }
            if let Some(shed) = shed.filter(|shed| phase == Phase::Running && shed.number > self.sheds) {
                self.sheds = shed.number;
                return Departure { percent: shed.percent, over: shed.over };
            }
            if self.state.changed().await.is_err() {
                // Nobody is left who could begin one.
                return pending().await;
            }
        }
    }
}

/// Counts one connection, until it is dropped.
#[derive(Debug)]
pub struct Guard {
    count: Arc<watch::Sender<usize>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

/// Begins to listen for the signals that end a process: SIGTERM and SIGINT. From here on they no longer kill it.
///
/// # Errors
///
/// When the handlers cannot be installed.
pub fn signals() -> io::Result<Signals> {
    Ok(Signals {
        terminate: unix::signal(SignalKind::terminate())?,
        interrupt: unix::signal(SignalKind::interrupt())?,
    })
}

/// The signals that end a process.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Waits for the next one and returns its name. The first begins a drain, a second ends the process at once.
    ///
    /// # Cancel safety
    ///
    /// No signal is missed when it is cancelled and called again; several of a kind may count as one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Leads a program from its first signal to its end: the first begins to drain over `length`, and the end has come when
/// no connection is left, [`GOODBYE`] after the window, or with a second signal. A drain that was begun otherwise
/// ends its window too, but not the program; a signal hastens it.
///
/// # Cancel safety
///
/// Must not be cancelled and called again: signals would be forgotten.
pub async fn conduct(signal: &Signal, drain: &Drain, mut signals: Signals, length: Duration) -> Outcome {
    let window = async {
        while let Some(window) = drain.began().await {
            let another = drain.wait(|state| state.phase != Phase::Draining(window));
            if timeout_at(window.deadline(), another).await.is_err() {
                signal.end();
            }
        }
        pending().await
    };
    let program = async {
        let name = signals.next().await;
        tracing::info!(signal = name, connections = drain.count(), window = ?length, "draining");
        signal.hasten(length);
        let late = async {
            drain.ended().await;
            sleep(GOODBYE).await;
        };
        tokio::select! {
            biased;
            name = signals.next() => Outcome::Interrupted(name),
            () = drain.empty() => Outcome::Empty,
            () = late => Outcome::Left(drain.count()),
        }
    };
    tokio::select! {
        outcome = program => outcome,
        outcome = window => outcome,
    }
}

/// How long closing handshakes may take after the window.
pub const GOODBYE: Duration = Duration::from_secs(6);

/// How a program's drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No connection is left.
    Empty,
    /// So many connections are left, although their time is over.
    Left(usize),
    /// A second signal came, of that name.
    Interrupted(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_told_once_and_its_end_overtakes_it() {
        let (signal, drain) = channel();
        let mut departures = drain.departures();
        assert!(tokio::time::timeout(WINDOW, departures.next()).await.is_err());
        assert!(signal.begin(WINDOW));
        assert!(!signal.begin(Duration::ZERO), "the first window stays");
        assert_eq!(departures.next().await, Departure { percent: 100, over: WINDOW });
        assert!(tokio::time::timeout(WINDOW, departures.next()).await.is_err());
        signal.end();
        assert_eq!(departures.next().await, Departure { percent: 100, over: Duration::ZERO });
        drain.ended().await;
        assert_eq!(drain.phase(), Phase::Ended);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shed_concerns_those_from_before_it() {
        let (signal, drain) = channel();
        signal.shed(30, WINDOW);
        let mut later = drain.departures();
        assert!(tokio::time::timeout(WINDOW, later.next()).await.is_err());
        signal.shed(200, WINDOW);
        assert_eq!(later.next().await, Departure { percent: 100, over: WINDOW });
        assert_eq!(drain.phase(), Phase::Running);
        drop(signal);
        assert!(tokio::time::timeout(WINDOW, later.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_hastened_but_never_held_up() {
        let (signal, drain) = channel();
        let mut departures = drain.departures();
        signal.begin(10 * WINDOW);
        assert_eq!(departures.next().await, Departure { percent: 100, over: 10 * WINDOW });
        signal.hasten(WINDOW);
        assert_eq!(departures.next().await, Departure { percent: 100, over: WINDOW });
        signal.hasten(2 * WINDOW);
        assert!(tokio::time::timeout(WINDOW, departures.next()).await.is_err());
        signal.end();
        signal.hasten(WINDOW);
        assert_eq!(drain.phase(), Phase::Ended);
        assert!(tokio::time::timeout(WINDOW, drain.closed()).await.is_err(), "the process goes on");
        signal.close();
        drain.closed().await;
    }

    #[tokio::test]
    async fn it_is_empty_when_the_last_guard_is_gone() {
        let (_signal, drain) = channel();
        let (first, second) = (drain.guard(), drain.clone().guard());
        assert_eq!(drain.count(), 2);
        let empty = tokio::spawn({
            let drain = drain.clone();
            async move { drain.empty().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!empty.is_finished());
        drop(second);
        empty.await.unwrap();
    }
}
