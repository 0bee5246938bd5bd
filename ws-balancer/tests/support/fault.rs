//! A TCP proxy that misbehaves on command: stalls, delays, cuts, and closes one half.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What happens to bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each chunk comes later by this much.
    Delay(Duration),
    /// Nothing passes and nothing ends: a link that has died silently. New connections are accepted by nobody.
    Stall,
    /// Everything is reset, and so is every new connection.
    Cut,
    /// The side towards the target is closed for writing; answers still come.
    HalfClose,
}

/// Stands at `addr` in front of a target.
///
/// Where that is a sidecar, the calls of its peers (HTTP/2) can be treated apart from legs and probes.
pub struct Fault {
    pub addr: SocketAddr,
    legs: watch::Sender<Mode>,
    peers: watch::Sender<Mode>,
    resets: watch::Sender<()>,
    unheard: watch::Sender<Option<String>>,
    task: tokio::task::AbortHandle,
}

impl Fault {
    pub async fn start(addr: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let ((legs, of_legs), (peers, of_peers)) = (watch::channel(Mode::Pass), watch::channel(Mode::Pass));
        let (resets, unheard) = (watch::Sender::new(()), watch::Sender::new(None));
        let modes = Modes { legs: of_legs, peers: of_peers, unheard: unheard.subscribe() };
        let task = tokio::spawn(accept(listener, target, modes, resets.clone())).abort_handle();
        Self { addr, legs, peers, resets, unheard, task }
    }

    /// Changes what happens from now on, to living connections too.
    pub fn set(&self, mode: Mode) {
        self.legs.send_replace(mode);
        self.peers.send_replace(mode);
    }

    /// The same for the calls of peers alone.
    pub fn set_peers(&self, mode: Mode) {
        self.peers.send_replace(mode);
    }

    /// New connections whose first bytes hold this text are accepted, and nothing of them passes: the target is dead for
    /// some, and well for others.
    pub fn leave_unheard(&self, mark: Option<String>) {
        self.unheard.send_replace(mark);
    }

    /// Resets every living connection, once. New ones pass.
    pub fn reset(&self) {
        self.resets.send_replace(());
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Modes {
    legs: watch::Receiver<Mode>,
    peers: watch::Receiver<Mode>,
    unheard: watch::Receiver<Option<String>>,
}

impl Modes {
    /// What holds for a connection, by its first bytes; `None`: nothing of it passes, and now it ends.
    async fn of(mut self, client: &TcpStream) -> Option<watch::Receiver<Mode>> {
        // A head is written at once.
        let mut first = [0; 4096];
        let read = loop {
            match client.peek(&mut first).await {
                Ok(1 | 2) => tokio::time::sleep(Duration::from_millis(1)).await,
                read => break read.unwrap_or(0),
            }
        };
        let text = String::from_utf8_lossy(&first[..read]).into_owned();
        let heard = |mark: &Option<String>| mark.as_ref().is_none_or(|mark| !text.contains(mark.as_str()));
        if !heard(&self.unheard.borrow()) {
            drop(self.unheard.wait_for(heard).await);
            return None;
        }
        Some(if text.starts_with("PRI") { self.peers } else { self.legs })
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, mut modes: Modes, resets: watch::Sender<()>) {
    let mut connections = JoinSet::new();
    loop {
        let passable = modes.legs.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| *mode);
        let Ok(mode) = passable else { return };
        let Ok((client, _)) = listener.accept().await else { return };
        if mode == Mode::Cut {
            drop(client.set_zero_linger());
            continue;
        }
        let (modes, resets) = (modes.clone(), resets.subscribe());
        connections.spawn(async move {
            let Some(mut modes) = modes.of(&client).await else { return };
            let passable = modes.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| *mode);
            if passable.is_ok_and(|mode| mode == Mode::Cut) {
                return drop(client.set_zero_linger());
            }
            if let Ok(server) = TcpStream::connect(target).await {
                connect(client, server, modes, resets).await;
            }
        });
    }
}

async fn connect(
    mut client: TcpStream,
    mut server: TcpStream,
    mut modes: watch::Receiver<Mode>,
    mut resets: watch::Receiver<()>,
) {
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
    }
    let cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, modes.clone(), true);
        let down = pump(from_server, to_client, modes.clone(), false);
        tokio::select! {
            _ = async { tokio::join!(up, down) } => false,
            _ = modes.wait_for(|mode| *mode == Mode::Cut) => true,
            _ = resets.changed() => true,
        }
    };
    if cut {
        drop((client.set_zero_linger(), server.set_zero_linger()));
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    towards_target: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut ends = modes.clone();
        let half_closed = async {
            match towards_target {
                true => drop(ends.wait_for(|mode| *mode == Mode::HalfClose).await),
                false => std::future::pending().await,
            }
        };
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            () = half_closed => 0,
        };
        let Ok(mode) = modes.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| *mode) else { return };
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            drop(to.shutdown().await);
            return;
        }
    }
}
