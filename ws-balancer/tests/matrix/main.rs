//! The fault matrix: real processes under load from clients and from callers of the API, one fault after another, and
//! a checker that compares what all sides have seen.
//!
//! Some cases run by default. `MATRIX=long cargo test -p ws-balancer --test matrix -- --nocapture` runs all of them
//! and prints the table; any other word runs the cases whose name contains it. With a balancer that makes a mistake the
//! run has to find something: `WS_SEEDED_BUG=SkipAtSwitch MATRIX='pod added' cargo test -p ws-balancer --test matrix
//! --features ws-routing/seeded-bugs`.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod cases;
mod faults;
mod report;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use cases::{CASES, Case, Redelivery};
use report::Row;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_breaks_the_contract() {
    let word = std::env::var("MATRIX").ok();
    let mut rows = Vec::new();
    for (case, redelivery) in chosen(word.as_deref()) {
        eprintln!("{}, redelivery {}", case.name, if redelivery { "on" } else { "off" });
        let row = scene::run(case, redelivery).await;
        eprintln!("{row}");
        rows.push(row);
    }
    println!("\n{}", report::table(&rows));
    let broken: Vec<String> = rows.iter().filter(|row| !row.broken.is_empty()).map(Row::complaint).collect();
    match std::env::var("WS_SEEDED_BUG") {
        Err(_) => assert!(broken.is_empty(), "{}", broken.join("\n")),
        Ok(bug) => assert!(!broken.is_empty(), "{bug} was not found"),
    }
}

/// The cases to run, each with redelivery off or on.
fn chosen(word: Option<&str>) -> impl Iterator<Item = (&'static Case, bool)> {
    let all = CASES.iter().flat_map(|case| {
        let ways: &[bool] = match case.redelivery {
            Redelivery::Off => &[false],
            Redelivery::Both => &[false, true],
        };
        ways.iter().map(move |on| (case, *on))
    });
    all.filter(move |(case, on)| match word {
        None => case.short == Some(*on),
        Some("long") => true,
        Some(word) => case.name.contains(word),
    })
}
