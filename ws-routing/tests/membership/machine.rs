//! The fold and the view step by step, beside a model of what readers must see.

use std::{collections::BTreeMap, net::SocketAddr};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use ws_routing::{
    Members, Node, NodeState,
    membership::{self, Fold, Update, View, Writer},
};

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn readers_see_the_last_good_set_and_are_woken_by_news_only(sequential 1..60 => Followed);
}

/// The fold, the view, and a reader that has seen everything so far.
struct Followed {
    fold: Fold,
    writer: Writer,
    view: View,
    reader: View,
}

/// What the source has told, what readers see, and how often that was news.
#[derive(Clone, Debug, Default)]
struct Model {
    told: BTreeMap<u16, bool>,
    shown: BTreeMap<u16, bool>,
    /// Whether the last step was news to readers.
    news: bool,
    answered: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Reset(Vec<(u16, bool)>),
    Add(Vec<(u16, bool)>),
    Remove(Vec<u16>),
    Confirmed,
    Publish,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let nodes = || prop::collection::vec((1_u16..6, any::<bool>()), 0..5);
        prop_oneof![
            1 => nodes().prop_map(Step::Reset),
            2 => nodes().prop_map(Step::Add),
            2 => prop::collection::vec(1_u16..6, 0..4).prop_map(Step::Remove),
            1 => Just(Step::Confirmed),
            3 => Just(Step::Publish),
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        model.news = false;
        match step {
            Step::Reset(nodes) => model.told = nodes.iter().copied().collect(),
            Step::Add(nodes) => model.told.extend(nodes.iter().copied()),
            Step::Remove(ports) => model.told.retain(|port, _| !ports.contains(port)),
            Step::Confirmed => {}
            Step::Publish if model.told.is_empty() && !model.shown.is_empty() => {}
            Step::Publish => {
                model.news = model.told != model.shown || !model.answered;
                model.answered = true;
                model.shown = model.told.clone();
            }
        }
        model
    }
}

impl StateMachineTest for Followed {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let (writer, view) = membership::channel(7);
        Self { fold: Fold::default(), writer, reader: view.clone(), view }
    }

    fn apply(mut followed: Self, model: &Model, step: Step) -> Self {
        let update = match step {
            Step::Reset(nodes) => Update::Reset(nodes.into_iter().map(node).collect()),
            Step::Add(nodes) => Update::Add(nodes.into_iter().map(node).collect()),
            Step::Remove(ports) => {
                Update::Remove(ports.into_iter().map(|port| node((port, true)).id).collect())
            }
            Step::Confirmed => Update::Confirmed,
            Step::Publish => {
                let news = followed.writer.publish(followed.fold.members(7));
                assert_eq!(news, model.news, "the writer's word");
                let woken = followed.reader.changed();
                let seen = futures_util::FutureExt::now_or_never(woken);
                assert_eq!(seen.is_some(), news, "a reader is woken by news, and by nothing else");
                return followed;
            }
        };
        followed.fold.apply(update);
        followed
    }

    fn check_invariants(followed: &Self, model: &Model) {
        let expected =
            |nodes: &BTreeMap<u16, bool>| Members::new(nodes.iter().map(|(p, r)| node((*p, *r))), 7);
        assert_eq!(*followed.view.load(), expected(&model.shown));
        assert_eq!(*followed.writer.members(), expected(&model.shown));
        assert_eq!(followed.fold.members(7).fingerprint(), expected(&model.told).fingerprint());
        assert_eq!(followed.fold.is_empty(), model.told.is_empty());
    }
}

fn node((port, ready): (u16, bool)) -> Node {
    let state = if ready { NodeState::Ready } else { NodeState::Draining };
    Node { state, ..Node::new(SocketAddr::from(([10, 0, 0, 1], port)).into()) }
}
