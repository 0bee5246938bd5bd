//! Readers of the view, quiet and under a storm of updates: `cargo bench -p benches --bench membership`.
//!
//! | group | measured |
//! | --- | --- |
//! | `view` | `load` alone, and `load` with a pick, by one reader: `quiet`, or under a `storm`, where another thread publishes members of 100 nodes as fast as it can |

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros write undocumented functions

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use ws_routing::{
    Key, Members, Node,
    membership::{self, View, Writer},
};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = view
}
criterion_main!(benches);

fn view(c: &mut Criterion) {
    let (mut writer, view) = membership::channel(0);
    writer.publish(members(100));
    read(c, "quiet", &view);

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| storm(&mut writer, &over));
        read(c, "storm", &view);
        over.store(true, Ordering::Relaxed);
    });
}

fn read(c: &mut Criterion, weather: &str, view: &View) {
    let key = Key::new("user-42").unwrap();
    let mut group = c.benchmark_group("view");
    group.bench_function(format!("load/{weather}"), |b| b.iter(|| black_box(view.load()).is_empty()));
    group.bench_function(format!("owner/{weather}"), |b| {
        b.iter(|| view.load().owner(black_box(&key)).is_some());
    });
}

fn storm(writer: &mut Writer, over: &AtomicBool) {
    let sets = [members(100), members(101)];
    for set in sets.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
        writer.publish(set.clone());
    }
}

fn members(n: u8) -> Members {
    Members::new((0..n).map(|at| Node::new(format!("10.0.0.{at}:7400").parse().unwrap())), 0)
}
