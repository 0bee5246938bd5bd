//! A whole deployment on one machine: pods (an app each, with or without a sidecar), a members file, a balancer.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};

use super::{
    app::{App, Manners},
    client::{Client, Driven, key},
    fault::Fault,
    log::Logs,
    members::MembersFile,
    owner,
    process::Process,
    range::{self, ADMIN, API, APP, CLIENTS, LISTEN, TLS},
    wait::{eventually, secs},
};

/// The balancer's host in the range, and a second one's; pods count from 1.
const BALANCER: u8 = 250;
const SECOND_BALANCER: u8 = 251;
/// The link to a pod is at the pod's host plus this.
const LINKS: u8 = 100;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub pods: u8,
    pub sidecars: bool,
    /// The apps speak HTTP and are the test's own, at [`Cluster::app_addr`].
    pub http: bool,
    /// The apps speak WebSocket and are the test's own, at [`Cluster::app_addr`].
    pub foreign: bool,
    /// What stands behind the app's address in `--app`.
    pub app_path: String,
    pub manners: Manners,
    pub balancer: Vec<String>,
    pub sidecar: Vec<String>,
    /// Each pod is reached through a link that can be broken, [`Pod::link`].
    pub links: bool,
    /// Each sidecar follows a members file of its own, [`Pod::view`].
    pub own_views: bool,
    /// The files of the balancer's certificate and its key, if it serves clients by TLS as well.
    pub tls: Option<[PathBuf; 2]>,
}

impl Setup {
    /// Pods with sidecars.
    pub fn sidecars(pods: u8) -> Self {
        Self {
            pods,
            sidecars: true,
            http: false,
            foreign: false,
            app_path: String::new(),
            manners: Manners::default(),
            balancer: Vec::new(),
            sidecar: Vec::new(),
            links: false,
            own_views: false,
            tls: None,
        }
    }

    /// Plain WebSocket servers.
    pub fn plain(pods: u8) -> Self {
        Self { sidecars: false, ..Self::sidecars(pods) }
    }

    /// Pods with sidecars before apps that speak HTTP.
    pub fn http(pods: u8) -> Self {
        Self { http: true, app_path: "/events".into(), ..Self::sidecars(pods) }
    }

    /// Pods with sidecars before somebody else's WebSocket servers.
    pub fn foreign(pods: u8) -> Self {
        Self { foreign: true, ..Self::sidecars(pods) }
    }

    /// Every app's manners at its start.
    pub fn manners(mut self, change: impl FnOnce(&mut Manners)) -> Self {
        change(&mut self.manners);
        self
    }

    /// Further flags for the balancer.
    pub fn balancer(mut self, flags: &[&str]) -> Self {
        self.balancer.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Further flags for every sidecar.
    pub fn sidecar(mut self, flags: &[&str]) -> Self {
        self.sidecar.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Pods are reached through links that can be broken.
    pub fn links(self) -> Self {
        Self { links: true, ..self }
    }

    /// Sidecars follow members files of their own.
    pub fn own_views(self) -> Self {
        Self { own_views: true, ..self }
    }

    /// The balancer serves clients by TLS as well, at [`Cluster::tls_addr`], with the certificate and key in these files.
    pub fn tls(self, files: [PathBuf; 2]) -> Self {
        Self { tls: Some(files), ..self }
    }

    /// Starts it all and waits until every part is ready.
    pub async fn start(self) -> Cluster {
        Cluster::start(self).await
    }
}

pub struct Pod {
    /// Its node id.
    pub id: String,
    pub app: Option<App>,
    pub sidecar: Option<Process>,
    pub link: Option<Fault>,
    pub view: Option<MembersFile>,
}

impl Pod {
    /// Sends a signal to the sidecar.
    pub fn signal(&self, name: &str) {
        self.sidecar.as_ref().expect("a pod without a sidecar").signal(name);
    }

    pub fn link(&self) -> &Fault {
        self.link.as_ref().expect("a setup without links")
    }
}

pub struct Cluster {
    pub balancer: Process,
    pub pods: BTreeMap<u8, Pod>,
    pub members: MembersFile,
    pub logs: Arc<Logs>,
    pub range: range::Range,
    setup: Setup,
}

impl Cluster {
    async fn start(setup: Setup) -> Self {
        let range = range::Range::claim();
        let members = MembersFile::new((1..=setup.pods).map(|host| node_id(&range, &setup, host)));
        let (logs, mut pods) = (Logs::new(), BTreeMap::new());
        for host in 1..=setup.pods {
            pods.insert(host, start_pod(&range, &setup, &members, &logs, host).await);
        }
        let mut balancer = Process::balancer(&balancer_flags(&range, &setup, &members, BALANCER));
        // Without members it does not get ready, as it should.
        balancer.answers(if setup.pods == 0 { "/livez" } else { "/readyz" }).await;
        for sidecar in pods.values_mut().filter_map(|pod| pod.sidecar.as_mut()) {
            sidecar.ready().await;
        }
        Self { balancer, pods, members, logs, range, setup }
    }

    /// Starts another balancer in front of the same pods, with further flags. Where its clients connect.
    pub async fn second_balancer(&self, flags: &[&str]) -> (Process, SocketAddr) {
        let setup = self.setup.clone().balancer(flags);
        let flags = balancer_flags(&self.range, &setup, &self.members, SECOND_BALANCER);
        let mut balancer = Process::balancer(&flags);
        balancer.ready().await;
        (balancer, self.range.addr(SECOND_BALANCER, CLIENTS))
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.range.addr(BALANCER, CLIENTS)
    }

    /// Where clients connect by TLS.
    pub fn tls_addr(&self) -> SocketAddr {
        self.range.addr(BALANCER, TLS)
    }

    /// Where pod `host` takes legs, and clients that come without a balancer.
    pub fn pod_addr(&self, host: u8) -> SocketAddr {
        self.range.addr(host, if self.setup.sidecars { LISTEN } else { APP })
    }

    /// Where the app of pod `host` is.
    pub fn app_addr(&self, host: u8) -> SocketAddr {
        self.range.addr(host, APP)
    }

    pub async fn client(&self, id: u32) -> Client {
        Client::connect(self.addr(), id, &self.logs).await
    }

    /// Clients `ids`, connected and sending at every interval.
    pub async fn fleet(&self, ids: Range<u32>, every: Duration) -> Vec<Driven> {
        let clients = stream::iter(ids).map(|id| async move { self.client(id).await.drive(every) });
        clients.buffered(32).collect().await
    }

    pub fn app(&self, host: u8) -> &App {
        self.pods[&host].app.as_ref().expect("that app was stopped")
    }

    /// The pod that owns client `id` by the members file.
    pub fn owner(&self, id: u32) -> u8 {
        let owner = owner::owner(&self.members.owning(), &key(id));
        *self.pods.iter().find(|(_, pod)| pod.id == owner).expect("an owner without a pod").0
    }

    /// The first client id from `from` that pod `host` owns.
    pub fn client_of(&self, host: u8, from: u32) -> u32 {
        (from..).find(|id| self.owner(*id) == host).unwrap()
    }

    /// A client id from `from` that belongs to `old` now and to `new` once the members are `nodes`.
    pub fn mover(&self, old: u8, new: u8, nodes: &[u8]) -> u32 {
        let ids: Vec<String> = nodes.iter().map(|host| node_id(&self.range, &self.setup, *host)).collect();
        let target = node_id(&self.range, &self.setup, new);
        (0..).find(|id| self.owner(*id) == old && owner::owner(&ids, &key(*id)) == target).unwrap()
    }

    /// Starts pod `host` without adding it to the members.
    pub async fn add(&mut self, host: u8) {
        let mut pod = start_pod(&self.range, &self.setup, &self.members, &self.logs, host).await;
        if let Some(sidecar) = &mut pod.sidecar {
            sidecar.ready().await;
        }
        self.pods.insert(host, pod);
    }

    /// Starts pod `host` and adds it to the members.
    pub async fn join(&mut self, host: u8) {
        self.add(host).await;
        self.enter(host);
    }

    /// Adds pod `host`, which was started, to the members.
    pub fn enter(&mut self, host: u8) {
        self.members.join(&self.pods[&host].id);
    }

    pub fn drain(&mut self, host: u8) {
        self.members.drain(&self.pods[&host].id);
    }

    pub fn leave(&mut self, host: u8) {
        self.members.remove(&self.pods[&host].id);
    }

    /// Sudden death of app and sidecar.
    pub fn kill(&mut self, host: u8) {
        let pod = self.pods.get_mut(&host).unwrap();
        pod.sidecar = None;
        pod.app = None;
    }

    /// Ends a pod as Kubernetes would: SIGTERM to the sidecar, the app once that is gone.
    pub async fn stop(&mut self, host: u8) {
        let mut pod = self.pods.remove(&host).unwrap();
        if let Some(sidecar) = &mut pod.sidecar {
            sidecar.signal("TERM");
            let status = sidecar.exit(secs(40)).await;
            assert_eq!(status.code(), Some(0), "sidecar {host}: {}", sidecar.output());
        }
    }

    /// Waits until each of these clients is held by its owner, and by nobody else.
    pub async fn settled(&self, clients: impl Iterator<Item = u32> + Clone, within: Duration) {
        let what = "every client at its owner";
        eventually(within, what, async || self.misplaced(clients.clone()) == 0).await;
    }

    /// How many of these clients are not at their owner, or elsewhere too.
    pub fn misplaced(&self, clients: impl Iterator<Item = u32>) -> usize {
        let mut places: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (host, pod) in &self.pods {
            for client in pod.app.iter().flat_map(App::clients) {
                places.entry(client).or_default().push(*host);
            }
        }
        clients.filter(|id| places.get(id).is_none_or(|held| *held != [self.owner(*id)])).count()
    }

    /// What the checker says of everything so far.
    pub fn verdict(&self) -> super::checker::Verdict {
        let (clients, apps) = self.logs.read();
        super::checker::check(&clients, &apps)
    }
}

fn node_id(range: &range::Range, setup: &Setup, host: u8) -> String {
    let host = if setup.links { LINKS + host } else { host };
    range.addr(host, if setup.sidecars { LISTEN } else { APP }).to_string()
}

async fn start_pod(
    range: &range::Range,
    setup: &Setup,
    members: &MembersFile,
    logs: &Arc<Logs>,
    host: u8,
) -> Pod {
    let id = node_id(range, setup, host);
    let view = setup.own_views.then(|| MembersFile::new(members.owning()));
    let members = view.as_ref().unwrap_or(members);
    let link = match setup.links {
        true => Some(Fault::start(id.parse().unwrap(), range.addr(host, LISTEN)).await),
        false => None,
    };
    let app = match setup.http || setup.foreign {
        false => Some(App::start(range.addr(host, APP), &id, logs, setup.manners.clone()).await),
        true => None,
    };
    let sidecar = setup.sidecars.then(|| Process::proxy(&sidecar_flags(range, setup, members, host)));
    Pod { id, app, sidecar, link, view }
}

fn balancer_flags(range: &range::Range, setup: &Setup, members: &MembersFile, host: u8) -> Vec<String> {
    let at = |port| range.addr(host, port).to_string();
    let flags = [("--listen", at(CLIENTS)), ("--admin", at(ADMIN)), ("--members", members.uri())];
    // The whole suite holds for either kind of legs.
    let legs = std::env::var("LEGS").map(|kind| vec!["--legs".to_owned(), kind]);
    let tls = setup.tls.as_ref().map(|files| {
        let [cert, key] = files.each_ref().map(|path| path.to_str().unwrap().to_owned());
        with([("--tls-listen", at(TLS)), ("--tls-cert", cert), ("--tls-key", key)], &[])
    });
    [with(flags, &setup.balancer), legs.unwrap_or_default(), tls.unwrap_or_default()].concat()
}

fn sidecar_flags(range: &range::Range, setup: &Setup, members: &MembersFile, host: u8) -> Vec<String> {
    let at = |port| range.addr(host, port).to_string();
    let scheme = if setup.http { "http" } else { "ws" };
    let app = format!("{scheme}://{}{}", at(APP), setup.app_path);
    let flags = [
        ("--listen", at(LISTEN)),
        ("--api", at(API)),
        ("--admin", at(ADMIN)),
        ("--node", node_id(range, setup, host)),
        ("--app", app),
        ("--members", members.uri()),
    ];
    with(flags, &setup.sidecar)
}

fn with<const N: usize>(flags: [(&str, String); N], more: &[String]) -> Vec<String> {
    flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).chain(more.iter().cloned()).collect()
}
