//! What is kept of a connection's messages, step by step, beside a model that keeps it as simply as can be.

use std::time::Duration;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::redelivery::{Kept, Redelivery};
use crate::frame::{Opcode, write};

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_ring_keeps_what_is_not_surely_handled_and_nothing_else(sequential 1..80 => Ring);
}

const SETTINGS: Redelivery = Redelivery { hold: Duration::from_millis(1000), buffer: 400 };

struct Ring {
    kept: Kept,
}

#[derive(Clone, Debug, Default)]
struct Model {
    now: u64,
    sequence: u64,
    whole: Vec<Message>,
    /// The length of each frame of the message that is passing.
    open: Option<Vec<usize>>,
    /// The message that is passing is not kept.
    unkept: bool,
    /// The last frame had to wait.
    waits: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Message {
    number: u64,
    frames: Vec<usize>,
    confirmed: Option<u64>,
    tries: u8,
}

impl Message {
    fn bytes(&self) -> usize {
        self.frames.iter().sum()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A frame with so much payload, which may end its message.
    Frame(usize, bool),
    /// The app has read so many of those that it has not confirmed.
    Pong(usize),
    Time(u64),
    /// The leg is lost: what is kept goes to another.
    Replay,
    /// A move is done.
    Clear,
}

impl Model {
    fn bytes(&self) -> usize {
        let open: usize = self.open.iter().flatten().sum();
        self.whole.iter().map(Message::bytes).sum::<usize>() + open
    }

    fn expire(&mut self) {
        let now = self.now;
        let over = |m: &Message| m.confirmed.is_some_and(|at| now >= at + 1000);
        let gone = self.whole.iter().take_while(|message| over(message)).count();
        self.whole.drain(..gone);
    }

    fn offer(&mut self, size: usize, ends: bool) {
        let begun: usize = self.open.iter().flatten().sum();
        if !self.unkept && begun + size > SETTINGS.buffer {
            (self.open, self.unkept) = (None, true);
        }
        if !self.unkept {
            while self.bytes() + size > SETTINGS.buffer
                && self.whole.first().is_some_and(|message| message.confirmed.is_some())
            {
                self.whole.remove(0);
            }
            self.waits = self.bytes() + size > SETTINGS.buffer;
            if self.waits {
                return;
            }
            self.open.get_or_insert_default().push(size);
        }
        if ends {
            self.sequence += 1;
            self.unkept = false;
            let number = self.sequence;
            let message =
                self.open.take().map(|frames| Message { number, frames, confirmed: None, tries: 0 });
            self.whole.extend(message);
        }
    }

    /// The number of the last message that a pong with so many news confirms.
    fn reach(&self, news: usize) -> u64 {
        let unconfirmed = self.whole.iter().filter(|message| message.confirmed.is_none());
        unconfirmed.take(news).last().map_or(0, |message| message.number)
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        prop_oneof![
            8 => (prop_oneof![4 => 0_usize..60, 1 => 60_usize..500], prop::bool::weighted(0.7))
                .prop_map(|(len, ends)| Step::Frame(len, ends)),
            3 => (1_usize..5).prop_map(Step::Pong),
            2 => (1_u64..1500).prop_map(Step::Time),
            1 => Just(Step::Replay),
            1 => Just(Step::Clear),
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        model.waits = false;
        match *step {
            Step::Frame(len, ends) => model.offer(frame(len, 0).len(), ends),
            Step::Pong(news) => {
                let (reach, now) = (model.reach(news), model.now);
                for message in model.whole.iter_mut().filter(|message| message.number <= reach) {
                    message.confirmed.get_or_insert(now);
                }
                model.expire();
            }
            Step::Time(ms) => {
                model.now += ms;
                model.expire();
            }
            Step::Replay => {
                for message in &mut model.whole {
                    (message.confirmed, message.tries) = (None, message.tries + 1);
                }
            }
            Step::Clear => {
                model.whole.clear();
                // A move is done between messages only.
                (model.open, model.unkept) = (None, false);
            }
        }
        model
    }

    fn preconditions(model: &Self, step: &Step) -> bool {
        match step {
            Step::Clear => model.open.is_none() && !model.unkept,
            // Poison: the connection is closed.
            Step::Replay => model.whole.iter().all(|message| message.tries < 2),
            _ => true,
        }
    }
}

impl StateMachineTest for Ring {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self { kept: Kept::new(SETTINGS) }
    }

    fn apply(mut ring: Self, model: &Model, step: Step) -> Self {
        let now = Duration::from_millis(model.now);
        match step {
            Step::Frame(len, ends) => {
                let frame = frame(len, ring.kept.count());
                assert_eq!(ring.kept.takes(&frame), !model.waits, "{} bytes", frame.len());
                if !model.waits {
                    ring.kept.keep(now, &frame, ends.then_some(model.sequence));
                }
            }
            Step::Pong(_) => {
                let mut confirmed = model.whole.iter().filter(|message| message.confirmed.is_some());
                let reach = confirmed.next_back().map_or(0, |message| message.number);
                ring.kept.confirmed(now, reach);
            }
            Step::Time(_) => _ = ring.kept.expire(now),
            Step::Replay => {
                let mut frames = Vec::new();
                let last = ring.kept.replay(|_, bytes| frames.push(bytes.len()));
                assert_eq!(frames, model.whole.iter().map(Message::bytes).collect::<Vec<_>>());
                assert_eq!(last, model.whole.last().map(|message| message.number));
            }
            Step::Clear => ring.kept.clear(),
        }
        ring
    }

    fn check_invariants(ring: &Self, model: &Model) {
        let kept = &ring.kept;
        assert_eq!(
            (kept.count(), kept.first()),
            (model.whole.len() as u64, model.whole.first().map(|m| m.number))
        );
        assert_eq!((kept.bytes, kept.size()), (model.bytes(), model.bytes()));
        assert!(kept.bytes <= SETTINGS.buffer);
        assert_eq!(kept.has_open(), model.open.is_some());
        assert_eq!(kept.is_poisoned(), model.whole.iter().any(|message| message.tries >= 2));
        let expires = model.whole.first().and_then(|message| message.confirmed).map(|at| at + 1000);
        assert_eq!(kept.expire_at(), expires.map(Duration::from_millis));
    }
}

fn frame(len: usize, mark: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, Opcode::Binary, &vec![mark as u8; len], Some([1, 2, 3, 4]));
    out
}
