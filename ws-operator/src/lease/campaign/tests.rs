use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// A store that can be made to fail, to hang, and to write without a word about it.
#[derive(Clone, Default)]
struct Memory {
    shared: Arc<Mutex<Shared>>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Shared {
    lease: Option<Stored>,
    versions: u64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Faults {
    fails: bool,
    hangs: bool,
    /// Writes are done, and their answer is lost.
    mute: bool,
    delay: Duration,
}

impl Memory {
    /// The same store, seen through faults of its own.
    fn seen(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), faults: Arc::default() }
    }

    fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    async fn suffer(&self) -> anyhow::Result<Faults> {
        let faults = *self.faults.lock().unwrap();
        sleep(faults.delay).await;
        if faults.hangs {
            std::future::pending::<()>().await;
        }
        anyhow::ensure!(!faults.fails, "no connection");
        Ok(faults)
    }
}

impl Store for Memory {
    async fn read(&self) -> anyhow::Result<Option<Stored>> {
        self.suffer().await?;
        Ok(self.shared.lock().unwrap().lease.clone())
    }

    async fn write(&self, lease: Stored) -> anyhow::Result<Option<String>> {
        let faults = self.suffer().await?;
        let version = {
            let mut shared = self.shared.lock().unwrap();
            if shared.lease.as_ref().and_then(|lease| lease.version.clone()) != lease.version {
                return Ok(None);
            }
            shared.versions += 1;
            let version = shared.versions.to_string();
            shared.lease = Some(Stored { version: Some(version.clone()), ..lease });
            version
        };
        anyhow::ensure!(!faults.mute, "the answer was lost");
        Ok(Some(version))
    }
}

struct Replica {
    store: Memory,
    leading: Leading,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

fn replica(name: &str, store: &Memory) -> Replica {
    let (sender, leading) = Leading::channel();
    let (store, stop) = (store.seen(), CancellationToken::new());
    let run = campaign(store.clone(), name.into(), sender, Metrics::new(), stop.clone());
    Replica { store, leading, stop, task: AbortOnDropHandle::new(tokio::spawn(run)) }
}

/// Waits for a replica to lead; says how long that took.
async fn won(replica: &mut Replica) -> Duration {
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(60), replica.leading.won()).await.expect("it leads");
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_one_follows_within_20_s() {
    let store = Memory::default();
    let mut one = replica("one", &store);
    won(&mut one).await;
    let mut two = replica("two", &store);
    sleep(Duration::from_secs(300)).await;
    assert!(one.leading.is() && !two.leading.is());
    assert_eq!(store.shared.lock().unwrap().lease.as_ref().unwrap().transitions, 0);
    drop(one);
    let waited = won(&mut two).await;
    assert!(waited <= LEASE + POLL, "{waited:?}");
    assert_eq!(store.shared.lock().unwrap().lease.as_ref().unwrap().transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn who_ends_gives_it_back() {
    let store = Memory::default();
    let mut one = replica("one", &store);
    won(&mut one).await;
    let mut two = replica("two", &store);
    one.stop.cancel();
    one.task.await.unwrap();
    assert!(!one.leading.is());
    let waited = won(&mut two).await;
    assert!(waited <= POLL * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_writing_before_another_begins() {
    for faults in [
        Faults { fails: true, ..Faults::default() },
        Faults { hangs: true, ..Faults::default() },
        Faults { delay: Duration::from_secs(60), ..Faults::default() },
    ] {
        let store = Memory::default();
        let (mut one, mut two);
        one = replica("one", &store);
        won(&mut one).await;
        two = replica("two", &store);
        sleep(Duration::from_secs(30)).await;
        one.store.set(faults);
        let cut = Instant::now();
        one.leading.lost().await;
        assert!(cut.elapsed() <= WRITE, "{faults:?}: {:?}", cut.elapsed());
        assert!(!two.leading.is());
        won(&mut two).await;
        assert!(cut.elapsed() <= Duration::from_secs(20), "{faults:?}: {:?}", cut.elapsed());
        one.store.set(Faults::default());
        sleep(Duration::from_secs(60)).await;
        assert!(!one.leading.is() && two.leading.is(), "it is let go by nobody who has it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_voted_on_again() {
    let store = Memory::default();
    let mut one = replica("one", &store);
    won(&mut one).await;
    store.shared.lock().unwrap().lease = None;
    one.leading.lost().await;
    won(&mut one).await;
}

fn faults() -> impl Strategy<Value = Faults> {
    (any::<[bool; 3]>(), 0..12_u64).prop_map(|([fails, hangs, mute], seconds)| Faults {
        fails,
        hangs: hangs && !fails,
        mute,
        delay: Duration::from_millis(seconds * 700),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn never_two_lead(script in proptest::collection::vec((0..3_usize, faults(), 0..9000_u64), 1..30)) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = Memory::default();
            let mut replicas: Vec<Replica> =
                ["one", "two", "three"].map(|name| replica(name, &store)).into_iter().collect();
            for (who, faults, pause) in script {
                replicas[who].store.set(faults);
                let end = Instant::now() + Duration::from_millis(pause);
                while Instant::now() < end {
                    sleep(Duration::from_millis(50)).await;
                    let leaders = replicas.iter().filter(|replica| replica.leading.is()).count();
                    assert!(leaders <= 1, "{leaders} lead");
                }
            }
            for replica in &replicas {
                replica.store.set(Faults::default());
            }
            let end = Instant::now() + Duration::from_secs(60);
            while !replicas.iter_mut().any(|replica| replica.leading.is()) {
                assert!(Instant::now() < end, "nobody leads");
                sleep(Duration::from_millis(100)).await;
            }
        });
    }
}
