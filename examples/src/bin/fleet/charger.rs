//! Chargers: they connect once, boot, send heartbeats, and do what they are told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet, time::interval};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const HEARTBEAT: Duration = Duration::from_millis(100);

/// Chargers of which each has a socket. They end with it.
pub(crate) struct Fleet {
    counted: Arc<Counted>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counted {
    closed: AtomicUsize,
    commands: AtomicUsize,
}

impl Fleet {
    /// Connects that many.
    pub(crate) async fn connect(central: SocketAddr, chargers: usize) -> anyhow::Result<Self> {
        let (counted, mut tasks) = (Arc::new(Counted::default()), JoinSet::new());
        for n in 0..chargers {
            let (socket, counted) = (open(central, &name(n)).await?, counted.clone());
            tasks.spawn(async move {
                charge(socket, &name(n), &counted).await;
                counted.closed.fetch_add(1, Ordering::Relaxed);
            });
        }
        Ok(Self { counted, _tasks: tasks })
    }

    /// Sockets that were closed.
    pub(crate) fn closed(&self) -> usize {
        self.counted.closed.load(Ordering::Relaxed)
    }

    /// Commands that chargers have got.
    pub(crate) fn commands(&self) -> usize {
        self.counted.commands.load(Ordering::Relaxed)
    }
}

/// The identity of a charger: its key.
pub(crate) fn name(n: usize) -> String {
    format!("CP-{n:03}")
}

async fn open(central: SocketAddr, name: &str) -> anyhow::Result<Socket> {
    let mut request = format!("ws://{central}/ocpp/{name}").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "ocpp1.6".parse()?);
    let (mut socket, answer) = connect_async(request).await?;
    let agreed = answer.headers().get("sec-websocket-protocol").context("no subprotocol was agreed")?;
    ensure!(agreed == "ocpp1.6", "{agreed:?} was agreed");
    let boot =
        json!([2, "boot", "BootNotification", {"chargePointVendor": "example", "chargePointModel": name}]);
    socket.send(Message::text(boot.to_string())).await?;
    Ok(socket)
}

/// Until its socket is closed.
async fn charge(mut socket: Socket, name: &str, counted: &Counted) {
    let (mut clock, mut beats) = (interval(HEARTBEAT), 0_u64);
    loop {
        let said = tokio::select! {
            _ = clock.tick() => {
                beats += 1;
                Some(json!([2, format!("beat-{beats}"), "Heartbeat", {}]))
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => obey(&text, name, counted),
                Some(Ok(_)) => None,
                Some(Err(_)) | None => return,
            },
        };
        if let Some(said) = said
            && socket.send(Message::text(said.to_string())).await.is_err()
        {
            return;
        }
    }
}

/// What it answers to a call; nothing to an answer.
fn obey(message: &str, name: &str, counted: &Counted) -> Option<Value> {
    let message: Value = serde_json::from_str(message).ok()?;
    (message[0] == 2).then(|| {
        counted.commands.fetch_add(1, Ordering::Relaxed);
        json!([3, message[1], {"status": "Accepted", "charger": name}])
    })
}
