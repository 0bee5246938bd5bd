//! The proxies that are compared: each routes by a hash of one header to three upstreams, on one core.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::process::Process;

/// A proxy under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// nginx with 32 KiB buffers.
    Nginx,
    /// HAProxy with 32 KiB buffers.
    Haproxy,
    /// Ours, a TCP connection for each leg.
    Balancer,
    /// Ours, legs to sidecars that share connections.
    Shared,
}

/// The core that proxies are pinned to. Clients and upstreams have the next one.
pub const CORE: usize = 0;

impl Peer {
    /// The one of that name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn named(name: &str) -> Result<Self> {
        let all = [Self::Nginx, Self::Haproxy, Self::Balancer, Self::Shared];
        all.into_iter()
            .find(|peer| peer.name() == name)
            .with_context(|| format!("{name} is none of {}", all.map(Self::name).join(", ")))
    }

    /// As a table shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Balancer => "ws-balancer",
            Self::Shared => "ws-balancer-shared",
        }
    }

    /// Whether sidecars stand before its upstreams.
    #[must_use]
    pub fn wants_sidecars(self) -> bool {
        self == Self::Shared
    }

    /// Starts it in front of `upstreams`; its process and where it listens. `dir` takes its configuration.
    ///
    /// # Errors
    ///
    /// When it is not installed, or does not begin to listen.
    pub fn start(self, dir: &Path, upstreams: &[SocketAddr]) -> Result<(Process, SocketAddr)> {
        let listen = free()?;
        let (program, args) = match self {
            Self::Nginx => nginx(dir, listen, upstreams)?,
            Self::Haproxy => haproxy(dir, listen, upstreams)?,
            Self::Balancer => balancer(listen, upstreams, "tcp")?,
            Self::Shared => balancer(listen, upstreams, "shared")?,
        };
        let mut process = Process::start(CORE, &program, &args)?;
        process.listens(listen)?;
        Ok((process, listen))
    }
}

/// An address that nobody listens on.
///
/// # Errors
///
/// When the kernel has none.
pub fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// One of our own programs, from the folder of the program that runs.
///
/// # Errors
///
/// When it has not been built.
pub fn own(name: &str) -> Result<PathBuf> {
    let path = env::current_exe()?.parent().context("a folder")?.join(name);
    path.try_exists()?.then_some(path).with_context(|| format!("{name} is not built beside this program"))
}

fn nginx(dir: &Path, listen: SocketAddr, upstreams: &[SocketAddr]) -> Result<(PathBuf, Vec<String>)> {
    let servers = upstreams.iter().fold(String::new(), |mut text, addr| {
        let _ = writeln!(text, "    server {addr};");
        text
    });
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log stderr error;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 19000; }}\nhttp {{\n  access_log off;\n  \
         upstream nodes {{\n    hash $http_ws_user_id consistent;\n{servers}  }}\n  \
         server {{\n    listen {listen} backlog=4096;\n    location / {{\n      proxy_pass http://nodes;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Upgrade $http_upgrade;\n      \
         proxy_set_header Connection upgrade;\n      proxy_buffer_size 32k;\n      proxy_buffers 4 32k;\n      \
         proxy_read_timeout 1h;\n      proxy_send_timeout 1h;\n    }}\n  }}\n}}\n",
        dir = dir.display()
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, text)?;
    Ok((
        "nginx".into(),
        vec!["-c".into(), file.display().to_string(), "-p".into(), dir.display().to_string()],
    ))
}

fn haproxy(dir: &Path, listen: SocketAddr, upstreams: &[SocketAddr]) -> Result<(PathBuf, Vec<String>)> {
    let servers = upstreams.iter().enumerate().fold(String::new(), |mut text, (n, addr)| {
        let _ = writeln!(text, "  server s{n} {addr}");
        text
    });
    let text = format!(
        "global\n  nbthread 1\n  maxconn 9500\n  tune.bufsize 32768\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n\
         frontend clients\n  bind {listen} backlog 4096\n  default_backend nodes\n\
         backend nodes\n  balance hdr(ws-user-id)\n  hash-type consistent\n{servers}"
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text)?;
    Ok(("haproxy".into(), vec!["-f".into(), file.display().to_string(), "-db".into()]))
}

fn balancer(listen: SocketAddr, upstreams: &[SocketAddr], legs: &str) -> Result<(PathBuf, Vec<String>)> {
    let members = upstreams.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let args = [
        "--listen",
        &listen.to_string(),
        "--admin",
        &free()?.to_string(),
        "--members",
        &format!("static:{members}"),
        "--legs",
        legs,
    ];
    Ok((own("ws-balancer")?, args.map(ToString::to_string).to_vec()))
}

/// Starts a sidecar before each of `apps`, on that core; where they listen.
///
/// # Errors
///
/// When one does not begin to listen.
pub fn sidecars(core: usize, apps: &[SocketAddr]) -> Result<Vec<(Process, SocketAddr)>> {
    let nodes = apps.iter().map(|_| free()).collect::<Result<Vec<_>>>()?;
    let members = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let start = |(node, app): (&SocketAddr, &SocketAddr)| {
        let args = [
            ("--listen", node.to_string()),
            ("--node", node.to_string()),
            ("--api", free()?.to_string()),
            ("--admin", free()?.to_string()),
            ("--app", format!("ws://{app}")),
            ("--members", format!("static:{members}")),
        ];
        let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect();
        let mut process = Process::start(core, &own("ws-proxy")?, &args)?;
        process.listens(*node)?;
        Ok((process, *node))
    };
    nodes.iter().zip(apps).map(start).collect()
}

/// Three echo servers in one process, on the core that proxies do not have.
#[derive(Debug)]
pub struct Upstreams {
    addrs: Vec<SocketAddr>,
    _process: Process,
}

impl Upstreams {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// When they do not begin to listen.
    pub fn start() -> Result<Self> {
        let addrs = (0..3).map(|_| free()).collect::<Result<Vec<_>>>()?;
        let args: Vec<String> = addrs.iter().map(ToString::to_string).collect();
        let mut process = Process::start(CORE + 1, &own("echo")?, &args)?;
        for addr in &addrs {
            process.listens(*addr)?;
        }
        Ok(Self { addrs, _process: process })
    }

    /// Where they listen.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}
