//! A network in memory, whose links take their time, can be held, and can be cut.
//!
//! A link that is held is what a partition is to TCP: nothing arrives, nothing ends, and what was sent comes later.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use ws_routing::{
    NodeId,
    proxy::{Connecting, LegStream, Network, connect::DialError},
};

use crate::chance::Chance;

/// One of the processes: the balancer, or a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub u8);

impl Host {
    pub const BALANCER: Self = Self(0);
    /// Where clients are that come without a balancer.
    pub const OUTSIDE: Self = Self(200);

    pub fn node(self) -> NodeId {
        SocketAddr::from(([10, 0, 0, self.0], 7400)).into()
    }
}

/// All links. Cloning is a reference count.
#[derive(Clone, Debug)]
pub struct Net {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    chance: Chance,
    doors: BTreeMap<Host, mpsc::UnboundedSender<DuplexStream>>,
    links: BTreeMap<(Host, Host), Link>,
    /// Some link is another now. Whoever waits is woken in the order in which he came, which a watch does not promise.
    changed: Arc<Notify>,
    carriers: JoinSet<()>,
    /// What has arrived, when and where: the same for every run of a seed.
    trace: u64,
    began: Instant,
}

/// One direction between two processes.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// By so many at once.
    held: u32,
    /// How often it was cut.
    cuts: u32,
    /// How many connections have had it.
    connections: u64,
}

impl Net {
    pub fn new(chance: Chance) -> Self {
        let shared = Shared {
            chance,
            doors: BTreeMap::new(),
            links: BTreeMap::new(),
            changed: Arc::default(),
            carriers: JoinSet::new(),
            trace: 0,
            began: Instant::now(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Listens as `host` from now on, until the receiver is dropped.
    pub fn listen(&self, host: Host) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (door, arrivals) = mpsc::unbounded_channel();
        self.lock(|shared| shared.doors.insert(host, door));
        arrivals
    }

    /// The network as `host` sees it.
    pub fn at(&self, host: Host) -> Arc<dyn Network> {
        Arc::new(Port { net: self.clone(), host })
    }

    /// Holds what goes from one to the other, until as many releases as holds have come.
    pub fn hold(&self, from: Host, to: Host) {
        self.change(from, to, |link| link.held += 1);
    }

    pub fn release(&self, from: Host, to: Host) {
        self.change(from, to, |link| link.held -= 1);
    }

    /// Resets every connection between the two, whoever opened it.
    pub fn cut(&self, one: Host, other: Host) {
        self.change(one, other, |link| link.cuts += 1);
        self.change(other, one, |link| link.cuts += 1);
    }

    /// A number that depends on everything that has arrived so far.
    pub fn trace(&self) -> u64 {
        self.lock(|shared| shared.trace)
    }

    /// Opens a connection. It ends when either side lets go of it, and with [`Net::cut`].
    pub async fn open(&self, from: Host, to: Host) -> io::Result<DuplexStream> {
        let (mut there, mut back) = (self.way(from, to), self.way(to, from));
        there.pass().await;
        back.pass().await;
        let ((near, left), (right, far)) = (duplex(BUFFER), duplex(BUFFER));
        let cuts = self.link(from, to).cuts;
        let net = self.clone();
        let carrier = async move {
            let ((hears, says), (far_hears, far_says)) = (split(left), split(right));
            let both = async { tokio::try_join!(there.carry(hears, far_says), back.carry(far_hears, says)) };
            tokio::select! {
                biased;
                () = net.until(from, to, |link| link.cuts != cuts) => {}
                _ = both => {}
            }
        };
        self.lock(|shared| {
            let door = shared.doors.get(&to).ok_or(io::ErrorKind::ConnectionRefused)?;
            door.send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            while shared.carriers.try_join_next().is_some() {}
            shared.carriers.spawn(carrier);
            Ok(near)
        })
    }

    fn way(&self, from: Host, to: Host) -> Way {
        self.lock(|shared| {
            let link = shared.links.entry((from, to)).or_default();
            link.connections += 1;
            // Of its own for each: what one connection draws is not changed by when another does.
            let number = link.connections << 16 | u64::from(from.0) << 8 | u64::from(to.0);
            let chance = Chance::new(shared.chance.clone().number() ^ Chance::new(number).number());
            Way { net: self.clone(), from, to, chance }
        })
    }

    fn change(&self, from: Host, to: Host, change: impl FnOnce(&mut Link)) {
        self.lock(|shared| {
            change(shared.links.entry((from, to)).or_default());
            shared.changed.notify_waiters();
        });
    }

    fn link(&self, from: Host, to: Host) -> Link {
        self.lock(|shared| *shared.links.entry((from, to)).or_default())
    }

    async fn until(&self, from: Host, to: Host, fits: impl Fn(Link) -> bool) {
        let changed = self.lock(|shared| Arc::clone(&shared.changed));
        loop {
            let notified = changed.notified();
            if fits(self.link(from, to)) {
                return;
            }
            notified.await;
        }
    }

    fn lock<T>(&self, f: impl FnOnce(&mut Shared) -> T) -> T {
        f(&mut self.shared.lock().unwrap())
    }
}

/// What each side of a connection holds of its own, and what may be on its way at once, in bytes.
const BUFFER: usize = 16 * 1024;

/// One direction of one connection.
struct Way {
    net: Net,
    from: Host,
    to: Host,
    chance: Chance,
}

impl Way {
    /// Waits as long as what goes this way takes.
    async fn pass(&mut self) {
        let delay = match self.chance.one_in(50) {
            true => self.chance.millis(5..40),
            false => Duration::from_micros(100 + self.chance.number() % 1900),
        };
        sleep(delay).await;
        self.net.until(self.from, self.to, |link| link.held == 0).await;
    }

    /// Carries bytes until one side lets go.
    async fn carry(
        mut self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; BUFFER];
        loop {
            let len = from.read(&mut bytes).await?;
            self.pass().await;
            self.note();
            if len == 0 {
                return to.shutdown().await;
            }
            to.write_all(&bytes[..len]).await?;
        }
    }

    fn note(&self) {
        self.net.lock(|shared| {
            let at = shared.began.elapsed().as_micros() as u64;
            let what = u64::from(self.from.0) << 56 ^ u64::from(self.to.0) << 48 ^ at;
            // What happens at the same moment has no order.
            shared.trace = shared.trace.wrapping_add(Chance::new(what).number());
        });
    }
}

#[derive(Debug)]
struct Port {
    net: Net,
    host: Host,
}

impl Network for Port {
    fn connect<'a>(&'a self, node: &'a NodeId, limit: Duration) -> Connecting<'a> {
        Box::pin(async move {
            let SocketAddr::V4(addr) = node.addr().expect("all nodes are addresses") else { unreachable!() };
            let open = self.net.open(self.host, Host(addr.ip().octets()[3]));
            let io = timeout(limit, open).await.map_err(|_| DialError::TimedOut)??;
            Ok(LegStream::Local(io))
        })
    }
}
