//! Who may hold a key, as far as this process has seen: the owners of the last minute.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::plan::{Asking, Reach};
use crate::{
    key::Key,
    membership::{Members, View},
    node::{Node, NodeId, NodeState},
};

/// The view and what it was within the last minute. Cloning is a reference count.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    view: View,
    began: Instant,
    past: Arc<Mutex<VecDeque<Past>>>,
}

/// Members, and the same with draining nodes counted as ready, when that differs.
#[derive(Clone, Debug)]
struct Past {
    members: Arc<Members>,
    lenient: Option<Arc<Members>>,
    /// Until when they were the view; `None`: they still are.
    until: Option<Instant>,
}

/// How long an owner may still hold what it owned.
const MEMORY: Duration = Duration::from_secs(60);

impl Views {
    pub(crate) fn new(view: View) -> Self {
        let past = VecDeque::from([Past::new(view.load())]);
        Self { view, began: Instant::now(), past: Arc::new(Mutex::new(past)) }
    }

    /// Remembers each view that comes. Runs until the view's writer is gone.
    pub(crate) async fn follow(&self) {
        let mut view = self.view.clone();
        self.note(view.load());
        while let Some(members) = view.changed().await {
            self.note(members);
        }
    }

    /// Who is to be asked for a key, on behalf of node `here`.
    pub(crate) fn asking(&self, key: &Key, reach: Reach, here: &NodeId) -> Asking {
        let members = self.view.load();
        self.note(Arc::clone(&members));
        let mut first = self.owners(key);
        if let Some(owner) = members.owner(key)
            && !first.contains(&owner.id)
        {
            first.push(owner.id.clone());
        }
        if !first.contains(here) {
            // It costs nothing to look here too.
            first.insert(0, here.clone());
        }
        // A process without a past knows of no earlier owners.
        let depth = if self.began.elapsed() < MEMORY { 8 } else { 3 };
        let fallback = members.walk(key, depth).skip(1).map(|node| node.id.clone());
        let asking = Asking::new(members.fingerprint(), reach, first, fallback.collect::<Vec<_>>());
        if members.is_empty() { asking.without_members() } else { asking }
    }

    /// The owners by the views of the last minute, oldest first.
    fn owners(&self, key: &Key) -> Vec<NodeId> {
        let mut owners: Vec<NodeId> = Vec::new();
        for past in self.lock().iter() {
            for members in [Some(&past.members), past.lenient.as_ref()].into_iter().flatten() {
                if let Some(owner) = members.owner(key)
                    && !owners.contains(&owner.id)
                {
                    owners.push(owner.id.clone());
                }
            }
        }
        owners
    }

    fn note(&self, members: Arc<Members>) {
        let now = Instant::now();
        let mut past = self.lock();
        while past.len() > 1 && past.front().is_some_and(|p| p.until.is_some_and(|u| u + MEMORY < now)) {
            past.pop_front();
        }
        if let Some(last) = past.back_mut()
            && last.members.fingerprint() != members.fingerprint()
        {
            last.until = Some(now);
            past.push_back(Past::new(members));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Past>> {
        // Nothing is left half done in there by a panic.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn new(members: Arc<Members>) -> Self {
        let draining = members.nodes().iter().any(|node| node.state == NodeState::Draining);
        let lenient = draining.then(|| {
            let ready = members.nodes().iter().map(|node| Node { state: NodeState::Ready, ..node.clone() });
            Arc::new(Members::new(ready, members.ring_seed()))
        });
        Self { members, lenient, until: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        membership,
        session::deliver::{
            plan::{Reply, Step, Verdict},
            reply::Heard,
        },
    };

    #[tokio::test(start_paused = true)]
    async fn owners_of_the_last_minute_are_asked_oldest_first() {
        let node = |n: u8| Node::new(format!("10.0.0.{n}:1").parse().unwrap());
        let (mut writer, view) = membership::channel(0);
        writer.publish(Members::new([node(1)], 0));
        let views = Views::new(view);
        let key = Key::new("k").unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for n in 2..5 {
            writer.publish(Members::new([node(n)], 0));
            views.asking(&key, Reach::All, &node(n).id);
            tokio::time::advance(Duration::from_secs(25)).await;
        }
        let mut asking = views.asking(&key, Reach::All, &node(9).id);
        let mut order = Vec::new();
        while let Step::Ask(asked) = asking.next() {
            order.push(asked);
            if order.len() == 10 {
                break;
            }
        }
        let expected: Vec<NodeId> = [9, 2, 3, 4].map(|n| node(n).id).into();
        assert_eq!(order, expected, "the first was left more than a minute ago");
    }

    #[test]
    fn while_no_member_is_known_nobody_is_said_to_be_nowhere_and_who_is_here_is_served() {
        let views = Views::new(View::fixed(Members::new([], 0)));
        let (key, here) = (Key::new("k").unwrap(), "10.0.0.1:1".parse::<NodeId>().unwrap());
        let served = vec!["c".into()];
        for (served, expected) in [
            (vec![], Verdict::Moving),
            (served, Verdict::Delivered { node: here.clone(), delivered: 1, slow: 0 }),
        ] {
            let mut asking = views.asking(&key, Reach::All, &here);
            assert_eq!(asking.next(), Step::Ask(here.clone()));
            let view = views.view.load().fingerprint();
            asking.answered(here.clone(), Reply::Heard(Heard { served, ..Heard::nothing(view) }));
            assert_eq!(asking.next(), Step::Done(expected));
        }
    }
}
