//! What Kubernetes would do: starts and ends pods, and says in the members file which there are. And the balancer.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use ws_routing::{Key, Members, Node, NodeId, admin};

use crate::pod;

/// How long a killed pod stays in the members file: nobody is told of a death at once.
const UNNOTICED: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(20);

/// Pods, their members file and a balancer, all on this machine. They end with it.
#[derive(Debug)]
pub struct Deployment {
    /// Where clients connect.
    pub addr: SocketAddr,
    /// The balancer's `--admin`.
    pub admin: SocketAddr,
    network: Network,
    dir: PathBuf,
    pods: BTreeMap<u8, Pod>,
    next: u8,
    balancer: JoinHandle<anyhow::Result<()>>,
}

#[derive(Debug)]
struct Pod {
    node: String,
    state: State,
    child: Child,
}

/// How a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It owns keys.
    Ready,
    /// It is about to end.
    Draining,
    /// Killed then, and still among the members.
    Dead(Instant),
}

impl State {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Dead(_) => "dead",
        }
    }
}

impl Deployment {
    /// Starts that many pods, which are this program called with `pod`, and a balancer on `port`; another free port when
    /// that is taken. `flags` are the balancer's.
    ///
    /// # Errors
    ///
    /// When one of them does not get ready.
    pub async fn start(pods: u8, port: u16, flags: &[&str]) -> anyhow::Result<Self> {
        let network = Network::claim()?;
        let dir = std::env::temp_dir().join(format!("ws-routing-pods-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("members"), "")?;
        let addr = free(port)?;
        let admin = SocketAddr::from((network.host(254), pod::ADMIN));
        let mut this = Self {
            addr,
            admin,
            network,
            dir,
            pods: BTreeMap::new(),
            next: 1,
            balancer: tokio::spawn(async { Ok(()) }),
        };
        // The members come first here: a sidecar is ready once it has seen some.
        for _ in 0..pods {
            let (host, pod) = this.spawn()?;
            this.pods.insert(host, pod);
        }
        this.write()?;
        for host in 1..this.next {
            reachable((this.network.host(host), pod::ADMIN)).await.context("a pod does not start")?;
        }
        this.balancer = tokio::spawn(ws_balancer::run(this.balancer_args(flags)?));
        reachable(admin).await.context("the balancer does not start")?;
        Ok(this)
    }

    fn balancer_args(&self, more: &[&str]) -> anyhow::Result<ws_balancer::Args> {
        let members = format!("file:{}", self.dir.join("members").display());
        let (addr, admin) = (self.addr.to_string(), self.admin.to_string());
        #[rustfmt::skip]
        let flags = [
            "ws-balancer", "--listen", &addr, "--admin", &admin, "--members", &members, "--drain", "1s",
            "--log-level", "warn",
        ];
        Ok(ws_balancer::Args::try_parse_from(flags.iter().chain(more))?)
    }

    /// Starts a pod, and adds it to the members when it is ready.
    ///
    /// # Errors
    ///
    /// When it does not get ready.
    pub async fn add(&mut self) -> anyhow::Result<()> {
        let (host, pod) = self.spawn()?;
        reachable((self.network.host(host), pod::ADMIN)).await.context("the pod does not start")?;
        self.pods.insert(host, pod);
        self.write()
    }

    fn spawn(&mut self) -> anyhow::Result<(u8, Pod)> {
        let host = self.next;
        if host > 250 {
            bail!("no address is left for a further pod");
        }
        self.next += 1;
        let ip = self.network.host(host);
        let child = Command::new(std::env::current_exe()?)
            .args(["pod", "--ip", &ip.to_string(), "--members"])
            .arg(self.dir.join("members"))
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok((host, Pod { node: format!("{ip}:{}", pod::LISTEN), state: State::Ready, child }))
    }

    /// Takes a pod out of service gently: its connections move away, then it ends.
    ///
    /// # Errors
    ///
    /// When there is no such pod.
    pub async fn drain(&mut self, node: &str) -> anyhow::Result<()> {
        let pod = self.pod(node)?;
        pod.state = State::Draining;
        if let Some(pid) = pod.child.id() {
            Command::new("kill").args(["-s", "TERM", &pid.to_string()]).status().await?;
        }
        self.write()
    }

    /// Kills a pod; the members file says so only later.
    ///
    /// # Errors
    ///
    /// When there is no such pod.
    pub async fn kill(&mut self, node: &str) -> anyhow::Result<()> {
        let pod = self.pod(node)?;
        pod.state = State::Dead(Instant::now());
        Ok(pod.child.kill().await?)
    }

    /// Removes the pods that have ended from the members. To be called now and then.
    ///
    /// # Errors
    ///
    /// When the members file cannot be written.
    pub fn reap(&mut self) -> anyhow::Result<()> {
        let before = self.pods.len();
        self.pods.retain(|_, pod| match pod.state {
            State::Ready => true,
            State::Draining => !matches!(pod.child.try_wait(), Ok(Some(_))),
            State::Dead(since) => since.elapsed() < UNNOTICED,
        });
        if self.pods.len() == before { Ok(()) } else { self.write() }
    }

    /// Whether the balancer has ended, which it does after a signal.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.balancer.is_finished()
    }

    /// How the balancer ended.
    ///
    /// # Errors
    ///
    /// The balancer's own.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.balancer).await?
    }

    /// How many clients the balancer relays to that node.
    ///
    /// # Errors
    ///
    /// When the balancer does not answer.
    pub async fn relayed_to(&self, node: &str) -> anyhow::Result<usize> {
        let answer = admin::request(self.admin, "GET".parse()?, "/v1/connections").await?;
        let answer: serde_json::Value = serde_json::from_slice(answer.body())?;
        let held = answer["connections"].as_array().context("a list of connections")?;
        Ok(held.iter().filter(|held| held["node"] == node).count())
    }

    /// All pods that there are.
    #[must_use]
    pub fn pods(&self) -> Vec<(String, State)> {
        self.pods.values().map(|pod| (pod.node.clone(), pod.state)).collect()
    }

    /// The nodes that own keys, and who owns which.
    ///
    /// # Errors
    ///
    /// None that can happen: nodes have addresses.
    pub fn owners(&self) -> anyhow::Result<Owners> {
        Owners::of_nodes(self.ready())
    }

    /// The same once the next pod has been added, and that pod.
    ///
    /// # Errors
    ///
    /// As [`Deployment::owners`].
    pub fn owners_after_add(&self) -> anyhow::Result<(Owners, String)> {
        let next = format!("{}:{}", self.network.host(self.next), pod::LISTEN);
        Ok((Owners::of_nodes(self.ready().chain([&*next]))?, next))
    }

    fn ready(&self) -> impl Iterator<Item = &str> {
        self.pods.values().filter(|pod| pod.state == State::Ready).map(|pod| &*pod.node)
    }

    fn pod(&mut self, node: &str) -> anyhow::Result<&mut Pod> {
        self.pods.values_mut().find(|pod| pod.node == node).context("no such pod")
    }

    fn write(&self) -> anyhow::Result<()> {
        let line = |pod: &Pod| match pod.state {
            State::Draining => format!("{} state=draining\n", pod.node),
            State::Ready | State::Dead(_) => format!("{}\n", pod.node),
        };
        let next = self.dir.join("members.next");
        fs::write(&next, self.pods.values().map(line).collect::<String>())?;
        Ok(fs::rename(next, self.dir.join("members"))?)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.balancer.abort();
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Who owns which key: the same pure function that balancer and sidecars compute.
#[derive(Debug)]
pub struct Owners(Members);

impl Owners {
    fn of_nodes<'a>(ids: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let nodes = ids.map(|id| Ok(Node::new(id.parse::<NodeId>()?)));
        Ok(Self(Members::new(nodes.collect::<anyhow::Result<Vec<_>>>()?, 0)))
    }

    /// The node that owns `key`, if there is one.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<String> {
        Some(self.0.owner(&Key::new(key).ok()?)?.id.as_str().to_owned())
    }
}

/// `127.0.x.0/24` for the pods of this demo: of several on one machine each has its own.
#[derive(Debug)]
struct Network {
    third: u8,
    _lock: TcpListener,
}

impl Network {
    fn claim() -> anyhow::Result<Self> {
        let free = |third| {
            let lock = TcpListener::bind((Ipv4Addr::new(127, 0, third, 253), pod::LISTEN)).ok()?;
            Some(Self { third, _lock: lock })
        };
        (1..=250).find_map(free).context("no free range of addresses in 127.0.0.0/16")
    }

    fn host(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, self.third, host)
    }
}

/// 127.0.0.1 with that port, or with another when it is taken.
///
/// # Errors
///
/// When no port is free.
pub fn free(port: u16) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    Ok(listener.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?)
}

/// Waits until somebody listens there: the programs open that port last of all.
async fn reachable(addr: impl Into<SocketAddr>) -> anyhow::Result<()> {
    let addr = addr.into();
    let dial = async {
        while !ready(addr).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(timeout(START, dial).await?)
}

async fn ready(admin: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    ask.await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
