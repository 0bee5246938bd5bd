//! A whole sidecar in memory, to which anybody says anything on each of its ports.
//!
//! The input is what some connections say at the same time, parted by lines of `--8<--`. The first byte of each is the
//! port, by its last two bits: `l` is where balancers, peers and clients come, `a` the API, `b` a balancer before the
//! sidecar, `c` the admin port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split},
    runtime::Builder,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use ws_routing::{
    Members, Node, NodeId,
    admin::{self, Admin, Readiness},
    app::{App, AppLeg, Opening},
    drain,
    frame::Decoder,
    membership::View,
    metrics::Metrics,
    proxy::{
        Connecting, LegStream, Network, Proxy, Settings, connect,
        handshake::{
            Handshake, LegHeaders, ResponseHead,
            body::{BodyEnd, Piece},
        },
    },
    session::{SendSettings, Sidecar, SidecarParts},
};

/// Nothing panics or hangs, and every answer is one.
pub fn stack(input: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let pod = Pod::start();
        let mut connections = JoinSet::new();
        for said in parts(input).take(8) {
            connections.spawn(say(pod.clone(), said.to_vec()));
            // Each is served before the next comes, as far as it goes by itself.
            sleep(Duration::from_millis(1)).await;
        }
        // Who waits for a drain, and has said more than hyper reads by then, is seen to be gone only when that is over.
        let signal = pod.signal.clone();
        connections.spawn(async move {
            sleep(PATIENCE).await;
            signal.begin(Duration::from_secs(1));
            sleep(Duration::from_secs(2)).await;
            signal.close();
        });
        while let Some(ended) = connections.join_next().await {
            ended.expect("nothing panics");
        }
    });
}

/// Nothing of the sidecar's takes longer once a connection has ended: some seconds for what was said last.
const LONGEST: Duration = Duration::from_secs(150);

/// How long a client listens.
const PATIENCE: Duration = Duration::from_secs(100);

const CUT: &[u8] = b"\n--8<--\n";

fn parts(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if input.is_empty() {
            return None;
        }
        let at = input.windows(CUT.len()).position(|text| text == CUT);
        let (part, rest) = at.map_or((input, &[][..]), |at| (&input[..at], &input[at + CUT.len()..]));
        input = rest;
        Some(part)
    })
}

async fn say(pod: Pod, said: Vec<u8>) {
    let [port, said @ ..] = &said[..] else { return };
    let (near, far) = duplex(16 * 1024);
    let ended = timeout(LONGEST, async { tokio::join!(pod.serve(*port, far), client(near, said)) }).await;
    let ((), heard) = ended.unwrap_or_else(|_| panic!("{:?} hangs", show(said)));
    if said.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") && !heard.starts_with(b"HTTP/1.1 ") {
        return framed(&heard);
    }
    // An answer to HEAD tells the length of another.
    let first_only = said.windows(5).any(|word| word == b"HEAD ");
    answered(&heard, first_only);
}

/// Says it, and listens as long as it is told something. What is told for ever is heard for a while.
async fn client(io: DuplexStream, said: &[u8]) -> Vec<u8> {
    let (mut hears, mut says) = split(io);
    let mut heard = Vec::new();
    let talks = async {
        // Whoever is refused is not read to the end.
        drop(says.write_all(said).await);
        sleep(Duration::from_millis(300)).await;
        drop(says.shutdown().await);
    };
    let listens = timeout(PATIENCE, hears.read_to_end(&mut heard));
    drop(tokio::join!(talks, listens));
    heard
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// HTTP/2: whole frames.
fn framed(mut heard: &[u8]) {
    while !heard.is_empty() {
        assert!(heard.len() >= 9, "{heard:?} is no frame");
        let len = usize::from(heard[0]) << 16 | usize::from(heard[1]) << 8 | usize::from(heard[2]);
        assert!(heard.len() >= 9 + len, "a frame is cut off");
        heard = &heard[9 + len..];
    }
}

/// HTTP/1.1: answers, and behind a 101 frames of a server.
fn answered(mut heard: &[u8], first_only: bool) {
    while !heard.is_empty() {
        let parsed = ResponseHead::parse(heard).unwrap_or_else(|e| panic!("{e:?}: {:?}", show(heard)));
        let Some((head, len)) = parsed else { panic!("half a head: {:?}", show(heard)) };
        heard = &heard[len..];
        let status = head.parts.status.as_u16();
        if status == 101 {
            return frames(heard);
        }
        assert!(status == 100 || (200..600).contains(&status), "{status}");
        if first_only {
            return;
        }
        if status == 100 {
            continue;
        }
        let mut body = BodyEnd::new(head.framing().expect("framed"));
        while let Piece::Data(len) | Piece::Framing(len) = body.next(heard).expect("a body")
            && len > 0
        {
            heard = &heard[len..];
        }
    }
}

fn frames(mut heard: &[u8]) {
    let mut decoder = Decoder::new(false, true, 0);
    while let Some(unit) = decoder.next(heard).expect("frames of a server") {
        heard = &heard[unit.len..];
    }
}

/// The sidecar, what stands before it, and what stands behind it.
#[derive(Clone)]
struct Pod {
    sidecar: Sidecar,
    balancer: Proxy,
    admin: Admin,
    _running: Arc<JoinSet<()>>,
    signal: drain::Signal,
}

impl Pod {
    fn start() -> Self {
        let (metrics, sidecar_metrics) = Metrics::for_sidecar("fuzzed");
        let (signal, drain) = drain::channel();
        let node = NodeId::from(ADDR);
        let view = View::fixed(Members::new([Node::new(node.clone())], 0));
        let settings = Settings { stall_timeout: Duration::from_secs(5), ..Settings::default() };
        let parts = SidecarParts {
            node,
            app: Arc::new(Deaf),
            view: view.clone(),
            drain: drain.clone(),
            metrics: metrics.clone(),
            sidecar_metrics,
            tokens: None,
            sends: SendSettings::default(),
            route_field: None,
            settings: settings.clone(),
            limits: Default::default(),
        };
        let sidecar = Sidecar::new(parts, |builder| builder);
        let network = Arc::new(Within(sidecar.clone()));
        let balancer = Proxy::builder(view.clone()).network(network).relay(settings).build();
        let routes = admin::standard(Readiness::new(drain.clone()), metrics, view)
            .merge(admin::drain(signal.clone(), drain.clone(), Duration::from_secs(5)))
            .merge(admin::wait_empty(drain, Duration::from_secs(5)))
            .merge(admin::connections(balancer.clone()));
        let admin = Admin::new(routes, CancellationToken::new());
        let mut running = JoinSet::new();
        let (runs, moves) = (sidecar.clone(), balancer.clone());
        running.spawn(async move { runs.run().await });
        running.spawn(async move { moves.run().await });
        Self { sidecar, balancer, admin, _running: Arc::new(running), signal }
    }

    async fn serve(&self, port: u8, io: DuplexStream) {
        match port % 4 {
            0 => self.sidecar.serve(io, ADDR).await,
            1 => self.sidecar.api().serve(io, ADDR).await,
            2 => self.balancer.serve(io, ADDR).await,
            _ => self.admin.connection(io, ADDR).await,
        }
    }
}

const ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7400);

/// The way from the balancer to the sidecar.
#[derive(Debug)]
struct Within(Sidecar);

impl Network for Within {
    fn connect<'a>(&'a self, _: &'a NodeId, _: Duration) -> Connecting<'a> {
        let (near, far) = duplex(16 * 1024);
        let sidecar = self.0.clone();
        tokio::spawn(async move { sidecar.serve(far, ADDR).await });
        Box::pin(async move { Ok(LegStream::Local(near)) })
    }
}

/// An app that accepts everybody, and hears nothing.
#[derive(Debug)]
struct Deaf;

impl App for Deaf {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a> {
        Box::pin(async move {
            let (near, mut far) = duplex(16 * 1024);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-accept: {}\r\n\r\n",
                handshake.accept()
            );
            tokio::spawn(async move {
                if far.write_all(answer.as_bytes()).await.is_ok() {
                    let mut nowhere = [0; 4096];
                    while far.read(&mut nowhere).await.is_ok_and(|n| n > 0) {}
                }
            });
            let head = handshake.to_app(leg, "");
            let io = LegStream::Local(near);
            let opened = connect::open(io, &head, handshake, Duration::from_secs(5)).await?;
            Ok(AppLeg { opened, far: None })
        })
    }
}
