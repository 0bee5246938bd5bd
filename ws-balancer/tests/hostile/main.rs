//! Input that means harm, over real sockets: each is refused or closed, none hangs, none is taken for good, clients
//! beside them notice nothing, and nothing is left behind.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod frames;
#[path = "../../../ws-routing/tests/hostile_heads/table.rs"]
mod heads;
mod nonsense;
mod scene;
mod slow;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use frames::Ends;
use futures_util::{StreamExt as _, future::join_all, stream};
use nonsense::{Nonsense, Told};
use scene::Scene;
use support::{
    Raw, Setup,
    echo::Echo,
    eventually, http,
    raw::{self, CLOSE},
    wait::{bounded, secs},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How long one input may take until its connection has ended.
const PATIENCE: Duration = secs(15);

/// How many hostile clients there are at a time.
const AT_ONCE: usize = 16;

#[test]
fn at_least_140_kinds_of_input_are_tried() {
    let heads = heads::table().into_iter().filter(|(_, status)| *status != 101).map(|(head, _)| show(&head));
    let frames = frames::table().into_iter().map(|(name, ..)| name);
    let answers = nonsense::table().into_iter().map(|(name, ..)| format!("the app says {name}"));
    let manners = slow::table().into_iter().map(|(name, _)| name.to_owned());
    let mut kinds = BTreeSet::new();
    for (what, names) in [
        ("heads", heads.collect::<Vec<_>>()),
        ("frames", frames.collect()),
        ("answers of apps", answers.collect()),
        ("ways to be slow or greedy", manners.collect()),
    ] {
        println!("{what}: {}", names.len());
        kinds.extend(names);
    }
    println!("{} in all, none of them twice", kinds.len());
    assert!(kinds.len() >= 140);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_heads_are_refused() {
    // Good heads of the table name no user: their host is the key.
    let keys = ["--key", "header:ws-user-id,header:host"];
    let scene = Scene::start(Setup::sidecars(2).balancer(&keys).sidecar(&keys)).await;
    let mut table = heads::table();
    for (head, status) in &mut table {
        if head.windows(24).any(|text| text == b"AQIDBAUGBwgJCgsMDQ4PEC==") {
            // A key whose last bits are not zero: we take it, the app's library hangs up.
            *status = 502;
        }
    }
    scene
        .rounds(async || {
            for addr in scene.addrs() {
                let told = table.iter().map(|(head, expected)| async move {
                    let status = bounded(PATIENCE, show(head), status(addr, head)).await;
                    (status.unwrap_or(0) != *expected).then(|| (show(head), *expected, status))
                });
                let wrong: Vec<_> =
                    stream::iter(told).buffered(AT_ONCE).filter_map(async |w| w).collect().await;
                assert!(wrong.is_empty(), "{addr}: {wrong:#?}");
            }
        })
        .await;
    scene.end().await;
}

fn show(head: &[u8]) -> String {
    String::from_utf8_lossy(head).chars().take(200).collect()
}

/// The status of the answer. After a refusal the connection must end.
async fn status(addr: SocketAddr, head: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    drop(stream.write_all(head).await);
    let answer = http::read_answer(&mut stream).await.ok()?;
    if answer.status != 101 {
        ended(&mut stream).await;
    }
    Some(answer.status)
}

/// Waits until the other side has ended.
async fn ended(stream: &mut TcpStream) {
    let mut rest = [0; 4096];
    while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_frames_are_closed() {
    let mut scene = Scene::start(Setup::sidecars(2)).await;
    let _echo = Echo::start(scene.second_app().await).await;
    let table = frames::table();
    scene
        .rounds(async || {
            for addr in scene.addrs() {
                let closed = table.iter().map(|(name, bytes, expected)| {
                    let key = &scene.key;
                    async move {
                        let code = bounded(PATIENCE, name, code(addr, key, bytes)).await;
                        let right =
                            *expected == Ends::Somehow || code.as_ref().ok() == Some(&Some(expected.code()));
                        if right { None } else { Some((name, *expected, code)) }
                    }
                });
                let wrong: Vec<_> =
                    stream::iter(closed).buffered(AT_ONCE).filter_map(async |w| w).collect().await;
                assert!(wrong.is_empty(), "{addr}: {wrong:#?}");
            }
        })
        .await;
    scene.end().await;
}

/// The code with which a connection ends on which `bytes` are said.
async fn code(addr: SocketAddr, key: &str, bytes: &[u8]) -> io::Result<Option<u16>> {
    let raw = Raw::open(addr, key).await;
    let (mut input, mut output) = raw.stream.into_split();
    let said = async { drop(output.write_all(bytes).await) };
    let heard = async {
        let code = loop {
            let frame = raw::read_frame(&mut input).await?;
            if frame.opcode == CLOSE {
                break frame.code();
            }
        };
        Ok(code)
    };
    let ((), code) = tokio::join!(said, heard);
    drop(output);
    let mut rest = Vec::new();
    drop(input.read_to_end(&mut rest).await);
    code
}

impl Ends {
    fn code(self) -> u16 {
        match self {
            Self::Code(code) => code,
            Self::Somehow => 0,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_of_an_app_behind_a_sidecar_reaches_nobody() {
    nonsense_reaches_nobody(Setup::sidecars(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_of_a_plain_node_reaches_nobody() {
    nonsense_reaches_nobody(Setup::plain(2)).await;
}

async fn nonsense_reaches_nobody(setup: Setup) {
    let mut scene = Scene::start(setup).await;
    let _app = Nonsense::start(scene.second_app().await).await;
    let table = nonsense::table();
    scene
        .rounds(async || {
            for addr in scene.addrs() {
                let told = table.iter().enumerate().map(|(n, (name, _, expected))| {
                    let key = &scene.key;
                    async move {
                        let told = bounded(PATIENCE, name, told(addr, key, n)).await;
                        (told != *expected).then_some((name, expected, told))
                    }
                });
                let wrong: Vec<_> =
                    stream::iter(told).buffered(AT_ONCE).filter_map(async |w| w).collect().await;
                assert!(wrong.is_empty(), "{addr}: {wrong:#?}");
            }
        })
        .await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_never_answers_or_never_ends_costs_nobody_else() {
    let mut scene = Scene::start(Setup::sidecars(2).sidecar(&["--handshake-timeout", "1s"])).await;
    let app = Nonsense::start(scene.second_app().await).await;
    let leg = format!("ws-routing-key: {}\r\n", scene.key);
    let addr = scene.cluster.pod_addr(2);
    scene
        .rounds(async || {
            let silence = (0..AT_ONCE).map(|_| async {
                let raw = Raw::connect(addr, "/silence", &leg).await.unwrap();
                assert_eq!(raw.answer.status, 504, "{:?}", raw.answer);
                assert!(raw.answer.header("ws-routing-error").is_some(), "{:?}", raw.answer);
            });
            let endless = (0..AT_ONCE).map(|_| async {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.write_all(raw::handshake("/endless", &leg).as_bytes()).await.unwrap();
                // It passes as it comes, for as long as somebody reads it.
                let mut read = vec![0; 1 << 20];
                stream.read_exact(&mut read).await.unwrap();
                assert!(read.starts_with(b"HTTP/1.1 403 "));
            });
            let all = async { tokio::join!(join_all(silence), join_all(endless)) };
            bounded(PATIENCE, "all answers", all).await;
            eventually(secs(10), "the app is left", async || app.connections() == 0).await;
        })
        .await;
    // A client is not bound to the pod whose app is silent.
    let raw = Raw::connect(scene.cluster.addr(), "/silence", &format!("ws-user-id: {}\r\n", scene.key)).await;
    assert_eq!(raw.unwrap().answer.status, 101);
    scene.end().await;
}

async fn told(addr: SocketAddr, key: &str, case: usize) -> Told {
    let Ok(mut raw) = Raw::connect(addr, &format!("/{case}"), &format!("ws-user-id: {key}\r\n")).await else {
        return Told::Cut;
    };
    if raw.answer.status != 101 {
        return Told::Status(raw.answer.status);
    }
    loop {
        match raw.read().await {
            Ok(frame) if frame.opcode == CLOSE => return Told::Code(frame.code().unwrap_or(1005)),
            Ok(_) => {}
            Err(_) => return Told::Cut,
        }
    }
}
