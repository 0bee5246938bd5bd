//! An application that echoes, and tells a client that breaks the protocol so before it closes.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// A running application; dropping it ends it.
pub struct Echo(AbortHandle);

impl Echo {
    pub async fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|e| panic!("{addr}: {e}"));
        let task = async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => drop(connections.spawn(serve(stream))),
                    Some(ended) = connections.join_next() => ended.unwrap(),
                }
            }
        };
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(message) = socket.next().await {
        let sent = match message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await,
            Ok(_) => Ok(()),
            Err(error) => return refuse(socket, &error).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn refuse(mut socket: WebSocketStream<TcpStream>, error: &Error) {
    let code = match error {
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Capacity(_) => CloseCode::Size,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return,
    };
    drop(socket.close(Some(CloseFrame { code, reason: "".into() })).await);
    // What is closed with bytes unread is reset, and the Close may be lost with it.
    let mut rest = Vec::new();
    drop(timeout(Duration::from_secs(1), socket.get_mut().read_to_end(&mut rest)).await);
}
