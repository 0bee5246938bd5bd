//! What one message costs in the relay: `cargo bench -p benches --bench relay`.
//!
//! | group | measured |
//! | --- | --- |
//! | `relay` | a round trip over streams in memory, by one thread: to the echo server itself (`direct`), by a task that only copies (`copy`), and by the proxy (`proxy`). What `proxy` takes more than `copy` is the relay's own: frames found, counted and watched |
//!
//! Without a kernel between them; `compare` has the round trips of real sockets.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros write undocumented functions

use std::time::Duration;

use benches::{
    load::Client,
    memory::{InMemory, connect_by_copy, connect_directly},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::{io::DuplexStream, runtime::Runtime};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = relay
}
criterion_main!(benches);

fn relay(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let proxy = runtime.block_on(async { InMemory::start(1, 1).unwrap() });
    for size in [64, 1024, 16 * 1024] {
        let direct = runtime.block_on(connect_directly(size)).unwrap();
        let copy = runtime.block_on(connect_by_copy(size)).unwrap();
        let proxied = runtime.block_on(proxy.connect("user-42", size)).unwrap();
        for (name, client) in [("direct", direct), ("copy", copy), ("proxy", proxied)] {
            round_trips(c, &runtime, name, size, client);
        }
    }
}

fn round_trips(
    c: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    size: usize,
    mut client: Client<DuplexStream>,
) {
    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Bytes(2 * size as u64));
    group.bench_function(BenchmarkId::new(name, size), |b| {
        b.iter(|| runtime.block_on(client.echo()).unwrap());
    });
    group.finish();
}
