//! Programs under measurement: started on one core, measured from `/proc`, ended by their pid.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::time::Instant;

/// A running program and its children. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// What a program has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU time of all its threads and children.
    pub cpu: Duration,
    /// Resident bytes.
    pub resident: u64,
}

impl Process {
    /// Starts `program` on that core alone.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(core: usize, program: &Path, args: &[String]) -> Result<Self> {
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(program)
            .args(args)
            .env("WS_LOG_LEVEL", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {} with taskset", program.display()))?;
        Ok(Self { child })
    }

    /// Waits until somebody listens on `addr`.
    ///
    /// # Errors
    ///
    /// When the program has ended, or nobody listens after 10 s.
    pub fn listens(&mut self, addr: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while std::net::TcpStream::connect(addr).is_err() {
            ensure!(self.child.try_wait()?.is_none(), "the program for {addr} has ended");
            ensure!(began.elapsed() < Duration::from_secs(10), "nobody listens on {addr}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What it has used until now.
    ///
    /// # Errors
    ///
    /// When `/proc` does not tell.
    pub fn usage(&self) -> Result<Usage> {
        usage_of(self.child.id())
    }
}

/// What this program has used until now.
///
/// # Errors
///
/// When `/proc` does not tell.
pub fn own_usage() -> Result<Usage> {
    usage_of(std::process::id())
}

fn usage_of(pid: u32) -> Result<Usage> {
    let mut usage = Usage { cpu: Duration::ZERO, resident: 0 };
    let mut pids = vec![pid];
    while let Some(pid) = pids.pop() {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let run: u64 = first(&fs::read_to_string(task.join("schedstat"))?)?;
            usage.cpu += Duration::from_nanos(run);
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        let pages = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        let pages: u64 = pages.split_whitespace().nth(1).context("statm")?.parse()?;
        usage.resident += pages * 4096;
    }
    Ok(usage)
}

/// Runs a measurement on one core and one thread: what loads a proxy must not take turns with it.
///
/// # Errors
///
/// When the machine has no such core, and those of `measurement`.
pub fn run_on<T>(core: usize, measurement: impl Future<Output = Result<T>>) -> Result<T> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot stay on core {core}"))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measurement)
}

fn first(text: &str) -> Result<u64> {
    Ok(text.split_whitespace().next().context("an empty line")?.parse()?)
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // It may have ended already.
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(2) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
