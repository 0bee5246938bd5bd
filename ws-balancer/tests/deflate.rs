//! permessage-deflate is agreed between a real client and a real server, and still right after a move.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use support::{
    Cluster, Setup,
    client::key,
    range::APP,
    wait::{millis, secs},
};

/// Python with the `websockets` package in an environment of its own; `None`, and why, without one.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| install().inspect_err(|why| println!("skipped: {why}")).ok()).as_deref()
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

/// A Python program that is talked to by lines.
struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(python: &Path, program: &str, args: &[String]) -> Self {
        let mut command = Command::new(python);
        command.args(["-c", program]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the program has ended");
        line.trim_end().to_owned()
    }

    /// Lets the client send one message: which pod answered, and whether the echo was right.
    fn ask(&mut self, n: u32) -> (String, bool) {
        writeln!(self.input, "{n}").unwrap();
        let line = self.line();
        let mut words = line.split(' ');
        (words.next().unwrap().to_owned(), words.next() == Some("right"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Replaces the app of pod `host` by one that compresses.
fn compress(cluster: &mut Cluster, python: &Path, host: u8) -> Script {
    cluster.pods.get_mut(&host).unwrap().app = None;
    let addr = cluster.range.addr(host, APP);
    let args = [format!("pod-{host}"), addr.ip().to_string(), addr.port().to_string()];
    // The old listener's task ends a moment after it was told to.
    for _ in 0..100 {
        let mut script = Script::start(python, include_str!("deflate/server.py"), &args);
        let mut line = String::new();
        if script.output.read_line(&mut line).unwrap() > 0 {
            assert_eq!(line.trim_end(), "listening");
            return script;
        }
    }
    panic!("no server at {addr}");
}

async fn still_right_after_a_move(setup: Setup) {
    let Some(python) = python() else { return };
    let mut cluster = setup.start().await;
    let _one = compress(&mut cluster, python, 1);
    let id = cluster.mover(1, 2, &[1, 2]);
    let uri = format!("ws://{}/", cluster.addr());
    let mut client = Script::start(python, include_str!("deflate/client.py"), &[uri, key(id)]);
    let agreed = client.line();
    assert!(agreed.starts_with("agreed permessage-deflate"), "{agreed}");
    assert!(agreed.contains("client_no_context_takeover"), "a move needs it: {agreed}");
    for n in 0..20 {
        assert_eq!(client.ask(n), ("pod-1".to_owned(), true));
    }
    cluster.add(2).await;
    let _two = compress(&mut cluster, python, 2);
    let node = cluster.pods[&2].id.clone();
    cluster.members.join(&node);
    let end = tokio::time::Instant::now() + secs(15);
    loop {
        let (pod, right) = client.ask(0);
        assert!(right, "a wrong echo from {pod}");
        if pod == "pod-2" {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "it never moved");
        tokio::time::sleep(millis(20)).await;
    }
    for n in 0..20 {
        assert_eq!(client.ask(n), ("pod-2".to_owned(), true));
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
