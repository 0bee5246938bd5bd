//! What runs on Node.js: the packages, the server of a pod, and an editor.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// The files beside this one; with them `npm ci` installs exactly what the lock file names.
const FILES: [(&str, &str); 4] = [
    ("package.json", include_str!("package.json")),
    ("package-lock.json", include_str!("package-lock.json")),
    ("editor.mjs", include_str!("editor.mjs")),
    ("leash.mjs", include_str!("leash.mjs")),
];
const INSTALL: Duration = Duration::from_secs(180);
const ANSWER: Duration = Duration::from_secs(20);

/// The folder with the packages, which are installed there unless they are.
///
/// # Errors
///
/// When there is no node or npm here, or no registry can be reached.
pub(crate) async fn install() -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    fs::create_dir_all(&folder)?;
    let installed = folder.join("installed");
    let (_, lock) = FILES[1];
    for (name, text) in FILES {
        fs::write(folder.join(name), text)?;
    }
    if fs::read_to_string(&installed).is_ok_and(|done| done == lock) {
        return Ok(folder);
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]);
    npm.args(["--fetch-retries=0", "--fetch-timeout=30000"]).current_dir(&folder).kill_on_drop(true);
    let npm =
        timeout(INSTALL, npm.output()).await.context("npm ci takes too long")?.context("no npm here")?;
    if !npm.status.success() {
        bail!("npm ci failed: {}", String::from_utf8_lossy(&npm.stderr).trim());
    }
    fs::write(installed, lock)?;
    Ok(folder)
}

/// Below cargo's target folder, where this program was built.
fn folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program is in no target folder")?;
    Ok(target.join("tmp/document"))
}

/// Starts the server as it is published, and waits until it ends.
pub(crate) async fn server(ip: IpAddr, port: u16) -> anyhow::Result<()> {
    let mut server = Command::new("node")
        .args(["--import", "./leash.mjs", "node_modules/y-websocket/bin/server.cjs"])
        .current_dir(folder()?)
        .env("HOST", ip.to_string())
        .env("PORT", port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("no node here")?;
    // Held as long as this process lives: the server ends with it, however it ends.
    let _leash = server.stdin.take();
    let status = server.wait().await?;
    bail!("the server has ended: {status}")
}

/// An editor, in a process of its own.
pub(crate) struct Editor {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// How an editor is doing.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Lines that it has written.
    pub(crate) typed: usize,
    /// Lines that the document has, as it sees it.
    pub(crate) lines: usize,
    /// How many of them differ from each other.
    pub(crate) different: usize,
    /// A hash of the whole document.
    pub(crate) hash: String,
    /// Whether it has been told the document.
    pub(crate) synced: bool,
    /// Sockets that it has opened.
    pub(crate) sockets: usize,
    /// How often its socket was closed.
    pub(crate) closes: usize,
}

impl Editor {
    /// Opens `document` at the server `url`; asks for what it misses every `resync`, or never.
    pub(crate) fn open(
        folder: &Path,
        url: &str,
        document: &str,
        name: &str,
        resync: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let resync = resync.map_or("-1".to_owned(), |every| every.as_millis().to_string());
        let mut process = Command::new("node")
            .args(["editor.mjs", url, document, name, &resync])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().context("its stdin is piped")?;
        let output = process.stdout.take().context("its stdout is piped")?;
        Ok(Self { input, output: BufReader::new(output).lines(), _process: process })
    }

    /// Begins to write a line every 10 ms, anywhere in the document.
    pub(crate) async fn write(&mut self) -> anyhow::Result<()> {
        self.order("type").await
    }

    /// Stops writing.
    pub(crate) async fn rest(&mut self) -> anyhow::Result<()> {
        self.order("rest").await
    }

    pub(crate) async fn state(&mut self) -> anyhow::Result<Seen> {
        self.order("state").await?;
        let line = timeout(ANSWER, self.output.next_line()).await.context("an editor does not answer")??;
        Ok(serde_json::from_str(&line.context("an editor has ended")?)?)
    }

    async fn order(&mut self, order: &str) -> anyhow::Result<()> {
        Ok(self.input.write_all(format!("{order}\n").as_bytes()).await?)
    }
}
