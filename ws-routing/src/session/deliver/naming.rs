//! Who holds connections of a key that another node owns: a holder tells the owner, and the owner tells who asks it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{here::Here, peers::Peers};
use crate::{key::Key, node::NodeId};

/// The holders that this node was told of. Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders {
    told: Arc<Mutex<Told>>,
}

/// Who says to hold a key, and when that was said last.
type Told = HashMap<Key, Vec<(NodeId, Instant)>>;

/// How long it is believed that a node holds a key.
const LAPSE: Duration = Duration::from_secs(30);

/// How often a holder repeats itself.
const REPEAT: Duration = Duration::from_secs(10);

/// How many keys one request names.
const BATCH: usize = 1000;

/// How many keys are known of all other nodes, at most.
const MOST: usize = 1_000_000;

impl Holders {
    /// A node says that it holds these keys.
    pub(crate) fn note(&self, node: &NodeId, keys: impl IntoIterator<Item = Key>) {
        let (mut told, now) = (self.lock(), Instant::now());
        if told.len() > MOST {
            told.retain(|_, holders| holders.iter().any(|(_, at)| now < *at + LAPSE));
        }
        for key in keys {
            if told.len() > MOST && !told.contains_key(&key) {
                continue;
            }
            let holders = told.entry(key).or_default();
            holders.retain(|(holder, at)| holder != node && now < *at + LAPSE);
            holders.push((node.clone(), now));
        }
    }

    /// The nodes that hold a key besides this one, and when they said so last.
    pub(crate) fn of(&self, key: &Key) -> Vec<(NodeId, Instant)> {
        let (told, now) = (self.lock(), Instant::now());
        let holders = told.get(key).into_iter().flatten();
        holders.filter(|(_, at)| now < *at + LAPSE).cloned().collect()
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.lock().retain(|_, holders| holders.iter().any(|(_, at)| now < *at + LAPSE));
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Nothing is left half done in there by a panic.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells owners what is held here of theirs: at once what is new, and all of it again and again. Never ends by itself.
pub(crate) async fn tell(here: &Here, peers: &Peers) {
    const GATHER: Duration = Duration::from_millis(20);
    const AGAIN: Duration = Duration::from_secs(1);
    let mut view = here.view.clone();
    let mut known: HashSet<(NodeId, Key)> = HashSet::new();
    let mut all_at = Instant::now() + REPEAT;
    let mut failed = false;
    loop {
        let until = if failed { all_at.min(Instant::now() + AGAIN) } else { all_at };
        tokio::select! {
            biased;
            () = here.seats.arrival() => sleep(GATHER).await,
            changed = view.changed() => if changed.is_none() { std::future::pending::<()>().await },
            () = tokio::time::sleep_until(until) => {}
        }
        if Instant::now() >= all_at {
            all_at = Instant::now() + REPEAT;
            known.clear();
            here.holders.sweep();
        }
        failed = false;
        let held = misplaced(here);
        known.retain(|(owner, key)| held.get(owner).is_some_and(|keys| keys.contains(key)));
        for (owner, keys) in held {
            let news: Vec<Key> =
                keys.into_iter().filter(|key| !known.contains(&(owner.clone(), key.clone()))).collect();
            for batch in news.chunks(BATCH) {
                match tell_one(here, peers, &owner, batch).await {
                    true => known.extend(batch.iter().map(|key| (owner.clone(), key.clone()))),
                    false => failed = true,
                }
            }
        }
    }
}

/// The keys held here that other nodes own by our view.
fn misplaced(here: &Here) -> BTreeMap<NodeId, HashSet<Key>> {
    let members = here.view.load();
    let mut misplaced: BTreeMap<NodeId, HashSet<Key>> = BTreeMap::new();
    for key in here.seats.keys() {
        if let Some(owner) = members.owner(&key).filter(|owner| owner.id != here.node) {
            misplaced.entry(owner.id.clone()).or_default().insert(key);
        }
    }
    misplaced
}

async fn tell_one(here: &Here, peers: &Peers, owner: &NodeId, keys: &[Key]) -> bool {
    let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
    let body = json!({"node": here.node.as_str(), "keys": keys}).to_string();
    peers.tell_holders(owner, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_holder_is_forgotten_unless_it_repeats_itself() {
        let (holders, key) = (Holders::default(), Key::new("k").unwrap());
        let [first, second]: [NodeId; 2] = ["10.0.0.1:1", "10.0.0.2:1"].map(|node| node.parse().unwrap());
        holders.note(&first, [key.clone()]);
        tokio::time::advance(Duration::from_secs(20)).await;
        holders.note(&second, [key.clone()]);
        let known = || holders.of(&key).into_iter().map(|(node, _)| node).collect::<Vec<_>>();
        assert_eq!(known(), [first, second.clone()]);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(known(), [second]);
        tokio::time::advance(Duration::from_secs(20)).await;
        holders.sweep();
        assert!(holders.lock().is_empty());
    }
}
