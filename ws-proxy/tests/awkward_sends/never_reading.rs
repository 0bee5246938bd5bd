//! A client that takes nothing of what is sent to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    api,
    listener::Listener,
    support::{
        Cluster, Setup,
        client::open,
        process::Process,
        wait::{bounded, millis, secs},
    },
};

/// Callers at the same time, and the size of what each sends.
const CALLERS: usize = 16;
const BLOCK: usize = 100_000;

/// What the client's own mailbox (`--max-message`) and all socket buffers between here and there may hold.
const MOST: u64 = 300;

const GREETING: &str = "still there";

/// What either process may grow by.
const GROWTH: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_to_a_client_that_never_reads_are_refused_and_cost_little_memory() {
    let cluster = Setup::sidecars(1).start().await;
    let other = Listener::connect(cluster.addr(), "other").await;
    let idle = usages(&cluster);
    // What the same callers cost where the client reads is in the figure before.
    send_from_all(&cluster, "other", |taken, _| taken >= 300).await;
    let before = usages(&cluster);
    eprintln!("idle {idle:?}, busy {before:?}");
    let peak = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (stuck, _) = open(cluster.addr(), "/", &[("ws-user-id", "stuck")]).await.unwrap();
    let sends = send_from_all(&cluster, "stuck", |_, refused| {
        for (peak, now) in peak.iter().zip(usages(&cluster)) {
            peak.fetch_max(now, Ordering::Relaxed);
        }
        refused >= 10 * CALLERS as u64
    });
    let mut confirmed = 0;
    let others = async {
        let mut api = api(&cluster, 1);
        loop {
            let began = Instant::now();
            let sent = api.send("other", GREETING, "?ack=received").await;
            assert_eq!(sent.status, 200, "{sent:?}");
            assert!(began.elapsed() < secs(5), "{:?}", began.elapsed());
            confirmed += 1;
            tokio::time::sleep(millis(10)).await;
        }
    };
    let (accepted, refused) = tokio::select! {
        told = sends => told,
        () = others => unreachable!("it goes on for ever"),
    };
    let growth: Vec<usize> = peak
        .iter()
        .zip(before)
        .map(|(peak, before)| peak.load(Ordering::Relaxed).saturating_sub(before))
        .collect();
    eprintln!("{accepted} taken, {refused} refused 429; growth of balancer and sidecar in bytes: {growth:?}");
    assert!(accepted <= MOST, "nothing bounds it: {accepted}");
    assert!(growth.iter().all(|growth| *growth < GROWTH), "{growth:?}");
    assert!(confirmed > 0);
    let heard = other.heard(confirmed).await;
    let heard = heard.iter().filter(|text| *text == GREETING).count();
    assert!((confirmed..=confirmed + 1).contains(&heard), "{confirmed} were confirmed, {heard} heard");
    drop(stuck);
}

fn usages(cluster: &Cluster) -> [usize; 2] {
    let sidecar: &Process = cluster.pods[&1].sidecar.as_ref().unwrap();
    [&cluster.balancer, sidecar].map(|process| process.usage().memory)
}

/// Sends blocks from all callers until `enough` says so of how many were taken and how many refused.
async fn send_from_all(
    cluster: &Cluster,
    key: &'static str,
    enough: impl Fn(u64, u64) -> bool,
) -> (u64, u64) {
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut api, counts) = (api(cluster, 1), counts.clone());
        callers.spawn(async move {
            let block = "x".repeat(BLOCK);
            loop {
                let sent = api.send(key, &block, "").await;
                let refused = match sent.status {
                    200 => 0,
                    429 => 1,
                    _ => panic!("{sent:?}"),
                };
                if refused == 1 {
                    assert_eq!(sent.json()["type"], "slow-consumer");
                    assert!(sent.header("retry-after").is_some());
                    tokio::time::sleep(millis(50)).await;
                }
                counts[refused].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let [taken, refused] = &*counts;
    let told = || (taken.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    let all = async {
        while !enough(told().0, told().1) {
            assert!(callers.try_join_next().is_none(), "a caller has ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    bounded(secs(60), "enough sends", all).await;
    callers.abort_all();
    told()
}
