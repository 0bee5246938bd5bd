//! The registry of a node's connections and their mailboxes, step by step, beside a model of who is where.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use tokio::{runtime::Runtime, time::advance};

use super::{
    mailbox::{NotTaken, OVERHEAD, Outcome, Phase, Post, Taken},
    seat::{Guest, Posted, Seated, Seats, Whither},
};
use crate::key::Key;

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn everybody_is_found_where_he_is_and_every_post_is_answered_once(sequential 1..80 => Registry);
}

/// Keys, and connections of each.
const KEYS: u8 = 3;
const CONNECTIONS: u8 = 4;
/// What may wait for a connection, in bytes.
const BOUND: usize = 100 + 3 * OVERHEAD;

/// A leg: the how-manieth of all.
type LegId = usize;

#[derive(Clone, Debug, Default)]
struct Model {
    now: u64,
    opened: usize,
    legs: BTreeMap<LegId, Leg>,
    /// (key, connection) and when it left for elsewhere.
    departed: Vec<(u8, u8, u64)>,
}

#[derive(Clone, Debug)]
struct Leg {
    key: u8,
    connection: u8,
    phase: Phase,
    /// The bytes of each post that waits.
    waiting: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        key: u8,
        connection: u8,
        moved: bool,
    },
    Live(LegId),
    /// The leg is over: the connection goes on elsewhere, or not.
    Over(LegId, bool),
    /// Its task ends.
    Ends(LegId),
    Post(LegId, usize),
    /// The oldest post is handed over.
    Hands(LegId),
    /// Its newest post is taken out again.
    Withdraws(LegId),
    Time(u64),
}

impl Model {
    fn leaves(&mut self, leg: LegId, elsewhere: bool) {
        let Some(Leg { key, connection, phase, waiting }) = self.legs.get_mut(&leg) else { return };
        if std::mem::replace(phase, Phase::Over) == Phase::Over {
            return;
        }
        waiting.clear();
        let (key, connection) = (*key, *connection);
        let back =
            self.legs.values().any(|l| (l.key, l.connection) == (key, connection) && l.phase != Phase::Over);
        if elsewhere && !back {
            self.departed.push((key, connection, self.now));
        }
    }

    fn seats(&self, key: u8) -> Vec<u8> {
        let held = self.legs.values().filter(|leg| leg.key == key && leg.phase != Phase::Over);
        held.map(|leg| leg.connection).collect()
    }

    fn gone(&self, key: u8) -> Vec<u8> {
        let known = self.departed.iter().filter(|(k, _, at)| *k == key && self.now < at + 60_000);
        known.map(|(_, connection, _)| *connection).collect()
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(model: &Self) -> BoxedStrategy<Step> {
        let open = (0..KEYS, 0..CONNECTIONS, any::<bool>()).prop_map(|(key, connection, moved)| Step::Open {
            key,
            connection,
            moved,
        });
        let time = (1_u64..40_000).prop_map(Step::Time);
        if model.legs.is_empty() {
            return prop_oneof![open, time].boxed();
        }
        let leg = || prop::sample::select(model.legs.keys().copied().collect::<Vec<_>>());
        prop_oneof![
            4 => open,
            2 => leg().prop_map(Step::Live),
            2 => (leg(), any::<bool>()).prop_map(|(leg, elsewhere)| Step::Over(leg, elsewhere)),
            2 => leg().prop_map(Step::Ends),
            6 => (leg(), 1_usize..120).prop_map(|(leg, len)| Step::Post(leg, len)),
            3 => leg().prop_map(Step::Hands),
            1 => leg().prop_map(Step::Withdraws),
            1 => time,
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        match *step {
            Step::Open { key, connection, moved } => {
                let phase = if moved { Phase::Waiting } else { Phase::Live };
                model.departed.retain(|(k, c, _)| (*k, *c) != (key, connection));
                model.legs.insert(model.opened, Leg { key, connection, phase, waiting: Vec::new() });
                model.opened += 1;
            }
            Step::Live(leg) => {
                if let Some(leg) = model.legs.get_mut(&leg) {
                    leg.phase = Phase::Live;
                }
            }
            Step::Over(leg, elsewhere) => model.leaves(leg, elsewhere),
            Step::Ends(leg) => {
                model.leaves(leg, false);
                model.legs.remove(&leg);
            }
            Step::Post(leg, len) => {
                if let Some(leg) = model.legs.get_mut(&leg).filter(|leg| takes(leg, len).is_ok()) {
                    leg.waiting.push(len);
                }
            }
            Step::Hands(leg) => {
                if let Some(leg) = model.legs.get_mut(&leg).filter(|leg| !leg.waiting.is_empty()) {
                    leg.waiting.remove(0);
                }
            }
            Step::Withdraws(leg) => _ = model.legs.get_mut(&leg).and_then(|leg| leg.waiting.pop()),
            Step::Time(ms) => model.now += ms,
        }
        model
    }

    fn preconditions(model: &Self, step: &Step) -> bool {
        match step {
            // Only a leg that is not over becomes live, and once it is over it stays so.
            Step::Live(leg) => model.legs.get(leg).is_some_and(|leg| leg.phase != Phase::Over),
            Step::Over(leg, _)
            | Step::Ends(leg)
            | Step::Post(leg, _)
            | Step::Hands(leg)
            | Step::Withdraws(leg) => model.legs.contains_key(leg),
            Step::Open { .. } | Step::Time(_) => true,
        }
    }
}

fn takes(leg: &Leg, len: usize) -> Result<(), NotTaken> {
    let cost = |len: usize| OVERHEAD + len;
    let bytes: usize = leg.waiting.iter().map(|len| cost(*len)).sum();
    match leg.phase {
        Phase::Over => Err(NotTaken::Gone),
        _ if bytes > 0 && bytes + cost(len) > BOUND => Err(NotTaken::Full),
        _ => Ok(()),
    }
}

struct Registry {
    /// Its clock is paused, and is ours.
    runtime: Runtime,
    seats: Seats,
    legs: BTreeMap<LegId, Held>,
    opened: usize,
}

struct Held {
    seated: Seated,
    /// Oldest first.
    posts: Vec<Posted>,
}

impl StateMachineTest for Registry {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        Self { runtime: runtime.unwrap(), seats: Seats::new(BOUND), legs: BTreeMap::new(), opened: 0 }
    }

    fn apply(mut registry: Self, model: &Model, step: Step) -> Self {
        let _clock = registry.runtime.enter();
        match step {
            Step::Open { key, connection, moved } => {
                let seated = registry.seats.take_seat(guest(key, connection, moved));
                registry.legs.insert(registry.opened, Held { seated, posts: Vec::new() });
                registry.opened += 1;
            }
            Step::Live(leg) => registry.legs[&leg].seated.live(),
            Step::Over(leg, elsewhere) => {
                let held = registry.legs.get_mut(&leg).unwrap();
                held.seated.over(elsewhere.then_some(Whither::Sought));
                held.all_are_told(Outcome::Gone);
            }
            Step::Ends(leg) => {
                let Held { seated, posts } = registry.legs.remove(&leg).unwrap();
                drop(seated);
                posts.into_iter().for_each(|post| assert_eq!(told(post), Some(Outcome::Gone)));
            }
            Step::Post(leg, len) => {
                let held = registry.legs.get_mut(&leg).unwrap();
                let posts = model.legs[&leg].waiting.len();
                match held.post(len) {
                    Ok(posted) => held.posts.push(posted),
                    Err(why) => assert_eq!(why == NotTaken::Gone, model.legs[&leg].phase == Phase::Over),
                }
                assert_eq!(held.posts.len(), posts, "taken in or not");
            }
            Step::Hands(leg) => registry.legs.get_mut(&leg).unwrap().hands_over(),
            Step::Withdraws(leg) => {
                let held = registry.legs.get_mut(&leg).unwrap();
                if let Some(post) = held.posts.pop() {
                    assert!(post.withdraw() && !post.withdraw(), "once");
                }
            }
            Step::Time(ms) => registry.runtime.block_on(advance(Duration::from_millis(ms))),
        }
        registry
    }

    fn check_invariants(registry: &Self, model: &Model) {
        let _clock = registry.runtime.enter();
        assert_eq!(registry.seats.len(), model.legs.len());
        for key in 0..KEYS {
            let (seats, departed) = registry.seats.of(&name(key));
            let of = |connection: &str| connection.parse::<u8>().unwrap();
            let seats: Vec<u8> = seats.iter().map(|seat| of(&seat.guest().connection)).collect();
            let departed: Vec<u8> = departed.iter().map(|gone| of(&gone.connection)).collect();
            assert_eq!((seats, departed), (model.seats(key), model.gone(key)), "key {key}");
        }
        for (leg, held) in &registry.legs {
            assert_eq!(held.seated.seat().phase(), model.legs[leg].phase);
            assert_eq!(held.seated.seat().mailbox().waits(), !model.legs[leg].waiting.is_empty());
        }
    }
}

impl Held {
    fn post(&self, len: usize) -> Result<Posted, NotTaken> {
        let (seats, _) = self.seated.seats().of(&self.seated.seat().guest().key);
        let here =
            |seat: &&std::sync::Arc<super::seat::Seat>| std::ptr::eq(&raw const ***seat, self.seated.seat());
        // Who is over is found by nobody.
        let seat = seats.iter().find(here).ok_or(NotTaken::Gone)?;
        seat.post(Post::Message { text: false, payload: vec![0; len].into(), receipt: false })
    }

    fn hands_over(&mut self) {
        let taken = self.seated.seat().mailbox().next_to_client();
        assert_eq!(taken.is_some(), !self.posts.is_empty());
        let Some(Taken { outcome, .. }) = taken else { return };
        let post = self.posts.remove(0);
        assert!(!post.withdraw(), "it was handed over");
        outcome.send(Outcome::Done).unwrap();
        assert_eq!(told(post), Some(Outcome::Done));
    }

    fn all_are_told(&mut self, outcome: Outcome) {
        self.posts.drain(..).for_each(|post| assert_eq!(told(post), Some(outcome)));
    }
}

fn told(mut post: Posted) -> Option<Outcome> {
    futures_util::FutureExt::now_or_never(post.outcome())
}

fn guest(key: u8, connection: u8, moved: bool) -> Guest {
    let moved_from = moved.then(|| "10.0.0.2:7400".parse().unwrap());
    let connection = connection.to_string().into();
    Guest { key: name(key), connection, moved_from, remote: None, subprotocol: None }
}

fn name(key: u8) -> Key {
    Key::new(format!("key-{key}")).unwrap()
}
