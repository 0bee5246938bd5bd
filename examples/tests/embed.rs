//! A balancer inside a hyper program routes, and moves a live connection when the members change.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{accept_async, connect_async, tungstenite::Message};

/// An app that answers every text with its own address.
async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(Message::text(addr.to_string())).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

struct Embed(Child);

impl Drop for Embed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(members: &Path) -> (Embed, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed"));
    command.args(["127.0.0.1:0".to_owned(), format!("file:{}", members.display())]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    (Embed(child), addr)
}

#[tokio::test]
async fn a_program_with_its_own_server_routes_and_moves() {
    let (old, new) = (app().await, app().await);
    let members = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("embed-{}", std::process::id()));
    fs::write(&members, format!("{old}\n")).unwrap();
    let (_embed, addr) = start(&members);
    let (mut socket, _) = connect_async(format!("ws://{addr}/ws/room?ws-user-id=ada")).await.unwrap();
    let mut ask = async || {
        socket.send(Message::text("who?")).await.unwrap();
        let answer = timeout(Duration::from_secs(5), socket.next()).await.unwrap().unwrap().unwrap();
        answer.into_text().unwrap().to_string()
    };
    assert_eq!(ask().await, old.to_string());
    fs::write(&members, format!("{new}\n")).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while ask().await != new.to_string() {
        assert!(Instant::now() < end, "it did not move");
        sleep(Duration::from_millis(20)).await;
    }
    fs::remove_file(&members).unwrap();
}
