//! Drives a source: its updates become what the view shows.

use std::{fmt::Display, future, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Fold, Members, Source, Update, Writer};
use crate::node::{Node, NodeState};

/// How changes are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FollowOptions {
    /// How long a change may wait for others, so that a rollout is a few snapshots and not hundreds. Default 100 ms.
    ///
    /// A node that leaves or begins to drain is not waited for: its connections are in need of another one.
    pub debounce: Duration,
}

impl FollowOptions {
    /// Sets [`debounce`](Self::debounce).
    #[must_use]
    pub const fn debounce(mut self, debounce: Duration) -> Self {
        self.debounce = debounce;
        self
    }
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(100) }
    }
}

/// Keeps the view behind `writer` at what `source` says, until nobody reads it any more.
///
/// An error of the source is logged, once for the same text, and leaves the members as they are; so does the end of
/// the source.
///
/// # Cancel safety
///
/// Dropping the future ends the following; readers keep the last members.
pub async fn follow(mut source: impl Source, writer: Writer, options: FollowOptions) {
    let mut follower = Follower::new(writer, options);
    loop {
        // One future until it answers: a source need not be cancel safe.
        let mut next = source.next();
        let answer = loop {
            tokio::select! {
                biased;
                () = follower.writer.closed() => return,
                () = at(follower.due) => follower.publish(),
                answer = &mut next => break answer,
            }
        };
        match answer {
            Some(Ok(update)) => follower.apply(update),
            Some(Err(error)) => follower.complain(&error),
            None => break,
        }
    }
    if follower.answered {
        follower.publish();
        follower.writer.confirm_for_ever();
        follower.writer.closed().await;
    }
}

struct Follower {
    writer: Writer,
    options: FollowOptions,
    fold: Fold,
    answered: bool,
    /// When the changes that wait are published.
    due: Option<Instant>,
    /// What was last logged about the source, as long as that is so.
    complaint: Option<String>,
}

impl Follower {
    fn new(writer: Writer, options: FollowOptions) -> Self {
        Self { writer, options, fold: Fold::default(), answered: false, due: None, complaint: None }
    }

    fn apply(&mut self, update: Update) {
        self.fold.apply(update);
        if self.fold.is_empty() && !self.writer.members().is_empty() {
            self.due = None;
            return self.complain(&"it names no node at all");
        }
        if self.complaint.take().is_some() {
            tracing::info!("the membership source answers again");
        }
        let first = self.writer.members().is_empty();
        match Urgency::of(self.writer.members(), &self.fold) {
            Urgency::Unchanged if self.answered => self.confirm(),
            Urgency::Later if !first => self.publish_later(),
            Urgency::Unchanged | Urgency::Later | Urgency::Now => self.publish(),
        }
    }

    fn confirm(&mut self) {
        self.due = None;
        self.writer.confirm();
    }

    fn publish(&mut self) {
        self.due = None;
        self.answered = true;
        self.writer.publish(self.fold.members(self.writer.members().ring_seed()));
    }

    /// The window begins with the first change that waits: a source that never rests delays nothing for ever.
    fn publish_later(&mut self) {
        let due = Instant::now() + self.options.debounce;
        self.due.get_or_insert(due);
    }

    fn complain(&mut self, problem: &dyn Display) {
        let problem = problem.to_string();
        if self.complaint.as_ref() == Some(&problem) {
            tracing::debug!(problem, "the membership source still has no answer");
            return;
        }
        tracing::warn!(problem, "the membership source has no answer: the last members stay");
        self.complaint = Some(problem);
    }
}

/// How long a change may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// There is none.
    Unchanged,
    /// Nodes joined, or changed in weight or zone: they can do with their share of the keys a moment later.
    Later,
    /// A node left or drains: its connections need another one.
    Now,
}

impl Urgency {
    fn of(shown: &Members, told: &Fold) -> Self {
        let leaves = |node: &Node| {
            told.get(&node.id).is_none_or(|n| n.state == NodeState::Draining && n.state != node.state)
        };
        if shown.nodes().iter().any(leaves) {
            Self::Now
        } else if told.nodes().eq(shown.nodes()) {
            Self::Unchanged
        } else {
            Self::Later
        }
    }
}

/// Waits for that time, or for ever.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{sync::mpsc, task::JoinHandle};

    use super::*;
    use crate::{
        membership::{self, Fixed, NextUpdate, SourceError, View},
        node::NodeId,
    };

    type Answer = Result<Update, SourceError>;

    #[derive(Debug)]
    struct Scripted(mpsc::UnboundedReceiver<Answer>);

    impl Source for Scripted {
        fn next(&mut self) -> NextUpdate<'_> {
            Box::pin(self.0.recv())
        }
    }

    fn start() -> (mpsc::UnboundedSender<Answer>, View, JoinHandle<()>) {
        let (say, script) = mpsc::unbounded_channel();
        let (writer, view) = membership::channel(0);
        (say, view, tokio::spawn(follow(Scripted(script), writer, FollowOptions::default())))
    }

    fn node(port: u16) -> Node {
        Node::new(id(port))
    }

    fn id(port: u16) -> NodeId {
        SocketAddr::from(([10, 0, 0, 1], port)).into()
    }

    fn ports(members: &Members) -> Vec<u16> {
        members.nodes().iter().filter_map(|n| n.id.addr()).map(|addr| addr.port()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_and_leaves_are_shown_at_once_and_joins_together() {
        let (say, mut view, _task) = start();
        let begin = Instant::now();
        say.send(Ok(Update::Reset(vec![node(1), node(2)]))).unwrap();
        assert_eq!(ports(&view.changed().await.unwrap()), [1, 2]);
        say.send(Ok(Update::Remove(vec![id(1)]))).unwrap();
        assert_eq!(ports(&view.changed().await.unwrap()), [2]);
        assert_eq!(begin.elapsed(), Duration::ZERO);

        say.send(Ok(Update::Add(vec![node(3)]))).unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        say.send(Ok(Update::Add(vec![node(4)]))).unwrap();
        assert_eq!(ports(&view.changed().await.unwrap()), [2, 3, 4]);
        assert_eq!(begin.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_begins_to_drain_is_not_waited_for() {
        let (say, mut view, _task) = start();
        let begin = Instant::now();
        say.send(Ok(Update::Reset(vec![node(1), node(2)]))).unwrap();
        view.changed().await.unwrap();
        say.send(Ok(Update::Add(vec![Node { state: NodeState::Draining, ..node(1) }]))).unwrap();
        let members = view.changed().await.unwrap();
        assert_eq!(members.get(&id(1)).unwrap().state, NodeState::Draining);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_nothing_wakes_nobody() {
        let (say, mut view, _task) = start();
        say.send(Ok(Update::Reset(vec![node(1)]))).unwrap();
        view.changed().await.unwrap();
        for update in [
            Update::Reset(vec![node(1), node(1)]),
            Update::Add(vec![node(1)]),
            Update::Remove(vec![id(9)]),
            Update::Confirmed,
            // Came and went within the window.
            Update::Add(vec![node(2)]),
            Update::Remove(vec![id(2)]),
        ] {
            say.send(Ok(update)).unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_secs(10), view.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_empty_answers_leave_the_last_good_set_and_let_it_age() {
        let (say, mut view, _task) = start();
        say.send(Ok(Update::Reset(vec![node(1)]))).unwrap();
        view.changed().await.unwrap();
        say.send(Err(SourceError::new("no route to host"))).unwrap();
        say.send(Ok(Update::Reset(vec![]))).unwrap();
        say.send(Ok(Update::Confirmed)).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(10), view.changed()).await.is_err());
        assert_eq!(ports(&view.load()), [1]);
        assert_eq!(view.age(), Duration::from_secs(10));

        say.send(Ok(Update::Add(vec![node(2)]))).unwrap();
        assert_eq!(ports(&view.changed().await.unwrap()), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_before_its_first_answer_is_no_answer() {
        let (say, view, _task) = start();
        say.send(Err(SourceError::new("no route to host"))).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), view.first()).await.is_err());
        drop(say);
        view.first().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn members_outlive_their_source_and_the_follower_ends_with_its_readers() {
        let (writer, mut view) = membership::channel(0);
        let task = tokio::spawn(follow(Fixed::new([node(1)]), writer, FollowOptions::default()));
        assert_eq!(ports(&view.changed().await.unwrap()), [1]);
        assert!(tokio::time::timeout(Duration::from_secs(60), view.changed()).await.is_err());
        assert_eq!(view.age(), Duration::ZERO);
        drop(view);
        task.await.unwrap();
    }
}
