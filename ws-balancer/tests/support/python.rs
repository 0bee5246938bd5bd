//! Python programs beside a test: other people's WebSocket libraries.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{
    process,
    wait::{bounded, secs},
};

/// Python with the `websockets` package in an environment of its own; `None`, and why, without one.
pub fn with_websockets() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| install().inspect_err(|why| eprintln!("skipped: {why}")).ok()).as_deref()
}

fn install() -> Result<PathBuf, String> {
    let venv = process::scratch().join("websockets");
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

/// A program that is talked to by lines. It ends with its input, so that it cannot outlive the test.
pub struct Script {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// A Python program.
    pub fn start(python: &Path, program: &str, args: &[String]) -> Self {
        let mut command = tokio::process::Command::new(python);
        command.args(["-c", program]).args(args);
        Self::run(command)
    }

    pub fn run(mut command: tokio::process::Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, input, output }
    }

    /// Its next line; `None` when it has ended.
    pub async fn line(&mut self) -> Option<String> {
        bounded(secs(20), "a line of the program", self.output.next_line()).await.unwrap()
    }

    /// Says a line to it.
    pub async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}
