//! A client that notes all that it hears.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{client, eventually, wait::bounded, wait::secs};

pub struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
    leave: Arc<Notify>,
    task: JoinHandle<Option<(u16, String)>>,
}

impl Listener {
    pub async fn connect(addr: SocketAddr, key: &str) -> Self {
        Self::open(addr, ("ws-user-id", key)).await
    }

    /// Connects straight to a sidecar, as a balancer opens a leg.
    pub async fn as_leg(addr: SocketAddr, key: &str) -> Self {
        Self::open(addr, ("ws-routing-key", key)).await
    }

    async fn open(addr: SocketAddr, header: (&str, &str)) -> Self {
        let (socket, _) = client::open(addr, "/", &[header]).await.unwrap();
        let (heard, leave) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let task = tokio::spawn(listen(socket, heard.clone(), leave.clone()));
        Self { heard, leave, task }
    }

    /// Waits for `count` messages, leaves, and gives all that was heard until the end.
    pub async fn heard(self, count: usize) -> Vec<String> {
        let heard = self.heard.clone();
        eventually(secs(20), format!("{count} messages"), async || heard.lock().unwrap().len() >= count)
            .await;
        self.leave.notify_one();
        bounded(secs(10), "the end of a client", self.task).await.unwrap();
        std::mem::take(&mut *heard.lock().unwrap())
    }

    /// Waits for the end, and gives all that was heard and how it was closed.
    pub async fn end(self) -> (Vec<String>, Option<(u16, String)>) {
        let code = bounded(secs(10), "the end of a client", self.task).await.unwrap();
        (std::mem::take(&mut *self.heard.lock().unwrap()), code)
    }
}

async fn listen(
    mut socket: client::Socket,
    heard: Arc<Mutex<Vec<String>>>,
    leave: Arc<Notify>,
) -> Option<(u16, String)> {
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            () = leave.notified() => {
                drop(socket.close(None).await);
                continue;
            }
        };
        match message {
            Some(Ok(Message::Text(text))) => heard.lock().unwrap().push(text.to_string()),
            Some(Ok(Message::Binary(bytes))) => heard.lock().unwrap().push(format!("binary {}", bytes.len())),
            Some(Ok(Message::Close(frame))) => {
                let closed = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                drop(socket.flush().await);
                return closed;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}
