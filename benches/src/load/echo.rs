//! Round trips: every connection sends a message, waits for its echo, and sends the next.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Client;

/// Connected clients.
#[derive(Debug)]
pub struct Echo {
    clients: Vec<Client>,
}

/// What a round of messages took.
#[derive(Debug)]
pub struct Echoed {
    /// Round trips.
    pub messages: u64,
    /// From the first to the last.
    pub elapsed: Duration,
    /// Each round trip, in microseconds.
    pub latency: Histogram<u64>,
}

impl Echo {
    /// Connects `connections` clients, each with a key of its own, 64 at a time.
    ///
    /// # Errors
    ///
    /// When one of them is refused.
    pub async fn connect(addr: SocketAddr, connections: usize, size: usize) -> Result<Self> {
        let mut clients = Vec::with_capacity(connections);
        let keys: Vec<String> = (0..connections).map(|n| format!("client-{n}")).collect();
        for batch in keys.chunks(64) {
            clients.extend(try_join_all(batch.iter().map(|key| Client::connect(addr, key, size))).await?);
        }
        Ok(Self { clients })
    }

    /// `messages` round trips, shared by all clients. `rate`: so many a second in all, else as fast as they come back.
    ///
    /// # Errors
    ///
    /// When a client is closed, or something else than its message comes back.
    pub async fn run(&mut self, messages: u64, rate: Option<f64>) -> Result<Echoed> {
        let count = self.clients.len() as u64;
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for (n, client) in self.clients.drain(..).enumerate() {
            let share = messages / count + u64::from((n as u64) < messages % count);
            let pause = rate.map(|rate| Duration::from_secs_f64(count as f64 / rate));
            let offset = pause.map_or(Duration::ZERO, |pause| pause.mul_f64(n as f64 / count as f64));
            tasks.spawn(one(client, share, began + offset, pause));
        }
        let mut latency = Histogram::new(3)?;
        while let Some(done) = tasks.join_next().await {
            let (client, own) = done??;
            latency.add(own)?;
            self.clients.push(client);
        }
        Ok(Echoed { messages, elapsed: began.elapsed(), latency })
    }

    /// Closes all.
    ///
    /// # Errors
    ///
    /// When one was lost meanwhile.
    pub async fn close(self) -> Result<()> {
        try_join_all(self.clients.into_iter().map(Client::close)).await?;
        Ok(())
    }
}

/// The latency of a message that had to wait for the one before counts from when it was due.
async fn one(
    mut client: Client,
    messages: u64,
    start: Instant,
    pause: Option<Duration>,
) -> Result<(Client, Histogram<u64>)> {
    let mut latency = Histogram::new(3)?;
    let mut due = start;
    for _ in 0..messages {
        let began = match pause {
            Some(pause) => {
                sleep_until(due).await;
                let began = due;
                due += pause;
                began
            }
            None => Instant::now(),
        };
        client.echo().await?;
        latency.record(began.elapsed().as_micros() as u64)?;
    }
    Ok((client, latency))
}
