//! What holds for every course of events, of which proptest draws some.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use proptest::prelude::*;
use tokio::{sync::mpsc, time::sleep};
use ws_routing::{
    Members, Node, NodeState,
    membership::{self, Fold, FollowOptions, NextUpdate, Source, SourceError, Update, View},
    node::Weight,
};

proptest! {
    #[test]
    fn only_the_set_in_which_updates_end_counts(updates in prop::collection::vec(update(), 0..40), seed: u64) {
        let (mut fold, mut model) = (Fold::default(), HashMap::new());
        for update in updates {
            fold.apply(update.clone());
            fold.apply(update.clone());
            take(&mut model, update);
        }
        // A HashMap's order differs from run to run: members must not.
        let expected = Members::new(model.into_values(), seed);
        prop_assert_eq!(fold.members(seed).fingerprint(), expected.fingerprint());
        prop_assert_eq!(fold.members(seed), expected);
    }

    #[test]
    fn views_are_whole_never_empty_again_and_settle(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(steps))?;
    }

    #[test]
    fn flapping_publishes_no_faster_than_nodes_leave(flaps in 1_usize..50, gap in prop_oneof![0_u64..90, 110_u64..300]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let steps = (0..flaps).flat_map(|_| {
            [Step::Say(Update::Add(vec![node(2)])), Step::Wait(gap), Step::Say(Update::Remove(vec![node(2).id])), Step::Wait(gap)]
        });
        let seen = runtime.block_on(async move {
            let (say, view) = start();
            let watcher = tokio::spawn(watch(view.clone()));
            say.send(Ok(Update::Reset(vec![node(1)]))).unwrap();
            perform(&say, steps).await;
            drop((say, view));
            watcher.await.unwrap()
        });
        // A node that is gone before the window ends was never there.
        let expected = if gap < 100 { 1 } else { 1 + 2 * flaps };
        prop_assert_eq!(seen.len(), expected, "{:?}", seen);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Say(Update),
    Fail,
    /// Milliseconds.
    Wait(u64),
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (say, view) = start();
    let watcher = tokio::spawn(watch(view.clone()));
    let mut model = HashMap::new();
    for step in &steps {
        if let Step::Say(update) = step {
            take(&mut model, update.clone());
        }
    }
    perform(&say, steps).await;
    sleep(Duration::from_millis(101)).await;
    if !model.is_empty() {
        prop_assert_eq!(
            &*view.load(),
            &Members::new(model.into_values(), 0),
            "it settles within the debounce"
        );
    }
    let settled = view.load();
    sleep(Duration::from_secs(60)).await;
    prop_assert_eq!(&view.load(), &settled, "nothing happens by itself");
    drop((say, view));
    let seen = watcher.await.unwrap();
    let mut full = seen.iter().skip_while(|members| members.is_empty());
    prop_assert!(full.all(|members| !members.is_empty()), "empty again: {:?}", seen);
    prop_assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "published what was no news: {:?}", seen);
    Ok(())
}

/// Says and waits, and lets the follower hear it and the watcher see it: of two snapshots in one moment it would see the
/// last one only, which may be what it saw before.
async fn perform(say: &mpsc::UnboundedSender<Answer>, steps: impl IntoIterator<Item = Step>) {
    for step in steps {
        match step {
            Step::Say(update) => say.send(Ok(update)).unwrap(),
            Step::Fail => say.send(Err(SourceError::new("no route to host"))).unwrap(),
            Step::Wait(0) => {}
            Step::Wait(millis) => sleep(Duration::from_millis(millis)).await,
        }
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

fn start() -> (mpsc::UnboundedSender<Answer>, View) {
    let (say, script) = mpsc::unbounded_channel();
    let (writer, view) = membership::channel(0);
    tokio::spawn(membership::follow(Scripted(script), writer, FollowOptions::default()));
    (say, view)
}

/// Every snapshot until nothing has happened for longer than any step waits.
async fn watch(mut view: View) -> Vec<Arc<Members>> {
    let mut seen = Vec::new();
    while let Ok(Some(members)) = tokio::time::timeout(Duration::from_secs(100), view.changed()).await {
        seen.push(members);
    }
    seen
}

type Answer = Result<Update, SourceError>;

#[derive(Debug)]
struct Scripted(mpsc::UnboundedReceiver<Answer>);

impl Source for Scripted {
    fn next(&mut self) -> NextUpdate<'_> {
        Box::pin(self.0.recv())
    }
}

/// The fold once more, as simple as can be.
fn take(model: &mut HashMap<String, Node>, update: Update) {
    match update {
        Update::Reset(nodes) => {
            model.clear();
            take(model, Update::Add(nodes));
        }
        Update::Add(nodes) => model.extend(nodes.into_iter().map(|n| (n.id.to_string(), n))),
        Update::Remove(ids) => ids.iter().for_each(|id| drop(model.remove(id.as_str()))),
        _ => {}
    }
}

fn node(port: u16) -> Node {
    Node::new(SocketAddr::from(([10, 0, 0, 1], port)).into())
}

fn any_node() -> impl Strategy<Value = Node> {
    (1_u16..8, prop_oneof![Just(100), 1_u16..=1000], any::<bool>(), prop::option::of("[ab]")).prop_map(
        |(port, weight, ready, zone)| Node {
            weight: Weight::new(weight).unwrap(),
            state: if ready { NodeState::Ready } else { NodeState::Draining },
            zone: zone.map(Into::into),
            ..node(port)
        },
    )
}

fn update() -> impl Strategy<Value = Update> {
    let nodes = || prop::collection::vec(any_node(), 0..6);
    prop_oneof![
        nodes().prop_map(Update::Reset),
        nodes().prop_map(Update::Add),
        nodes().prop_map(|nodes| Update::Remove(nodes.into_iter().map(|n| n.id).collect())),
        Just(Update::Confirmed),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => update().prop_map(Step::Say),
        1 => Just(Step::Fail),
        2 => (0_u64..150).prop_map(Step::Wait),
    ]
}
