//! Every interleaving of small cases, breadth first: the shortest way to what must not be is printed.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Write as _,
};

use super::{
    Redelivery, Settings,
    model::{Step, World},
    model_app::Budget,
    seeded::{Bug, tests::seed},
};
use crate::rendezvous;

/// What a walk through all states found.
#[derive(Debug)]
struct Walk {
    states: usize,
    ends: usize,
    /// The steps to what does not hold, and what that is.
    counterexample: Option<String>,
}

/// Goes through every state that can be reached, at most `limit` of them.
fn explore(start: &World, limit: usize) -> Walk {
    let mut seen = HashSet::from([fingerprint(start)]);
    let mut ways: Vec<(usize, Step)> = Vec::new();
    let mut queue = VecDeque::from([(usize::MAX, start.clone())]);
    let mut ends = 0;
    while let Some((way, world)) = queue.pop_front() {
        let steps = world.steps();
        if steps.is_empty() {
            ends += 1;
            if let Err(error) = world.end() {
                return Walk { states: seen.len(), ends, counterexample: Some(tell(&ways, way, &error)) };
            }
        }
        for step in steps {
            let mut after = world.clone();
            let taken = after.take(step);
            if taken.is_ok() && (seen.len() >= limit || !seen.insert(fingerprint(&after))) {
                continue;
            }
            ways.push((way, step));
            if let Err(error) = taken {
                let counterexample = Some(tell(&ways, ways.len() - 1, &error));
                return Walk { states: seen.len(), ends, counterexample };
            }
            queue.push_back((ways.len() - 1, after));
        }
    }
    Walk { states: seen.len(), ends, counterexample: None }
}

fn fingerprint(world: &World) -> u64 {
    rendezvous::hash(format!("{world:?}").as_bytes(), 0)
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

const CALM: Budget = Budget {
    messages: 3,
    owners: 0,
    crashes: 0,
    dial_failures: 0,
    pings: 0,
    client_closes: false,
    app_close: None,
};

fn kept() -> Settings {
    Settings { redelivery: Some(Redelivery::default()), ..Settings::default() }
}

/// More with `WS_EXPLORE=10`, and so on: that many times as many states.
fn limit() -> usize {
    let times = std::env::var("WS_EXPLORE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    20_000 * times
}

/// A walk along steps that `seed` chooses, to an end. The steps, and what does not hold.
fn wander(start: &World, seed: u64) -> Result<(), String> {
    let (mut world, mut taken, mut random) = (start.clone(), Vec::new(), seed);
    loop {
        let steps = world.steps();
        let told = |error: String| format!("{error}, after {taken:#?} (seed {seed})");
        if steps.is_empty() {
            return world.end().map_err(told);
        }
        random = rendezvous::hash(&random.to_le_bytes(), seed);
        let step = steps[random as usize % steps.len()];
        if let Err(error) = world.take(step) {
            return Err(format!("{error}, after {taken:#?} and {step:?} (seed {seed})"));
        }
        taken.push(step);
    }
}

fn holds(settings: &Settings, budget: Budget) {
    let walk = explore(&World::new(settings, budget), limit());
    println!("{} states, {} ends", walk.states, walk.ends);
    if let Some(counterexample) = walk.counterexample {
        panic!("{counterexample}");
    }
    // Where there are more states than that, the far ends are seen at random.
    let world = World::new(settings, budget);
    for seed in 0..limit() as u64 / 20 {
        wander(&world, seed).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn one_move_loses_repeats_and_reorders_nothing() {
    holds(&Settings::default(), Budget { messages: 2, owners: 1, ..CALM });
}

#[test]
fn two_changes_and_a_failed_dial_lose_repeat_and_reorder_nothing() {
    holds(&Settings::default(), Budget { messages: 1, owners: 2, dial_failures: 1, ..CALM });
}

#[test]
fn a_message_in_parts_is_never_torn_by_a_move() {
    holds(&Settings::default(), Budget { messages: 3, owners: 1, ..CALM });
}

#[test]
fn a_close_of_the_client_ends_in_every_phase() {
    holds(&Settings::default(), Budget { messages: 1, owners: 1, client_closes: true, ..CALM });
}

#[test]
fn a_close_of_the_app_passes_in_every_phase() {
    let budget = Budget { messages: 1, owners: 1, client_closes: true, app_close: Some(4000), ..CALM };
    holds(&Settings::default(), budget);
}

#[test]
fn a_ping_of_the_client_is_answered_once_over_a_move() {
    holds(&Settings::default(), Budget { messages: 1, owners: 1, pings: 1, ..CALM });
}

#[test]
fn a_crash_repeats_and_reorders_nothing() {
    holds(&Settings::default(), Budget { messages: 3, crashes: 1, ..CALM });
}

#[test]
fn a_crash_in_the_middle_of_a_move_repeats_and_reorders_nothing() {
    holds(&Settings::default(), Budget { messages: 2, owners: 1, crashes: 1, ..CALM });
}

#[test]
fn with_redelivery_a_crash_loses_nothing_and_announces_every_repeat() {
    holds(&kept(), Budget { messages: 3, crashes: 1, ..CALM });
}

#[test]
fn with_redelivery_a_crash_in_the_middle_of_a_move_loses_nothing() {
    holds(&kept(), Budget { messages: 2, owners: 1, crashes: 1, ..CALM });
}

#[test]
fn with_redelivery_a_close_waits_for_what_is_kept() {
    holds(&kept(), Budget { messages: 1, crashes: 1, client_closes: true, ..CALM });
}

/// Two crashes within the hold: the second redelivery may be the last.
#[test]
fn with_redelivery_two_crashes_lose_nothing() {
    holds(&kept(), Budget { messages: 1, crashes: 2, ..CALM });
}

#[test]
fn the_explorer_finds_every_seeded_bug() {
    let moving = Budget { messages: 1, owners: 1, ..CALM };
    let crashing = Budget { messages: 2, crashes: 1, ..CALM };
    let silent = Budget { messages: 0, owners: 2, dial_failures: 1, ..CALM };
    for (bug, settings, budget) in [
        (Bug::SkipAtSwitch, Settings::default(), moving),
        (Bug::SwitchEarly, Settings::default(), Budget { messages: 2, ..moving }),
        (Bug::ForgetSettle, Settings::default(), moving),
        (Bug::StaleSettle, Settings::default(), moving),
        (Bug::RestAfterLoss, Settings::default(), crashing),
        (Bug::AnnounceNothing, kept(), crashing),
        (Bug::ConfirmEarly, kept(), crashing),
        (Bug::ForgetRetry, Settings::default(), silent),
    ] {
        let seeded = seed(bug);
        let walk = explore(&World::new(&settings, budget), 10 * limit());
        drop(seeded);
        let found =
            walk.counterexample.unwrap_or_else(|| panic!("{bug:?} was not found in {} states", walk.states));
        println!("{bug:?}: {} states, {found}", walk.states);
    }
}
