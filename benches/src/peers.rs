//! The proxies that are compared: each routes by a hash of one header to three upstreams, on one core.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::process::Process;

/// A proxy under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A relay that only copies: what a connection for each client costs at least.
    Bare,
    /// nginx with 32 KiB buffers.
    Nginx,
    /// HAProxy with 32 KiB buffers.
    Haproxy,
    /// Envoy with 32 KiB buffers: the program that `$ENVOY` names.
    Envoy,
    /// Ours, a TCP connection for each leg.
    Balancer,
    /// Ours, legs to sidecars that share connections.
    Shared,
    /// One of our sidecars, in front of the first upstream, behind a balancer with a TCP connection for each leg.
    Proxy,
    /// The same behind a balancer whose legs share connections.
    ProxyShared,
}

/// A proxy that runs, and what has to run beside it. Dropping it ends them.
#[derive(Debug)]
pub struct Running {
    /// What is measured.
    pub process: Process,
    /// Where clients connect.
    pub addr: SocketAddr,
    _beside: Vec<Process>,
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
        let all = [
            Self::Bare,
            Self::Nginx,
            Self::Haproxy,
            Self::Envoy,
            Self::Balancer,
            Self::Shared,
            Self::Proxy,
            Self::ProxyShared,
        ];
        all.into_iter()
            .find(|peer| peer.name() == name)
            .with_context(|| format!("{name} is none of {}", all.map(Self::name).join(", ")))
    }

    /// As a table shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Balancer => "ws-balancer",
            Self::Shared => "ws-balancer-shared",
            Self::Proxy => "ws-proxy",
            Self::ProxyShared => "ws-proxy-shared",
        }
    }

    /// Starts it in front of `upstreams`. `dir` takes its configuration.
    ///
    /// # Errors
    ///
    /// When it is not installed, or does not begin to listen.
    pub fn start(self, dir: &Path, upstreams: &Upstreams) -> Result<Running> {
        let listen = free()?;
        let plain = upstreams.addrs();
        let (program, args) = match self {
            Self::Bare => {
                let addrs = [listen].into_iter().chain(plain.iter().copied());
                (own("bare")?, addrs.map(|addr| addr.to_string()).collect())
            }
            Self::Nginx => nginx(dir, listen, plain)?,
            Self::Haproxy => haproxy(dir, listen, plain)?,
            Self::Envoy => envoy(dir, listen, plain)?,
            Self::Balancer => balancer(listen, plain, "tcp")?,
            Self::Shared => {
                // Sidecars that hold the app within: what else runs beside the proxy must not slow its clients down.
                let behind = Upstreams::sidecars()?;
                let (program, args) = balancer(listen, behind.addrs(), "shared")?;
                let process = started(CORE, &program, &args, listen)?;
                return Ok(Running { process, addr: listen, _beside: vec![behind.process] });
            }
            Self::Proxy => return sidecar(listen, plain[0], "tcp"),
            Self::ProxyShared => return sidecar(listen, plain[0], "shared"),
        };
        let process = started(CORE, &program, &args, listen)?;
        Ok(Running { process, addr: listen, _beside: Vec::new() })
    }
}

fn started(core: usize, program: &Path, args: &[String], listen: SocketAddr) -> Result<Process> {
    let mut process = Process::start(core, program, args)?;
    process.listens(listen)?;
    Ok(process)
}

/// An address that nobody listens on, whose port no client is given.
///
/// # Errors
///
/// When the kernel has none.
pub fn free() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two programs that run at once begin apart. Below 32,768: ports above are given to clients, thousands at a time.
    let first = (std::process::id() % 100) as u16 * 100;
    let tries = 10_000;
    (0..tries)
        .map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % tries)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|addr| TcpListener::bind(addr).is_ok())
        .context("no port between 20,000 and 30,000 is free")
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

/// Of its connections nginx keeps a sixteenth free, by closing those that are in their handshake: it has more than it can
/// have descriptors.
fn nginx(dir: &Path, listen: SocketAddr, upstreams: &[SocketAddr]) -> Result<(PathBuf, Vec<String>)> {
    let servers = upstreams.iter().fold(String::new(), |mut text, addr| {
        let _ = writeln!(text, "    server {addr};");
        text
    });
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log stderr error;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 32768; }}\nhttp {{\n  access_log off;\n  \
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
        ("--listen", listen.to_string()),
        ("--admin", free()?.to_string()),
        ("--members", format!("static:{members}")),
        ("--legs", legs.into()),
        // The peers log no connections either.
        ("--log-level", "warn".into()),
    ];
    Ok((own("ws-balancer")?, flags(args)))
}

fn envoy(dir: &Path, listen: SocketAddr, upstreams: &[SocketAddr]) -> Result<(PathBuf, Vec<String>)> {
    let address = |addr: &SocketAddr| json!({ "socket_address": { "address": addr.ip().to_string(), "port_value": addr.port() } });
    let nodes: Vec<_> =
        upstreams.iter().map(|addr| json!({ "endpoint": { "address": address(addr) } })).collect();
    let route = json!({ "match": { "prefix": "/" }, "route": {
        "cluster": "nodes", "timeout": "0s", "hash_policy": [{ "header": { "header_name": "ws-user-id" } }] } });
    let http = "type.googleapis.com/envoy.extensions.filters";
    let manager = json!({
        "@type": format!("{http}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "clients",
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "stream_idle_timeout": "0s",
        "http_filters": [{ "name": "envoy.filters.http.router",
            "typed_config": { "@type": format!("{http}.http.router.v3.Router") } }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
    });
    let config = json!({ "static_resources": {
        "listeners": [{ "address": address(&listen), "per_connection_buffer_limit_bytes": 32768,
            "filter_chains": [{ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }] }] }],
        "clusters": [{ "name": "nodes", "type": "STATIC", "lb_policy": "RING_HASH", "per_connection_buffer_limit_bytes": 32768,
            "circuit_breakers": { "thresholds": [{ "max_connections": 20000, "max_requests": 20000, "max_pending_requests": 20000 }] },
            "load_assignment": { "cluster_name": "nodes", "endpoints": [{ "lb_endpoints": nodes }] } }],
    } });
    let file = dir.join("envoy.json");
    fs::write(&file, config.to_string())?;
    let program = env::var_os("ENVOY").map_or_else(|| "envoy".into(), PathBuf::from);
    let args = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c"];
    let args = args.map(String::from).into_iter().chain([file.display().to_string()]).collect();
    Ok((program, args))
}

/// Starts a balancer that reads its members from `file`, with its metrics at the second address.
///
/// # Errors
///
/// When it does not begin to listen.
pub fn balancer_of(file: &Path, legs: &str) -> Result<(Process, SocketAddr, SocketAddr)> {
    let (listen, admin) = (free()?, free()?);
    let args = [
        ("--listen", listen.to_string()),
        ("--admin", admin.to_string()),
        ("--members", format!("file:{}", file.display())),
        ("--legs", legs.into()),
    ];
    let process = started(CORE, &own("ws-balancer")?, &flags(args), listen)?;
    Ok((process, listen, admin))
}

/// Starts a sidecar alone in its ring, before `app`, with its API at the second address.
///
/// # Errors
///
/// When it does not begin to listen.
pub fn sidecar_of(app: &str) -> Result<(Process, SocketAddr, SocketAddr)> {
    let (node, api) = (free()?, free()?);
    let args = [
        ("--listen", node.to_string()),
        ("--node", node.to_string()),
        ("--api", api.to_string()),
        ("--admin", free()?.to_string()),
        ("--app", app.into()),
        ("--members", format!("static:{node}")),
    ];
    let process = started(CORE, &own("ws-proxy")?, &flags(args), node)?;
    Ok((process, node, api))
}

fn flags<const N: usize>(args: [(&str, String); N]) -> Vec<String> {
    args.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect()
}

/// A sidecar before `app`, which is measured, and a balancer before that.
fn sidecar(listen: SocketAddr, app: SocketAddr, legs: &str) -> Result<Running> {
    let (process, node, _) = sidecar_of(&format!("ws://{app}"))?;
    let (program, args) = balancer(listen, &[node], legs)?;
    let balancer = started(CORE + 1, &program, &args, listen)?;
    Ok(Running { process, addr: listen, _beside: vec![balancer] })
}

/// Three echo servers in one process, on the core that proxies do not have.
#[derive(Debug)]
pub struct Upstreams {
    addrs: Vec<SocketAddr>,
    process: Process,
}

impl Upstreams {
    /// Starts plain ones.
    ///
    /// # Errors
    ///
    /// When they do not begin to listen.
    pub fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// Starts sidecars, each with an app within.
    ///
    /// # Errors
    ///
    /// When they do not begin to listen.
    pub fn sidecars() -> Result<Self> {
        Self::with(&["--sidecars"])
    }

    /// Starts applications behind HTTP, which answer each POST with its body.
    ///
    /// # Errors
    ///
    /// When they do not begin to listen.
    pub fn http() -> Result<Self> {
        Self::with(&["--http"])
    }

    fn with(args: &[&str]) -> Result<Self> {
        let addrs = (0..3).map(|_| free()).collect::<Result<Vec<_>>>()?;
        let args: Vec<String> =
            args.iter().map(|&arg| arg.into()).chain(addrs.iter().map(ToString::to_string)).collect();
        let mut process = Process::start(CORE + 1, &own("echo")?, &args)?;
        for addr in &addrs {
            process.listens(*addr)?;
        }
        Ok(Self { addrs, process })
    }

    /// Where they listen.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}
