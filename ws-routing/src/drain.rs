//! The end of a process, as a value that is passed down.
//!
//! [`channel`] makes the half that begins a drain and the half that everybody holds who must know of it. A drain goes
//! through [`Phase`]s: while *draining* each connection leaves at a point of the window that is its own, when it has
//! *ended* whoever is left leaves at once. A held connection keeps a [`Guard`], so that the process knows when it is
//! empty. Only the program's `run` knows the signals and the deadline.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use ws_routing::drain;
//!
//! let (signal, drain) = drain::channel();
//! let connection = tokio::spawn({
//!     let (mut turn, guard) = (drain.turn(random()), drain.guard());
//!     async move {
//!         turn.comes().await; // now close the client, 1012
//!         drop(guard);
//!     }
//! });
//! signal.begin(Duration::from_millis(10));
//! drain.empty().await;
//! # connection.await.unwrap();
//! # });
//! # fn random() -> u64 { 7 }
//! ```

use std::{future::pending, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{self, SignalKind},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

/// Makes a drain that has not begun.
#[must_use]
pub fn channel() -> (Signal, Drain) {
    let (state, phase) = watch::channel(State { phase: Phase::Running, shed: None });
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

    /// The point that belongs to a random number: spread evenly from the window's beginning to its end.
    #[must_use]
    pub fn point(&self, random: u64) -> Instant {
        self.began + fraction(self.length, random)
    }
}

/// `length`, times `random` as a fraction of all 64-bit numbers. Longer than 584 years is 584 years.
fn fraction(length: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(share(random, nanos))
}

/// `of`, times `random` as a fraction of all 64-bit numbers: less than `of` unless that is 0.
const fn share(random: u64, of: u64) -> u64 {
    ((random as u128 * of as u128) >> 64) as u64
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

    /// Ends the window: what is left leaves at once.
    pub fn end(&self) {
        self.state.send_modify(|state| state.phase = Phase::Ended);
    }

    /// Has a part of the present connections leave, spread over `length`, while the process goes on.
    ///
    /// `percent` above 100 counts as 100. A later shed takes the place of one that is still going on.
    pub fn shed(&self, percent: u8, length: Duration) {
        self.state.send_modify(|state| {
            let number = state.shed.map_or(1, |shed| shed.number + 1);
            state.shed = Some(Shed { number, percent, window: Window { began: Instant::now(), length } });
        });
    }
}

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    shed: Option<Shed>,
}

/// Part of the connections has to leave.
#[derive(Clone, Copy, Debug)]
struct Shed {
    number: u64,
    percent: u8,
    window: Window,
}

impl Shed {
    /// When the connection of that random number leaves, if it does. Each shed deals anew.
    fn point(&self, random: u64) -> Option<Instant> {
        let dealt = (random ^ self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ random;
        let picked = share(dealt, 100) < u64::from(self.percent);
        picked.then(|| self.window.point(dealt.wrapping_mul(0xd134_2543_de82_ef95)))
    }
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

    /// Waits until there is no guard. Whether new ones can come is for the caller to know.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn empty(&self) {
        // The sender lives as long as `self`: the wait cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// When the connection of that random number has to leave. Taken when the connection begins: sheds from before
    /// are none of its business.
    #[must_use]
    pub fn turn(&self, random: u64) -> Turn {
        let state = self.state.clone();
        let sheds = state.borrow().shed.map_or(0, |shed| shed.number);
        Turn { state, random, sheds }
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

/// When one connection has to leave.
#[derive(Debug)]
pub struct Turn {
    state: watch::Receiver<State>,
    random: u64,
    /// The last shed from before this connection.
    sheds: u64,
}

impl Turn {
    /// Waits until the connection has to leave: at its point of the drain's window or of a shed that picks it, and at
    /// once when the drain has ended.
    ///
    /// # Cancel safety
    ///
    /// May be cancelled and called again.
    pub async fn comes(&mut self) {
        loop {
            let State { phase, shed } = *self.state.borrow_and_update();
            let shed = shed.filter(|shed| shed.number > self.sheds).and_then(|shed| shed.point(self.random));
            let at = match phase {
                Phase::Ended => return,
                Phase::Draining(window) => Some(window.point(self.random)),
                Phase::Running => shed,
            };
            let due = async {
                sleep_until(at?).await;
                Some(())
            };
            tokio::select! {
                Some(()) = due => return,
                Ok(()) = self.state.changed() => {}
                // It has no turn, and nobody is left who could give it one.
                else => pending().await,
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
/// ends its window too, but not the program.
///
/// # Cancel safety
///
/// Must not be cancelled and called again: signals would be forgotten.
pub async fn conduct(signal: &Signal, drain: &Drain, mut signals: Signals, length: Duration) -> Outcome {
    let window = async {
        if let Some(window) = drain.began().await {
            sleep_until(window.deadline()).await;
            signal.end();
        }
        pending().await
    };
    let program = async {
        let name = signals.next().await;
        tracing::info!(signal = name, connections = drain.count(), window = ?length, "draining");
        signal.begin(length);
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

    #[test]
    fn points_are_spread_over_the_window() {
        assert_eq!(fraction(WINDOW, 0), Duration::ZERO);
        assert_eq!(fraction(WINDOW, 1 << 63), WINDOW / 2);
        let last = fraction(WINDOW, u64::MAX);
        assert!(last < WINDOW && WINDOW - last < Duration::from_micros(1), "{last:?}");
        assert_eq!(fraction(Duration::MAX, u64::MAX).as_nanos(), u128::from(u64::MAX) - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_leaves_at_its_point() {
        let (signal, drain) = channel();
        let start = Instant::now();
        let mut turn = drain.turn(1 << 62);
        let leaves = tokio::spawn(async move {
            turn.comes().await;
            start.elapsed()
        });
        assert!(signal.begin(WINDOW));
        assert!(!signal.begin(Duration::ZERO), "the first window stays");
        assert_eq!(leaves.await.unwrap().as_millis() / 10, 750);
        assert_eq!(drain.began().await, Some(Window { began: start, length: WINDOW }));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_overtakes_every_point() {
        let (signal, drain) = channel();
        signal.begin(WINDOW);
        let mut turn = drain.turn(u64::MAX);
        assert!(tokio::time::timeout(WINDOW / 2, turn.comes()).await.is_err());
        signal.end();
        tokio::time::timeout(Duration::ZERO, turn.comes()).await.unwrap();
        drain.ended().await;
        assert_eq!(drain.phase(), Phase::Ended);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_leaves_before_a_drain_nor_when_nobody_can_begin_one() {
        let (signal, drain) = channel();
        let mut turn = drain.turn(0);
        assert!(tokio::time::timeout(WINDOW, turn.comes()).await.is_err());
        drop(signal);
        assert!(tokio::time::timeout(WINDOW, turn.comes()).await.is_err());
        assert!(tokio::time::timeout(WINDOW, drain.began()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shed_takes_its_share_of_those_present() {
        let (signal, drain) = channel();
        let spread = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut present: Vec<Turn> = (1..=1000).map(|n| drain.turn(spread(n))).collect();
        signal.shed(30, WINDOW);
        let mut later = drain.turn(0);
        tokio::time::sleep(WINDOW).await;
        let mut left = 0;
        for turn in &mut present {
            left += usize::from(tokio::time::timeout(Duration::ZERO, turn.comes()).await.is_ok());
        }
        assert!((250..350).contains(&left), "{left} of 1000 left, not 30 %");
        signal.shed(0, WINDOW);
        assert!(tokio::time::timeout(2 * WINDOW, later.comes()).await.is_err());
        signal.shed(100, WINDOW);
        later.comes().await;
        assert_eq!(drain.phase(), Phase::Running);
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
