//! The Autobahn test suite through balancer and sidecar: quiet, while the owner of its key changes, and compressed.
//!
//! Skipped, with a word, where the suite cannot run: it needs CPython 2.7. `AUTOBAHN=full` has all cases of compression,
//! which take minutes, instead of some.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod suite;
#[path = "../support/mod.rs"]
mod support;

use std::{net::SocketAddr, time::Duration};

use suite::{Report, Suite};
use support::{
    Cluster, Setup,
    echo::Echo,
    eventually,
    python::{self, Script},
    range::APP,
    wait::secs,
};
use tokio::net::TcpStream;

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, sizes, and fragments that the suite chooses. The
/// halves run side by side: one is idle while its cases wait.
const GROUPS: [&[&str]; 2] = [&["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], &["9.*"]];

/// How many cases these groups have.
const CASES: usize = 301;

/// Compression: sizes of messages and fragments, windows, and contexts that are not kept.
const COMPRESSED: [&[&str]; 2] = [&["12.*"], &["13.*"]];

/// A small and a large message of each kind.
const SOME_COMPRESSED: [&[&str]; 2] =
    [&["12.1.1", "12.1.9", "12.2.12", "12.5.18"], &["13.1.1", "13.2.9", "13.3.12", "13.4.5", "13.7.18"]];

/// What the groups may take together.
const PATIENCE: Duration = secs(3000);

async fn run(suite: &Suite, name: &str, addr: SocketAddr, groups: [&[&str]; 2]) -> Report {
    let url = url(addr);
    let [first, second] = groups;
    let names = [1, 2].map(|half| format!("{name}-{half}"));
    let (first, second) = tokio::join!(
        suite.run(&names[0], &url, first, PATIENCE),
        suite.run(&names[1], &url, second, PATIENCE),
    );
    let report = first.and(second);
    eprintln!("{name}\n{report}");
    report
}

fn url(addr: SocketAddr) -> String {
    format!("ws://{addr}/?ws-user-id=autobahn")
}

/// Takes the app of pod `host` away, so that another can have its address.
async fn without_app(cluster: &mut Cluster, host: u8) -> SocketAddr {
    cluster.pods.get_mut(&host).unwrap().app = None;
    let addr = cluster.range.addr(host, APP);
    eventually(secs(5), "the app's end", async || TcpStream::connect(addr).await.is_err()).await;
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_passes_quiet_and_while_moving() {
    let Some(suite) = Suite::find() else { return };
    let mut cluster = Setup::sidecars(2).start().await;
    let mut apps = Vec::new();
    for host in [1, 2] {
        apps.push(Echo::start(without_app(&mut cluster, host).await).await);
    }
    let addr = cluster.addr();
    let quiet = run(&suite, "quiet", addr, GROUPS).await;
    let moving = tokio::select! {
        report = run(&suite, "moving", addr, GROUPS) => report,
        () = change_owners(&mut cluster) => unreachable!("it goes on for ever"),
    };
    let app = url(cluster.range.addr(1, APP));
    let alone = suite.run("alone", &app, &quiet.not_strict(), PATIENCE).await;
    for (what, report) in [("quiet", quiet), ("moving", moving)] {
        let deviations = report.deviations(&alone);
        assert!(deviations.is_empty(), "{what}: {deviations:#?}");
        assert_eq!(report.cases(), CASES, "{what}");
    }
}

/// Has one pod after the other drain, so that the key's owner changes every two seconds.
async fn change_owners(cluster: &mut Cluster) {
    let nodes = [1, 2].map(|host| cluster.pods[&host].id.clone());
    for (ready, draining) in [(0, 1), (1, 0)].into_iter().cycle() {
        cluster.members.edit(|members| {
            members.insert(nodes[ready].clone(), "");
            members.insert(nodes[draining].clone(), " state=draining");
        });
        // The rhythm is the fault itself.
        tokio::time::sleep(secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_passes() {
    let (Some(suite), Some(python)) = (Suite::find(), python::with_websockets()) else { return };
    let mut cluster = Setup::sidecars(1).start().await;
    let addr = without_app(&mut cluster, 1).await;
    let args = [addr.ip().to_string(), addr.port().to_string()];
    let mut app = Script::start(python, include_str!("echo.py"), &args);
    assert_eq!(app.line().await.as_deref(), Some("listening"));
    let all = std::env::var_os("AUTOBAHN").is_some_and(|word| word == "full");
    let report =
        run(&suite, "compressed", cluster.addr(), if all { COMPRESSED } else { SOME_COMPRESSED }).await;
    let alone = suite.run("compressed-alone", &url(addr), &report.not_strict(), PATIENCE).await;
    let deviations = report.deviations(&alone);
    assert!(deviations.is_empty(), "{deviations:#?}");
}
