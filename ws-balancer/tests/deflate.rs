//! permessage-deflate is agreed between a real client and a real server, and still right after a move.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use support::{
    Cluster, Setup,
    client::key,
    range::APP,
    wait::{bounded, millis, secs},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

/// Python with the `websockets` package in an environment of its own; `None`, and why, without one.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| install().inspect_err(|why| eprintln!("skipped: {why}")).ok()).as_deref()
}

fn install() -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("websockets");
    let python = venv.join("bin/python");
    let works = || run(Command::new(&python).args(["-c", "import websockets.asyncio.server"]));
    if works().is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "websockets>=14"]))?;
        works()?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let what = format!("{command:?}");
    let output = command.output().map_err(|e| format!("{what}: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{what}: {stderr}"))
}

/// A Python program that is talked to by lines. It ends with its input, so that it cannot outlive the test.
struct Script {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(python: &Path, program: &str, args: &[String]) -> Self {
        let mut command = tokio::process::Command::new(python);
        command
            .args(["-c", program])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, input, output }
    }

    /// Its next line; `None` when it has ended.
    async fn line(&mut self) -> Option<String> {
        bounded(secs(20), "a line of the Python program", self.output.next_line()).await.unwrap()
    }

    /// Lets the client send one message: which pod answered, and whether the echo was right.
    async fn ask(&mut self) -> (String, bool) {
        self.input.write_all(b"go\n").await.unwrap();
        let line = self.line().await.expect("the client has ended");
        let (pod, judged) = line.split_once(' ').unwrap();
        (pod.to_owned(), judged == "right")
    }
}

/// Replaces the app of pod `host` by one that compresses.
async fn compress(cluster: &mut Cluster, python: &Path, host: u8) -> Script {
    cluster.pods.get_mut(&host).unwrap().app = None;
    let addr = cluster.range.addr(host, APP);
    let args = [format!("pod-{host}"), addr.ip().to_string(), addr.port().to_string()];
    // The old listener's task ends a moment after it was told to.
    for _ in 0..20 {
        let mut script = Script::start(python, include_str!("deflate/server.py"), &args);
        if let Some(line) = script.line().await {
            assert_eq!(line, "listening");
            return script;
        }
    }
    panic!("no server at {addr}");
}

async fn still_right_after_a_move(setup: Setup) {
    let Some(python) = python() else { return };
    let mut cluster = setup.start().await;
    let _one = compress(&mut cluster, python, 1).await;
    let id = cluster.mover(1, 2, &[1, 2]);
    let uri = format!("ws://{}/", cluster.addr());
    let mut client = Script::start(python, include_str!("deflate/client.py"), &[uri, key(id)]);
    let agreed = client.line().await.expect("the client has ended");
    assert!(agreed.starts_with("agreed permessage-deflate"), "{agreed}");
    assert!(agreed.contains("client_no_context_takeover"), "a move needs it: {agreed}");
    for _ in 0..20 {
        assert_eq!(client.ask().await, ("pod-1".to_owned(), true));
    }
    cluster.add(2).await;
    let _two = compress(&mut cluster, python, 2).await;
    let node = cluster.pods[&2].id.clone();
    cluster.members.join(&node);
    let end = tokio::time::Instant::now() + secs(15);
    loop {
        let (pod, right) = client.ask().await;
        assert!(right, "a wrong echo from {pod}");
        if pod == "pod-2" {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "it never moved");
        tokio::time::sleep(millis(20)).await;
    }
    for _ in 0..20 {
        assert_eq!(client.ask().await, ("pod-2".to_owned(), true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_behind_sidecars_survives_a_move() {
    still_right_after_a_move(Setup::sidecars(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_of_plain_nodes_survives_a_move() {
    still_right_after_a_move(Setup::plain(1)).await;
}
