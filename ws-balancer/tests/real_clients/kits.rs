//! Other people's servers and clients: how they are installed and started.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;

use crate::support::{
    process,
    python::{self, Script},
};

const INSTALL: Duration = Duration::from_secs(180);

/// A library, by what it is written for and the programs beside this file.
#[derive(Clone, Copy, Debug)]
pub enum Kit {
    /// npm's `ws`.
    Ws,
    /// Python's `websockets`.
    Websockets,
    /// `socket.io`, by WebSocket only.
    SocketIo,
}

/// How a client is doing.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// How often it has been connected.
    pub opens: usize,
    /// How often it was closed, and has noticed.
    pub closes: usize,
    /// Answers to its messages, in order.
    pub answered: usize,
    /// Answers out of order.
    pub wrong: usize,
    /// Who answered, in the order of their first answers.
    pub pods: Vec<String>,
}

impl Kit {
    /// Whether it can be started here; if not, says so.
    pub fn is_here(self) -> bool {
        match self {
            Self::Websockets => python::with_websockets().is_some(),
            Self::Ws | Self::SocketIo => packages().is_some(),
        }
    }

    /// A server of that name, listening.
    pub async fn server(self, name: &str, addr: SocketAddr) -> Script {
        let args = [name.to_owned(), addr.ip().to_string(), addr.port().to_string()];
        let mut server = match self {
            Self::Ws => node("ws_server.mjs", &args),
            Self::SocketIo => node("socketio_server.mjs", &args),
            Self::Websockets => {
                let python = python::with_websockets().unwrap();
                Script::start(python, include_str!("websockets_server.py"), &args)
            }
        };
        assert_eq!(server.line().await.as_deref(), Some("listening"));
        server
    }

    /// A client of that key, which talks all the time.
    pub fn client(self, addr: SocketAddr, key: &str) -> Script {
        let args = |scheme| [format!("{scheme}://{addr}/"), key.to_owned()];
        match self {
            Self::Ws => node("ws_client.mjs", &args("ws")),
            Self::SocketIo => node("socketio_client.mjs", &args("http")),
            Self::Websockets => {
                let python = python::with_websockets().unwrap();
                Script::start(python, include_str!("websockets_client.py"), &args("ws"))
            }
        }
    }
}

/// Asks a client how it is doing.
pub async fn seen(client: &mut Script) -> Seen {
    client.say("state").await;
    serde_json::from_str(&client.line().await.expect("the client has ended")).unwrap()
}

fn node(program: &str, args: &[String]) -> Script {
    let mut command = tokio::process::Command::new("node");
    command.arg(program).args(args).current_dir(packages().unwrap());
    Script::run(command)
}

/// The files beside this one; with them `npm ci` installs exactly what the lock file names.
const FILES: [(&str, &str); 6] = [
    ("package.json", include_str!("package.json")),
    ("package-lock.json", include_str!("package-lock.json")),
    ("ws_server.mjs", include_str!("ws_server.mjs")),
    ("ws_client.mjs", include_str!("ws_client.mjs")),
    ("socketio_server.mjs", include_str!("socketio_server.mjs")),
    ("socketio_client.mjs", include_str!("socketio_client.mjs")),
];

/// A folder with the packages and the programs; `None`, and why, without node, npm or a registry.
fn packages() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| install().inspect_err(|why| eprintln!("skipped: {why}")).ok()).as_deref()
}

fn install() -> Result<PathBuf, String> {
    let folder = process::scratch().join("real-clients");
    let (installed, (_, lock)) = (folder.join("installed"), FILES[1]);
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in FILES {
        fs::write(folder.join(name), text).unwrap();
    }
    if !fs::read_to_string(&installed).is_ok_and(|done| done == lock) {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
        npm.args(["--fetch-retries=0", "--fetch-timeout=30000"]).current_dir(&folder);
        bounded(npm.stdin(Stdio::null()))?;
        fs::write(installed, lock).unwrap();
    }
    bounded(Command::new("node").arg("--version").stdout(Stdio::null()))?;
    Ok(folder)
}

fn bounded(command: &mut Command) -> Result<(), String> {
    let what = format!("{command:?}");
    let mut child = command.spawn().map_err(|error| format!("{what}: {error}"))?;
    let end = Instant::now() + INSTALL;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success().then_some(()).ok_or(format!("{what}: {status}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(child.kill());
    drop(child.wait());
    Err(format!("{what} took longer than {INSTALL:?}"))
}
