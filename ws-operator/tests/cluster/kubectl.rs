//! The cluster, by kubectl: what its users have.

use std::{
    env, fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

/// What the cluster is made of, if it is of this machine.
const SCRIPT: &str = "cluster";

/// How the cluster is reached.
#[derive(Debug)]
pub enum Cluster {
    /// The folder with a cluster for this machine, which is started and stopped here.
    Own(PathBuf),
    /// One that is there.
    Given(PathBuf),
}

pub static WORKSPACE: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned());

impl Cluster {
    /// The cluster that the environment names; `None`, and why, when there is none.
    pub fn find() -> Result<Self, String> {
        if let Some(kubeconfig) = env::var_os("WS_KUBECONFIG") {
            return Ok(Self::Given(kubeconfig.into()));
        }
        let folder =
            env::var_os("WS_CLUSTER").map_or_else(|| WORKSPACE.join("../shared/cluster"), PathBuf::from);
        match fs::exists(folder.join(SCRIPT)) {
            Ok(true) => Ok(Self::Own(folder)),
            Ok(false) | Err(_) => Err(format!(
                "there is no cluster at {} ($WS_CLUSTER), and WS_KUBECONFIG names none",
                folder.display()
            )),
        }
    }

    /// A command of this machine's cluster.
    pub fn script(&self, args: &[&str]) -> String {
        let Self::Own(folder) = self else { panic!("a cluster that is given is not ours to {args:?}") };
        finished(Command::new(folder.join(SCRIPT)).args(args), "").unwrap_or_else(|why| panic!("{why}"))
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, "").unwrap_or_else(|why| panic!("{why}"))
    }

    pub fn try_kubectl(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let mut command = match self {
            Self::Own(folder) => {
                let mut command = Command::new(folder.join(SCRIPT));
                command.arg("kubectl");
                command
            }
            Self::Given(kubeconfig) => {
                let mut command = Command::new("kubectl");
                command.env("KUBECONFIG", kubeconfig);
                command
            }
        };
        finished(command.args(args), stdin)
    }

    /// What `kubectl get` shows.
    pub fn get(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// The items of a list.
    pub fn list(&self, args: &[&str]) -> Vec<Value> {
        self.get(args)["items"].as_array().unwrap().clone()
    }

    /// What the API server answers on that path.
    pub fn raw(&self, path: &str) -> Result<Value, String> {
        let text = self.try_kubectl(&["get", "--raw", path], "")?;
        serde_json::from_str(&text).map_err(|why| format!("{why}: {text}"))
    }

    pub fn apply(&self, objects: &[Value]) {
        let text: String = objects.iter().map(|object| format!("{object}\n---\n")).collect();
        self.try_kubectl(&["apply", "-f", "-"], &text).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Waits until each of those has that condition.
    pub fn wait(&self, namespace: &str, condition: &str, what: &str) {
        self.kubectl(&["wait", "-n", namespace, "--for", condition, what, "--timeout=90s"]);
    }
}

/// Polls `check` until it gives something. Panics with what it said last after `within`.
pub fn eventually<T>(
    within: Duration,
    what: impl fmt::Display,
    mut check: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + within;
    loop {
        match check() {
            Ok(value) => return value,
            Err(why) if Instant::now() > end => panic!("not within {within:?}: {what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The command's output; else what it wrote to stderr.
pub fn finished(command: &mut Command, stdin: &str) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|why| format!("{command:?}: {why}"))?;
    // One that ends before it has read all says why.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if status.success() { Ok(text(stdout)) } else { Err(format!("{command:?}: {status}: {}", text(stderr))) }
}
