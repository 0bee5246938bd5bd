//! The chat application: an ordinary WebSocket server. It keeps its rooms in memory and knows nothing of other pods,
//! because everybody in a room (the routing key) is connected to the pod that owns it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use examples::pod;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

/// How many lines may wait for one member of a room before it is taken for gone.
const WAITING: usize = 64;

type Rooms = Arc<Mutex<HashMap<String, Vec<mpsc::Sender<String>>>>>;

/// One pod: this app beside its sidecar.
pub(crate) async fn run(args: pod::Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind((args.ip, pod::APP)).await?;
    let url = format!("ws://{}", listener.local_addr()?);
    pod::run(&args, &url, serve(listener, args.node()), &[]).await
}

/// Accepts connections for as long as it is polled. `pod` is what it says of itself in every answer.
async fn serve(listener: TcpListener, pod: String) -> anyhow::Result<()> {
    let (rooms, pod) = (Rooms::default(), Arc::<str>::from(pod));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, rooms.clone(), pod.clone()));
    }
    Ok(())
}

async fn connection(stream: TcpStream, rooms: Rooms, pod: Arc<str>) {
    // The answers are small: without this each would wait for the last one's acknowledgement.
    drop(stream.set_nodelay(true));
    let (mut room, mut name) = (String::new(), "somebody".to_owned());
    #[allow(clippy::result_large_err)] // the library's signature
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let key = request.headers().get("ws-routing-key").and_then(|key| key.to_str().ok());
        room = key.unwrap_or_default().to_owned();
        name = query(request, "name").unwrap_or(name.clone());
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
    let mut lines = enter(&rooms, &room);
    loop {
        let answer = tokio::select! {
            Some(line) = lines.recv() => Some(line),
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => hear(&text, &rooms, &room, &name, &pod),
                Some(Ok(_)) => None,
                Some(Err(_)) | None => return,
            },
        };
        if let Some(answer) = answer
            && socket.send(Message::text(answer)).await.is_err()
        {
            return;
        }
    }
}

/// A line with a text goes to everybody in the room; one without is answered to its sender alone.
fn hear(message: &str, rooms: &Rooms, room: &str, name: &str, pod: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let Some(text) = message.get("text") else {
        return Some(json!({ "n": message["n"], "pod": pod }).to_string());
    };
    let line = json!({ "n": message["n"], "pod": pod, "from": name, "text": text }).to_string();
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    rooms.entry(room.to_owned()).or_default().retain(|member| member.try_send(line.clone()).is_ok());
    None
}

fn enter(rooms: &Rooms, room: &str) -> mpsc::Receiver<String> {
    let (member, lines) = mpsc::channel(WAITING);
    let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
    let members = rooms.entry(room.to_owned()).or_default();
    members.retain(|member| !member.is_closed());
    members.push(member);
    lines
}

fn query(request: &Request, wanted: &str) -> Option<String> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value).next()?;
    // The page allows letters and digits only, so nothing needs decoding.
    Some(value.chars().filter(|c| c.is_alphanumeric()).take(20).collect())
}
