//! Every interleaving of small cases, breadth first: the shortest way to what must not be is printed.

mod app;
mod budget;
mod client;
mod judge;
mod rebase;
mod world;

use std::{
    collections::{HashSet, VecDeque},
    fmt::Write as _,
};

use super::{Redelivery, Settings};
use crate::{rendezvous, seeded::Bug};
use budget::Budget;
use world::{Step, World};

/// What a walk through all states found.
#[derive(Debug, Default)]
struct Walk {
    states: usize,
    ends: usize,
    /// There are more states than were looked at.
    cut: bool,
    /// The steps to what does not hold, and what that is.
    counterexample: Option<String>,
}

/// Goes through every state that can be reached, at most `limit` of them.
fn explore(start: &World, limit: usize) -> Walk {
    let mut seen = HashSet::from([fingerprint(start)]);
    let mut ways: Vec<(usize, Step)> = Vec::new();
    let mut queue = VecDeque::from([(usize::MAX, start.clone())]);
    let mut walk = Walk::default();
    while let Some((way, world)) = queue.pop_front() {
        let steps = world.steps();
        if world.rests(&steps) {
            walk.ends += 1;
            if let Err(error) = world.end() {
                return Walk { states: seen.len(), counterexample: Some(tell(&ways, way, &error)), ..walk };
            }
        }
        for step in steps {
            let mut after = world.clone();
            let taken = after.take(step);
            if taken.is_ok() && seen.contains(&fingerprint(&after)) {
                continue;
            }
            ways.push((way, step));
            if let Err(error) = taken {
                let counterexample = Some(tell(&ways, ways.len() - 1, &error));
                return Walk { states: seen.len(), counterexample, ..walk };
            }
            if seen.len() < limit {
                seen.insert(fingerprint(&after));
                queue.push_back((ways.len() - 1, after));
            } else {
                walk.cut = true;
            }
        }
    }
    Walk { states: seen.len(), ..walk }
}

fn fingerprint(world: &World) -> u64 {
    rendezvous::hash(world.told().as_bytes(), 0)
}

fn tell(ways: &[(usize, Step)], mut way: usize, error: &str) -> String {
    let mut steps = Vec::new();
    while let Some((before, step)) = ways.get(way) {
        steps.push(step);
        way = *before;
    }
    let mut text = format!("{error}, after {} steps:\n", steps.len());
    for step in steps.iter().rev() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {step:?}");
    }
    text
}

fn kept() -> Settings {
    Settings { redelivery: Some(Redelivery::default()), ..Settings::default() }
}

/// No case has as many states: where one has, the test says that it was cut off, and fails.
const LIMIT: usize = 1_000_000;

const NONE: Budget = Budget::none();

fn holds(settings: &Settings, budget: Budget) {
    let walk = explore(&World::new(settings, budget), LIMIT);
    let whole = if walk.cut { "CUT OFF" } else { "all" };
    println!("{whole}: {} states, {} ends", walk.states, walk.ends);
    if let Some(counterexample) = walk.counterexample {
        panic!("{counterexample}");
    }
    assert!(!walk.cut, "not all of them are known to be fine");
}

#[test]
fn one_change_loses_repeats_and_reorders_nothing() {
    holds(&Settings::default(), Budget { messages: 3, owners: 1, late: 1, ..NONE });
    holds(&Settings::default(), Budget { messages: 2, owners: 1, late: 2, pongs_lost: 1, stalls: 1, ..NONE });
    holds(&Settings::default(), Budget { messages: 2, owners: 1, late: 1, sidecars: true, ..NONE });
}

#[test]
fn two_changes_and_a_failed_dial_lose_repeat_and_reorder_nothing() {
    holds(&Settings::default(), Budget { messages: 3, owners: 2, late: 1, ..NONE });
    holds(&Settings::default(), Budget { messages: 3, owners: 2, dial_failures: 1, ..NONE });
}

#[test]
fn a_crash_at_any_time_of_a_move_repeats_and_reorders_nothing() {
    holds(&Settings::default(), Budget { messages: 3, owners: 1, crashes: 1, ..NONE });
    holds(&Settings::default(), Budget { messages: 2, crashes: 3, ..NONE });
}

#[test]
fn two_changes_and_a_crash_repeat_and_reorder_nothing() {
    holds(&Settings::default(), Budget { messages: 2, owners: 2, crashes: 1, ..NONE });
}

#[test]
fn with_redelivery_a_crash_loses_nothing_and_announces_every_repeat() {
    holds(&kept(), Budget { messages: 3, crashes: 1, late: 1, pongs_lost: 1, ..NONE });
    holds(&kept(), Budget { messages: 2, crashes: 1, late: 2, pongs_lost: 1, stalls: 1, ..NONE });
    holds(&kept(), Budget { messages: 1, crashes: 2, ..NONE });
    holds(&kept(), Budget { messages: 2, crashes: 1, sidecars: true, ..NONE });
}

#[test]
fn with_redelivery_a_crash_at_any_time_of_a_move_loses_nothing() {
    holds(&kept(), Budget { messages: 2, owners: 1, crashes: 1, late: 1, ..NONE });
}

#[test]
fn with_redelivery_two_changes_and_a_crash_lose_nothing() {
    holds(&kept(), Budget { messages: 1, owners: 2, crashes: 1, ..NONE });
}

/// The largest: one client, three nodes, three messages, two changes, a crash.
#[test]
#[ignore = "takes minutes: cargo test -p ws-routing --features full --lib explore -- --ignored"]
fn three_messages_two_changes_and_a_crash() {
    let budget = Budget { messages: 3, owners: 2, crashes: 1, ..NONE };
    holds(&Settings::default(), budget);
    holds(&kept(), budget);
}

#[test]
fn a_pod_that_is_given_up_while_it_lives_is_heard_no_more() {
    holds(&Settings::default(), Budget { messages: 2, owners: 1, zombies: 1, sidecars: true, ..NONE });
    holds(&kept(), Budget { messages: 2, owners: 1, zombies: 1, ..NONE });
    holds(&kept(), Budget { messages: 3, zombies: 1, sidecars: true, ..NONE });
}

#[test]
fn closes_that_cross_end_the_connection_in_every_phase() {
    let closes = Budget { messages: 1, owners: 1, client_closes: true, app_close: Some(4000), ..NONE };
    holds(&Settings::default(), Budget { stalls: 1, late: 1, ..closes });
    holds(&Settings::default(), Budget { owners: 2, ..closes });
    holds(&Settings::default(), Budget { crashes: 1, ..closes });
}

#[test]
fn with_redelivery_a_close_waits_for_what_is_kept() {
    holds(&kept(), Budget { messages: 2, crashes: 1, client_closes: true, ..NONE });
    holds(&kept(), Budget { messages: 1, crashes: 1, client_closes: true, app_close: Some(4000), ..NONE });
}

#[test]
fn a_ping_of_the_client_is_answered_once_over_a_move_or_a_crash() {
    holds(&Settings::default(), Budget { messages: 2, owners: 1, pings: 1, late: 1, ..NONE });
    holds(&Settings::default(), Budget { messages: 1, owners: 1, pings: 1, crashes: 1, ..NONE });
}

#[test]
fn silence_is_asked_about_and_only_who_does_not_answer_is_given_up() {
    let budget = Budget { messages: 1, owners: 1, keepalive: true, late: 1, ..NONE };
    holds(&Settings::default(), budget);
    holds(&Settings::default(), Budget { sidecars: true, pongs_lost: 1, ..budget });
    holds(&kept(), Budget { sidecars: true, ..budget });
}

/// How the relay's world shows that mistake, while it is made; `None` for mistakes of others.
pub(crate) fn counterexample(bug: Bug) -> Option<String> {
    let moving = Budget { messages: 1, owners: 1, late: 1, ..NONE };
    let crashing = Budget { messages: 2, crashes: 1, ..NONE };
    let (settings, budget) = match bug {
        Bug::SkipAtSwitch | Bug::ForgetSettle => (Settings::default(), moving),
        Bug::SwitchEarly => (Settings::default(), Budget { messages: 2, ..moving }),
        Bug::StaleSettle => (Settings::default(), Budget { late: 4, stalls: 1, ..moving }),
        Bug::RestAfterLoss => (Settings::default(), crashing),
        Bug::AnnounceNothing | Bug::LeakBuffer => (kept(), crashing),
        Bug::ConfirmEarly => (kept(), Budget { late: 3, stalls: 1, ..crashing }),
        Bug::ForgetRetry => (Settings::default(), Budget { owners: 2, dial_failures: 1, ..NONE }),
        Bug::NoFence => (Settings::default(), Budget { messages: 1, zombies: 1, sidecars: true, ..NONE }),
        Bug::AnswerWithoutConnection | Bug::AcknowledgeEarly => return None,
    };
    explore(&World::new(&settings, budget), LIMIT).counterexample
}
