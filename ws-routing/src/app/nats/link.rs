//! The connection to the server: one for all clients, made again by itself.

use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectOptions, Event, Message, RequestErrorKind, Subscriber};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::events::Request;
use crate::{
    app::{AppError, NatsUrl},
    node::NodeId,
    proxy::connect::{DialError, OpenError},
};

/// A server, and whether it is there.
pub(super) struct Link {
    client: Client,
    /// Since when it is away.
    away: watch::Receiver<Option<Instant>>,
}

/// How many messages may wait between the server and a client's own, bounded queue.
const BURST: usize = 8192;

/// The server is asked whether it is alive; when it misses two of these it is away.
const PING: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to reach the server.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Link {
    /// Does not wait for the server.
    pub(super) async fn new(url: &NatsUrl, node: &NodeId, dial: Duration) -> Result<Self, ConnectError> {
        let (told, away) = watch::channel(Some(Instant::now()));
        let client = ConnectOptions::new()
            .name(format!("ws-proxy {node}"))
            .retry_on_initial_connect()
            .connection_timeout(dial)
            .ping_interval(PING)
            .subscription_capacity(BURST)
            .reconnect_delay_callback(|attempt| {
                let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
                Duration::from_millis(10).saturating_mul(attempt).min(LONGEST_PAUSE)
            })
            .event_callback(move |event| {
                note(&told, &event);
                std::future::ready(())
            })
            .connect(format!("nats://{}", url.authority))
            .await?;
        Ok(Self { client, away })
    }

    /// Completes when the server is there.
    pub(super) async fn is_there(&self) {
        self.until(|away| away.is_none()).await;
    }

    /// Completes when the server has been away for `patience`.
    pub(super) async fn is_lost(&self, patience: Duration) {
        loop {
            self.until(|away| away.is_some()).await;
            let since = *self.away.borrow();
            let Some(since) = since else { continue };
            tokio::select! {
                () = sleep_until(since + patience) => return,
                () = self.is_there() => {}
            }
        }
    }

    /// Sends a request once the server is there, and takes the answer, all within `limit`.
    ///
    /// Fails at once when the server goes away meanwhile: the answer would not come.
    pub(super) async fn ask(&self, request: Request, limit: Duration) -> Result<Message, AppError> {
        let asked = async {
            self.is_there().await;
            let Request { subject, headers, payload } = request;
            let request = async_nats::Request::new().headers(headers).payload(payload).timeout(None);
            tokio::select! {
                answer = self.client.send_request(subject, request) => answer.map_err(|error| match error.kind() {
                    RequestErrorKind::NoResponders => DialError::from(refused()).into(),
                    _ => OpenError::TimedOut.into(),
                }),
                () = self.until(|away| away.is_some()) => Err(DialError::from(refused()).into()),
            }
        };
        timeout(limit, asked).await.unwrap_or(Err(OpenError::TimedOut.into()))
    }

    /// Hands something to the server; whether that was possible within `limit`.
    pub(super) async fn tell(&self, request: Request, limit: Duration) -> bool {
        let told = async {
            self.is_there().await;
            let Request { subject, headers, payload } = request;
            self.client.publish_with_headers(subject, headers, payload).await.is_ok()
                && self.client.flush().await.is_ok()
        };
        timeout(limit, told).await.unwrap_or(false)
    }

    pub(super) async fn subscribe(&self, subject: String) -> Option<Subscriber> {
        self.client.subscribe(subject).await.ok()
    }

    /// The most bytes of headers and payload together that the server takes.
    pub(super) fn most(&self) -> usize {
        self.client.max_payload()
    }

    async fn until(&self, holds: impl Fn(&Option<Instant>) -> bool) {
        // The sender lives as long as the client.
        if self.away.clone().wait_for(|away| holds(away)).await.is_err() {
            std::future::pending().await
        }
    }
}

fn note(told: &watch::Sender<Option<Instant>>, event: &Event) {
    match event {
        Event::Connected => {
            told.send_replace(None);
        }
        Event::Disconnected | Event::Closed => {
            told.send_if_modified(|away| away.is_none() && away.replace(Instant::now()).is_none());
        }
        Event::SlowConsumer(_) => {
            tracing::warn!("messages that were pushed to a client are lost: too many at once")
        }
        other => tracing::debug!(event = %other, "NATS"),
    }
}

fn refused() -> std::io::Error {
    std::io::ErrorKind::ConnectionRefused.into()
}
