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
#[derive(Clone, Copy)]
struct Load {
    callers: usize,
    block: usize,
}

const LIGHT: Load = Load { callers: 4, block: 16_000 };
const HEAVY: Load = Load { callers: 16, block: 100_000 };

/// What the client's own mailbox (`--max-message`) and all socket buffers between here and there may hold, in bytes.
const MOST: u64 = 40 << 20;

const GREETING: &str = "still there";

/// What either process may grow by, in bytes.
const GROWTH: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_to_a_client_that_never_reads_are_refused_and_cost_little_memory() {
    let cluster = Setup::sidecars(1).start().await;
    let other = Listener::connect(cluster.addr(), "other").await;
    send_from_all(&cluster, "other", LIGHT, |taken, _| taken >= 20).await;
    let mut confirmed = beside_others(&cluster, "stuck", LIGHT, 8).await;
    // What requests of that size cost where the client reads is in the figure before.
    send_from_all(&cluster, "other", HEAVY, |taken, _| taken >= 300).await;
    confirmed += beside_others(&cluster, "stuck too", HEAVY, 160).await;
    let heard = other.heard(confirmed).await;
    let heard = heard.iter().filter(|text| *text == GREETING).count();
    assert!((confirmed..=confirmed + 2).contains(&heard), "{confirmed} were confirmed, {heard} heard");
}

/// Has callers send to a client that never reads until they were refused so often, and looks what that costs. How many
/// sends to another client were confirmed meanwhile.
async fn beside_others(cluster: &Cluster, key: &'static str, load: Load, enough: u64) -> usize {
    let before = usages(cluster);
    let peak = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (stuck, _) = open(cluster.addr(), "/", &[("ws-user-id", key)]).await.unwrap();
    let key = key.replace(' ', "%20");
    let sends = send_from_all(cluster, &key, load, |_, refused| {
        for (peak, now) in peak.iter().zip(usages(cluster)) {
            peak.fetch_max(now, Ordering::Relaxed);
        }
        refused >= enough
    });
    let mut confirmed = 0;
    let others = async {
        let mut api = api(cluster, 1);
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
    assert!(accepted * load.block as u64 <= MOST, "nothing bounds it: {accepted}");
    assert!(growth.iter().all(|growth| *growth < GROWTH), "{growth:?}");
    assert!(confirmed > 0);
    drop(stuck);
    confirmed
}

fn usages(cluster: &Cluster) -> [usize; 2] {
    let sidecar: &Process = cluster.pods[&1].sidecar.as_ref().unwrap();
    [&cluster.balancer, sidecar].map(|process| process.usage().anonymous)
}

/// Sends blocks from all callers until `enough` says so of how many were taken and how many refused.
async fn send_from_all(
    cluster: &Cluster,
    key: &str,
    load: Load,
    enough: impl Fn(u64, u64) -> bool,
) -> (u64, u64) {
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let mut callers = JoinSet::new();
    for _ in 0..load.callers {
        let (mut api, counts, key) = (api(cluster, 1), counts.clone(), key.to_owned());
        callers.spawn(async move {
            let block = "x".repeat(load.block);
            loop {
                let sent = api.send(&key, &block, "").await;
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
