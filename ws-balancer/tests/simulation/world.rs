//! Everything in one process: a balancer, pods, and what each of them knows of the others.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{DuplexStream, duplex},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest as _};
use ws_routing::{
    Key, Members, Node, NodeState,
    membership::{self, View, Writer},
    proxy::{Proxy, Settings},
};

use crate::{
    chance::Chance,
    network::{Host, Net},
    pod::Pod,
    support::{Client, Logs, app::Manners, client::key, wait::bounded},
};

/// What is shared by all that happens at the same time. Cloning is a reference count.
#[derive(Clone)]
pub struct World {
    pub net: Net,
    pub logs: Arc<Logs>,
    shared: Arc<Mutex<Shared>>,
    proxy: Proxy,
    settings: Settings,
    manners: Manners,
}

struct Shared {
    chance: Chance,
    pods: BTreeMap<Host, Pod>,
    /// The members as they are.
    members: BTreeMap<Host, NodeState>,
    /// As the processes see them, each in its time.
    views: BTreeMap<Host, Arc<Mutex<Writer>>>,
    background: JoinSet<()>,
    /// What was done, for who has to find out why.
    diary: Vec<String>,
    began: Instant,
}

impl World {
    pub fn new(mut chance: Chance, settings: Settings, manners: Manners) -> Self {
        let net = Net::new(chance.fork());
        let (writer, view) = membership::channel(0);
        let proxy = Proxy::builder(view)
            .network(net.at(Host::BALANCER))
            .relay(settings.clone())
            .log_keys(true)
            .build();
        let mut background = JoinSet::new();
        let runs = proxy.clone();
        background.spawn(async move { runs.run().await });
        let shared = Shared {
            chance,
            pods: BTreeMap::new(),
            members: BTreeMap::new(),
            views: BTreeMap::from([(Host::BALANCER, Arc::new(Mutex::new(writer)))]),
            background,
            diary: Vec::new(),
            began: Instant::now(),
        };
        Self { net, logs: Logs::new(), shared: Arc::new(Mutex::new(shared)), proxy, settings, manners }
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<Host, Pod>) -> T) -> T {
        f(&mut self.lock().pods)
    }

    pub fn chance<T>(&self, f: impl FnOnce(&mut Chance) -> T) -> T {
        f(&mut self.lock().chance)
    }

    /// The pods that are members, ready or not.
    pub fn members(&self) -> BTreeMap<Host, NodeState> {
        self.lock().members.clone()
    }

    pub fn note(&self, what: impl Into<String>) {
        let mut shared = self.lock();
        let at = shared.began.elapsed();
        shared.diary.push(format!("{:8.3} s  {}", at.as_secs_f64(), what.into()));
    }

    pub fn diary(&self) -> String {
        self.lock().diary.join("\n")
    }

    /// Does something beside everything else, until the world ends.
    pub fn beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().background.spawn(task);
    }

    /// A pod begins to run. Nobody knows of it yet.
    pub fn start_pod(&self, host: Host) {
        let (writer, view) = membership::channel(0);
        let (settings, manners) = (self.settings.clone(), self.manners.clone());
        let pod = Pod::start(host, &self.net, view, &self.logs, manners, settings);
        let mut shared = self.lock();
        let mut known = shared.members.clone();
        known.entry(host).or_insert(NodeState::Ready);
        let writer = Arc::new(Mutex::new(writer));
        publish(&writer, &known);
        shared.views.insert(host, writer);
        shared.pods.insert(host, pod);
    }

    /// A pod is dead.
    pub fn kill_pod(&self, host: Host) {
        let pod = self.lock().pods.remove(&host);
        drop(pod);
        self.lock().views.remove(&host);
    }

    /// The members are others from now on, as everybody learns `within` that time.
    pub fn change(&self, host: Host, state: Option<NodeState>, within: Duration) {
        let views: Vec<_> = {
            let mut shared = self.lock();
            match state {
                Some(state) => shared.members.insert(host, state),
                None => shared.members.remove(&host),
            };
            shared.views.values().cloned().collect()
        };
        for view in views {
            let lag = self.chance(|chance| chance.millis(0..1 + within.as_millis() as u64));
            let world = self.clone();
            self.beside(async move {
                sleep(lag).await;
                let members = world.members();
                publish(&view, &members);
            });
        }
    }

    /// A client that has connected through the balancer, or to a pod, whose sidecar is its balancer then.
    pub async fn client(&self, id: u32, pod: Option<Host>) -> Client<DuplexStream> {
        let near = match pod {
            Some(pod) => self.net.open(Host::OUTSIDE, pod).await.unwrap(),
            None => {
                let (near, far) = duplex(16 * 1024);
                let proxy = self.proxy.clone();
                self.beside(async move { proxy.serve(far, ([10, 0, 0, 200], 1).into()).await });
                near
            }
        };
        let mut request = "ws://balancer/".into_client_request().unwrap();
        for (name, value) in [("ws-user-id", key(id)), ("x-client", id.to_string())] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let shaking = client_async(request, near);
        let (socket, _) = bounded(Duration::from_secs(20), "a client connects", shaking).await.unwrap();
        Client::new(id, socket, &self.logs)
    }

    /// The clients that are somewhere else than where they belong.
    pub fn astray(&self) -> Vec<String> {
        let view: &View = self.proxy.view();
        let members = view.load();
        let (_, held) = self.proxy.held(usize::MAX);
        let owner = |key: &str| members.owner(&Key::new(key).unwrap()).map(|owner| owner.id.clone());
        let astray = held.iter().filter(|held| owner(&held.key).as_ref() != Some(&held.node));
        astray.map(|held| format!("{} is at {}", held.key, held.node)).collect()
    }

    /// Ends everything.
    pub fn end(&self) {
        let mut shared = self.lock();
        shared.background.abort_all();
        let pods = std::mem::take(&mut shared.pods);
        drop(shared);
        drop(pods);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

fn publish(writer: &Mutex<Writer>, members: &BTreeMap<Host, NodeState>) {
    let nodes = members.iter().map(|(host, state)| Node { state: *state, ..Node::new(host.node()) });
    writer.lock().unwrap().publish(Members::new(nodes, 0));
}
