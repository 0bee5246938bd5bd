//! An application behind NATS that keeps what it was asked, and answers as the test says.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;

/// What the application was told.
#[derive(Clone, Debug)]
pub struct Event {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Vec<u8>,
}

impl Event {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.as_str())
    }

    /// `connect`, `message` or `disconnect`.
    pub fn kind(&self) -> &str {
        self.header("ce-type").strip_prefix("ws.routing.").unwrap_or_default()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// What it answers: headers and payload; `None`: nothing.
pub type Answer = Option<(HeaderMap, Vec<u8>)>;

pub struct NatsApp {
    pub client: Client,
    seen: Arc<Mutex<Vec<Event>>>,
    _tasks: JoinSet<()>,
}

impl NatsApp {
    /// Takes part in `chat` at `server`.
    pub async fn start(server: SocketAddr, answer: impl Fn(&Event) -> Answer + Send + 'static) -> Self {
        let client = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(20))
            .connect(format!("nats://{server}"))
            .await
            .unwrap();
        let mut events = client.subscribe("chat.in.*").await.unwrap();
        // What comes back shows that the server knows of the subscription.
        let inbox = client.new_inbox();
        let mut ready = client.subscribe(inbox.clone()).await.unwrap();
        client.publish(inbox, "ready".into()).await.unwrap();
        ready.next().await.unwrap();
        let seen: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (mut tasks, says, sees) = (JoinSet::new(), client.clone(), Arc::clone(&seen));
        tasks.spawn(async move {
            while let Some(Message { subject, reply, headers, payload, .. }) = events.next().await {
                let headers = headers.unwrap_or_default();
                let event = Event { subject: subject.to_string(), headers, payload: payload.into() };
                sees.lock().unwrap().push(event.clone());
                if let (Some((headers, payload)), Some(reply)) = (answer(&event), reply) {
                    says.publish_with_headers(reply, headers, payload.into()).await.unwrap();
                }
            }
        });
        Self { client, seen, _tasks: tasks }
    }

    pub fn of(&self, kind: &str) -> Vec<Event> {
        self.seen.lock().unwrap().iter().filter(|event| event.kind() == kind).cloned().collect()
    }

    pub async fn push(&self, token: &str, text: impl Into<String>) {
        self.client.publish(format!("chat.out.{token}"), text.into().into()).await.unwrap();
        self.client.flush().await.unwrap();
    }
}

pub fn echo(event: &Event) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(value) = event.headers.get("content-type") {
        headers.insert("content-type", value.as_str());
    }
    Some((headers, if event.kind() == "message" { event.payload.clone() } else { Vec::new() }))
}

pub fn status(status: u16, payload: &str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("ws-status", status.to_string());
    Some((headers, payload.into()))
}
