//! The whole of it in one process on a network in memory and a paused clock: a balancer, pods with sidecars and apps,
//! clients and callers of the API, and a schedule of changes and faults that comes from a seed. The checker of the other
//! tests compares what all of them have seen.
//!
//! `WS_SEEDS=5000 cargo test -p ws-balancer --test simulation` tries that many seeds instead of the usual ones; a seed
//! that fails is printed, and `WS_SEED=17 cargo test -p ws-balancer --test simulation -- --nocapture` runs it again and
//! tells all that was said, and what was done.
#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations)]

mod callers;
mod chance;
mod judge;
mod network;
mod pod;
mod schedule;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use chance::Chance;
use network::Host;
use schedule::Kind;
use support::{
    app::{Answers, Manners},
    client::finish,
    wait::{millis, secs},
};
use tokio::{
    runtime::Builder,
    sync::watch,
    time::{Instant, sleep},
};
use world::World;
use ws_routing::{
    NodeState,
    proxy::{Redelivery, Settings},
};

/// How many seeds are tried if nobody says otherwise.
const SEEDS: u64 = 200;

#[test]
fn no_schedule_breaks_the_contract() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("WS_SEED") {
        let run = run(seed, true);
        println!("{}", run.story);
        assert!(run.wrong.is_empty(), "seed {seed}: {}", run.wrong.join(", "));
        return;
    }
    let seeds = number("WS_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < seeds
        {
            let run = catch_unwind(AssertUnwindSafe(|| run(seed, false)));
            let wrong = run.map_or_else(|_| vec!["it panicked".to_owned()], |run| run.wrong);
            if !wrong.is_empty() {
                eprintln!("WS_SEED={seed}: {}", wrong.join(", "));
                failed.lock().unwrap().push(seed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
}

#[test]
fn a_seed_is_the_same_world_again() {
    for seed in 0..4 {
        assert_eq!(run(seed, false).trace, run(seed, false).trace, "seed {seed}");
    }
}

/// What became of a seed.
struct Run {
    /// What the contract does not permit.
    wrong: Vec<String>,
    /// All that was said and done, if that is asked for.
    story: String,
    trace: u64,
}

fn run(seed: u64, tell: bool) -> Run {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed, tell))
}

const CLIENTS: u32 = 5;
const CALLERS: u32 = 2;

/// Those of the clients that come without the balancer. They go with the pod that they came to.
const OWN: Range<u32> = 3..CLIENTS;

async fn simulate(seed: u64, tell: bool) -> Run {
    let mut chance = Chance::new(seed);
    let kind = [Kind::Graceful, Kind::Crashes, Kind::Wild][seed as usize % 3];
    let redelivery = chance.one_in(2);
    let settings = Settings { redelivery: redelivery.then(Redelivery::default), ..Settings::default() };
    let world = World::new(chance.fork(), settings, manners(&mut chance));
    for host in 1..=2 + chance.below(3) as u8 {
        world.start_pod(Host(host));
        world.change(Host(host), Some(NodeState::Ready), Duration::ZERO);
    }
    sleep(secs(1)).await;
    let mut clients = Vec::new();
    for id in 0..CLIENTS {
        // The pods that there are at first.
        let pod = OWN.contains(&id).then(|| Host(1 + chance.below(2) as u8));
        clients.push(world.client(id, pod).await.drive(chance.millis(20..600)));
    }
    let (stop, _) = watch::channel(false);
    let callers: Vec<_> =
        (0..CALLERS).map(|id| callers::start(id, CLIENTS, chance.fork(), &world, &stop)).collect();
    let excuses = schedule::run(&world, kind, Instant::now() + secs(15)).await;
    let mut wrong = settle(&world).await;
    stop.send_replace(true);
    for caller in callers {
        caller.await.unwrap();
    }
    finish(clients).await;
    let (broken, report) = judge::judge(&world.logs, kind, redelivery, &excuses);
    wrong.extend(broken);
    world.end();
    let trace = world.net.trace();
    let story = || {
        let (told, diary) = (judge::timeline(&world.logs), world.diary());
        format!("{told}{kind:?}, redelivery {redelivery}\n{diary}\n{report}\ntrace {trace:016x}")
    };
    Run { wrong, story: if tell { story() } else { String::new() }, trace }
}

fn manners(chance: &mut Chance) -> Manners {
    let answers = match chance.below(3) {
        0 => Answers::AtOnce,
        1 => Answers::Busy(chance.millis(1..15)),
        _ => Answers::After(chance.millis(1..30)),
    };
    Manners {
        answers,
        greets: chance.one_in(2),
        ticks: chance.one_in(2).then(|| millis(700)),
        ..Manners::default()
    }
}

/// When all is whole again everybody is where it belongs before long.
async fn settle(world: &World) -> Vec<String> {
    const LONGEST: Duration = secs(130);
    let whole = Instant::now();
    while !world.astray().is_empty() {
        if whole.elapsed() > LONGEST {
            return vec![format!("astray for {LONGEST:?}: {:?}", world.astray())];
        }
        sleep(secs(1)).await;
    }
    Vec::new()
}
