//! Real processes: found, built when missing, started, watched and ended.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use super::{http, wait};

/// How long a process may take from its start to ready, on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A started binary. Dropping it kills it, and prints what it wrote when the test has failed.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<String>>,
    pub admin: Option<SocketAddr>,
}

impl Process {
    /// Starts `ws-balancer` with these flags.
    pub fn balancer(flags: &[String]) -> Self {
        Self::spawn(&balancer_binary(), flags)
    }

    /// Starts `ws-proxy` with these flags.
    pub fn proxy(flags: &[String]) -> Self {
        Self::spawn(proxy_binary(), flags)
    }

    fn spawn(binary: &Path, flags: &[String]) -> Self {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        let mut child = command
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
        let output = Arc::default();
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        let admin = flags.iter().position(|f| f == "--admin").and_then(|i| flags.get(i + 1)?.parse().ok());
        let name = binary.file_name().unwrap().to_string_lossy().into_owned();
        Self { name, child, output, admin }
    }

    /// Waits for `/readyz`. Panics when the process ends instead.
    pub async fn ready(&mut self) {
        self.answers("/readyz").await;
    }

    /// Waits until `path` of its admin port is answered 200. Panics when the process ends instead.
    pub async fn answers(&mut self, path: &str) {
        let admin = self.admin.expect("a process without --admin cannot be waited for");
        let (child, output, name) = (&mut self.child, &self.output, &self.name);
        wait::eventually(START, format!("{name}: {path} at {admin}"), async || {
            if let Some(status) = child.try_wait().unwrap() {
                let wrote = read(output);
                panic!("{name} ended with {status} instead of getting ready:\n{wrote}");
            }
            http::get(admin, path).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// Sends a signal by name: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success(), "kill -s {name}");
    }

    /// What it holds of the machine now.
    pub fn usage(&self) -> Usage {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let bytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        Usage {
            descriptors: fs::read_dir(proc.join("fd")).unwrap().count(),
            memory: bytes("VmRSS:"),
            anonymous: bytes("RssAnon:"),
            cpu: cpu(&fs::read_to_string(proc.join("stat")).unwrap()),
        }
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let (child, mut status) = (&mut self.child, None);
        wait::eventually(within, format!("{}: exit", self.name), async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// What the process has written so far, both streams.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// An answer of its admin port.
    pub async fn admin(&self, path: &str) -> http::Answer {
        http::get(self.admin.unwrap(), path).await.unwrap()
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Resident memory, in bytes.
    pub memory: usize,
    /// The part of it that is no file's: without the program itself, of which more is read the more of it runs.
    pub anonymous: usize,
    /// Processor time so far, in its own code and in the kernel; in steps of 10 ms.
    pub cpu: Duration,
}

/// Of a line of `/proc/PID/stat`.
fn cpu(stat: &str) -> Duration {
    // The program's name may have blanks, and ends with the last bracket.
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).map(|n| n.parse().unwrap()).collect();
    Duration::from_millis(10 * ticks.iter().sum::<u64>())
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- {} {:?} wrote:\n{}", self.name, self.admin, self.output());
        }
    }
}

/// Whether a variable would configure a process of ours behind the test's back. A seeded bug is asked for.
fn is_ours(name: &str) -> bool {
    name == "POD_IP" || name.starts_with("WS_") && name != "WS_SEEDED_BUG"
}

/// A thread that panicked while it held the text is no reason not to show it.
fn read(output: &Mutex<String>) -> String {
    output.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn collect(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = output.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

fn balancer_binary() -> PathBuf {
    option_env!("CARGO_BIN_EXE_ws-balancer").map_or_else(|| built("ws-balancer"), PathBuf::from)
}

fn proxy_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        option_env!("CARGO_BIN_EXE_ws-proxy").map_or_else(|| built("ws-proxy"), PathBuf::from)
    })
}

/// Where tests may put files. Not a test, but with the same support: the machine's folder for them.
pub fn scratch() -> PathBuf {
    option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// The other crate's binary beside this test's own, built when it is missing or older than its sources.
fn built(package: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let binary = profile.join(package);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = ["ws-routing/src", package].map(|dir| newest(&workspace.join(dir)));
    let time = fs::metadata(&binary).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    if sources.iter().any(|changed| *changed > time) {
        build(package, profile, workspace);
    }
    binary
}

fn build(package: &str, profile: &Path, workspace: &Path) {
    let name = match profile.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .current_dir(workspace)
        .args(["build", "--quiet", "-p", package, "--bin", package, "--profile", name, "--target-dir"])
        .arg(profile.parent().unwrap())
        .status()
        .unwrap();
    assert!(status.success(), "cargo build -p {package}");
}

fn newest(dir: &Path) -> SystemTime {
    let entries = fs::read_dir(dir).unwrap().map_while(Result::ok);
    let times = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => newest(&entry.path()),
        false => entry.metadata().unwrap().modified().unwrap(),
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
