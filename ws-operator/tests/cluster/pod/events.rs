//! What an application has seen, as lines from its pod to the clients'.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, BufWriter},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::support::log::{AppEntry, AppEvent, Logs};

/// Sends what comes through `entries` to `collector`, for ever. What one that went away has not heard is not told to
/// the next: it asks about other clients.
pub async fn tell(collector: String, mut entries: mpsc::UnboundedReceiver<AppEntry>) {
    let epoch = Epoch::now();
    loop {
        let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(&collector)).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut out = BufWriter::new(stream);
        while let Some(entry) = entries.recv().await {
            let written = out.write_all(line(&entry, epoch).as_bytes()).await;
            let flushed = if entries.is_empty() { out.flush().await } else { Ok(()) };
            if written.and(flushed).is_err() {
                break;
            }
        }
    }
}

/// Takes what applications tell, of clients for which `wanted` is true, into `logs`, for ever.
pub async fn hear(listener: TcpListener, logs: Arc<Logs>, wanted: fn(u32) -> bool) {
    let epoch = Epoch::now();
    let mut pods = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let logs = logs.clone();
        pods.spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match read(&line, epoch) {
                    Some(entry) if wanted(entry.client) => logs.take(entry),
                    // The last line of a pod that died may be torn.
                    Some(_) | None => {}
                }
            }
        });
    }
}

/// A moment on two clocks: pods share the machine's, or one that is as good.
#[derive(Clone, Copy)]
struct Epoch {
    wall: Duration,
    monotonic: Instant,
}

impl Epoch {
    fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self { wall, monotonic: Instant::now() }
    }

    fn wall(self, at: Instant) -> u128 {
        (self.wall + at.saturating_duration_since(self.monotonic)).as_nanos()
    }

    fn monotonic(self, nanos: u64) -> Instant {
        let wall = Duration::from_nanos(nanos);
        match wall.checked_sub(self.wall) {
            Some(later) => self.monotonic + later,
            None => self.monotonic.checked_sub(self.wall - wall).unwrap_or(self.monotonic),
        }
    }
}

fn line(entry: &AppEntry, epoch: Epoch) -> String {
    let (kind, n) = match entry.event {
        AppEvent::Opened { redelivered } => ('O', redelivered),
        AppEvent::Got(n) => ('G', n),
        AppEvent::Said(n) => ('S', n),
        AppEvent::Ended(code) => ('E', code.map_or(0, u64::from)),
    };
    let AppEntry { at, pod, client, leg, .. } = entry;
    format!("{} {pod} {client} {leg} {kind} {n} .\n", epoch.wall(*at))
}

fn read(line: &str, epoch: Epoch) -> Option<AppEntry> {
    let words: Vec<&str> = line.split(' ').collect();
    let [at, pod, client, leg, kind, n, "."] = words[..] else { return None };
    let n: u64 = n.parse().ok()?;
    let event = match kind {
        "O" => AppEvent::Opened { redelivered: n },
        "G" => AppEvent::Got(n),
        "S" => AppEvent::Said(n),
        "E" => AppEvent::Ended(u16::try_from(n).ok().filter(|code| *code > 0)),
        _ => return None,
    };
    Some(AppEntry {
        at: epoch.monotonic(at.parse().ok()?),
        pod: pod.into(),
        client: client.parse().ok()?,
        leg: leg.parse().ok()?,
        event,
    })
}
