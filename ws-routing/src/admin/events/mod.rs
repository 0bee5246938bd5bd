//! What a proxy does, as it happens: server-sent events for a page that people look at.

mod state;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::routes::{Answer, Body, Problem, Routes};
use crate::proxy::{Move, MoveWatch, News, Proxy};

/// How many streams there may be at once.
const STREAMS: usize = 16;

/// How often the state is told.
const PERIOD: Duration = Duration::from_millis(500);

/// How long moves are gathered, so that a storm of them makes no storm of events.
const GATHER: Duration = Duration::from_millis(100);

/// `GET /v1/events`: `text/event-stream` until the reader leaves or `stop`.
///
/// Twice a second an event `state`: what the proxy holds, what it thinks of its nodes, and what it has counted. When
/// moves have ended, at most ten times a second, an event `moves`: `{"missed", "moves": [{"at", "connection", "key",
/// "from", "to", "reason", "result", "pause"}]}` with times in seconds, `pause` `null` where no message waited. Keys
/// are hashed unless the proxy logs them plainly.
///
/// Sixteen streams at once, 503 beyond. What is told is made when somebody takes it, and once for all: a slow reader
/// gets the latest state and is told how many moves it missed; without readers nothing is made or kept.
#[must_use]
pub fn events(proxy: Proxy, stop: CancellationToken) -> Routes {
    let slots = Arc::new(Semaphore::new(STREAMS));
    let state = Arc::new(Shared::default());
    Routes::new().get("/v1/events", move |_| {
        let slot = Arc::clone(&slots).try_acquire_owned();
        let (proxy, stop, state) = (proxy.clone(), stop.clone(), Arc::clone(&state));
        async move {
            let full =
                |_| Problem::new(503, "too-many-streams", format!("{STREAMS} readers are here already"));
            let stream = Stream {
                moves: proxy.watch_moves(),
                proxy,
                state,
                due: Instant::now(),
                gathered: Instant::now(),
                stop,
                _slot: slot.map_err(full)?,
            };
            Ok(stream.answer())
        }
    })
}

/// One reader's stream.
struct Stream {
    proxy: Proxy,
    moves: MoveWatch,
    state: Arc<Shared>,
    /// When the next state is told, and from when on the next moves are.
    due: Instant,
    gathered: Instant,
    stop: CancellationToken,
    _slot: OwnedSemaphorePermit,
}

impl Stream {
    fn answer(self) -> Answer {
        let frames = stream::unfold(self, |mut stream| async move {
            let event = stream.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(event)), stream))
        });
        let body: Body = StreamBody::new(frames).boxed_unsync();
        let mut answer = Answer::new(body);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    /// The next event. `None`: the process ends.
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = sleep_until(self.due) => {
                let now = Instant::now();
                self.due = now + PERIOD;
                Some(self.state.at(now, &self.proxy))
            }
            news = gather(self.gathered, &mut self.moves) => {
                self.gathered = Instant::now() + GATHER;
                Some(event("moves", &told(&news)))
            }
        }
    }
}

async fn gather(from: Instant, moves: &mut MoveWatch) -> News {
    sleep_until(from).await;
    moves.next().await
}

/// The latest state, made by the first reader to whom it is due.
#[derive(Default)]
struct Shared(Mutex<Option<(Instant, Bytes)>>);

impl Shared {
    fn at(&self, now: Instant, proxy: &Proxy) -> Bytes {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((made, event)) if now.saturating_duration_since(*made) < PERIOD / 2 => event.clone(),
            _ => latest.insert((now, event("state", &state::describe(proxy)))).1.clone(),
        }
    }
}

/// One line of data, as JSON has no line breaks of its own.
fn event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

fn told(news: &News) -> Value {
    let moves: Vec<Value> = news.moves.iter().map(one).collect();
    json!({"missed": news.missed, "moves": moves})
}

fn one(moved: &Move) -> Value {
    json!({
        "at": unix(moved.at),
        "connection": &*moved.connection,
        "key": moved.key,
        "from": moved.from.as_str(),
        "to": moved.to.as_str(),
        "reason": moved.reason.as_str(),
        "result": moved.result.as_str(),
        "pause": moved.pause.map(|pause| pause.as_secs_f64()),
    })
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
