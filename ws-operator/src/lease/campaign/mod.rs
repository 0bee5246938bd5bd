//! Taking the Lease, keeping it, and noticing in time that it cannot be kept.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{LEASE, Move, POLL, RENEW, Seen, Store, Stored, WRITE, evaluate};
use crate::metrics::Metrics;

/// Whether this replica writes, as it changes. Cloning is a reference count.
#[derive(Clone, Debug)]
pub(crate) struct Leading(watch::Receiver<bool>);

impl Leading {
    /// A replica that does not, and who says otherwise.
    pub(crate) fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    #[cfg(test)]
    fn is(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it does; forever, when nobody is left to say so.
    pub(crate) async fn won(&mut self) {
        self.until(true).await;
    }

    /// Waits until it does not.
    pub(crate) async fn lost(&mut self) {
        self.until(false).await;
    }

    async fn until(&mut self, leads: bool) {
        if self.0.wait_for(|now| *now == leads).await.is_err() && leads {
            std::future::pending::<()>().await;
        }
    }
}

/// How long the Lease may take to be given back at the end.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Campaigns until `stop`, then gives the Lease back. `leading` is true only while no other replica may lead.
pub(crate) async fn campaign(
    store: impl Store,
    me: String,
    leading: watch::Sender<bool>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut candidate = Candidate { store, me, leading, metrics, seen: None, transitions: 0 };
    let _ = stop.run_until_cancelled(candidate.run()).await;
    candidate.stand_down();
    let _ = tokio::time::timeout(GIVE_BACK, candidate.give_back()).await;
}

struct Candidate<S> {
    store: S,
    me: String,
    leading: watch::Sender<bool>,
    metrics: Metrics,
    seen: Option<Seen>,
    /// How often the holder was another, when it was seen last.
    transitions: i32,
}

impl<S: Store> Candidate<S> {
    async fn run(&mut self) {
        loop {
            if let Some(from) = self.try_once().await {
                self.keep(from).await;
                self.stand_down();
            }
            let (now, me) = (Instant::now(), &self.me);
            let next = match evaluate(now, self.seen.as_ref(), me) {
                // No later than when it may be taken.
                Move::Wait(end) => end.min(now + POLL),
                Move::Acquire | Move::Renew => now + POLL,
            };
            sleep_until(next).await;
        }
    }

    /// Looks, and takes the Lease if it is free; says from when on it is held then.
    async fn try_once(&mut self) -> Option<Instant> {
        let begun = Instant::now();
        match timeout_at(begun + WRITE, self.look_and_take()).await {
            Ok(Ok(true)) => Some(begun),
            Ok(Ok(false)) => None,
            Ok(Err(error)) => {
                self.report(&format!("{error:#}"));
                None
            }
            Err(_) => {
                self.report("no answer in time");
                None
            }
        }
    }

    async fn look_and_take(&mut self) -> anyhow::Result<bool> {
        let stored = self.store.read().await?;
        self.see(stored);
        match evaluate(Instant::now(), self.seen.as_ref(), &self.me) {
            Move::Acquire => {
                if self.seen.is_some() {
                    self.transitions = self.transitions.saturating_add(1);
                }
                self.write().await
            }
            Move::Renew => self.write().await,
            Move::Wait(_) => Ok(false),
        }
    }

    /// Remembers what is stored, and since when it is so.
    fn see(&mut self, stored: Option<Stored>) {
        let Some(Stored { holder, version: Some(version), lasts, transitions }) = stored else {
            self.seen = None;
            return;
        };
        self.transitions = transitions;
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            self.seen = Some(Seen { holder, version, lasts, since: Instant::now() });
        }
    }

    /// Says that this replica has it; false when another was first.
    async fn write(&mut self) -> anyhow::Result<bool> {
        let lease = Stored {
            holder: Some(self.me.clone()),
            version: self.seen.as_ref().map(|seen| seen.version.clone()),
            lasts: LEASE,
            transitions: self.transitions,
        };
        let version = self.store.write(lease).await?;
        let Some(version) = version else { return Ok(false) };
        let since = Instant::now();
        self.seen = Some(Seen { holder: Some(self.me.clone()), version, lasts: LEASE, since });
        Ok(true)
    }

    /// Leads, and renews; returns when the Lease is another's, or could not be renewed in time.
    async fn keep(&mut self, mut renewed: Instant) {
        self.leading.send_replace(true);
        self.metrics.leads(true);
        tracing::info!(me = self.me, "this replica leads now");
        let mut due = renewed + RENEW;
        loop {
            // Whatever hangs: nothing is written after this.
            let end = renewed + WRITE;
            if timeout_at(end, sleep_until(due)).await.is_err() {
                return;
            }
            let begun = Instant::now();
            match timeout_at(end, self.look_and_renew()).await {
                Ok(Ok(true)) => {
                    renewed = begun;
                    due = begun + RENEW;
                }
                Ok(Ok(false)) => return tracing::warn!("another replica has taken the lease"),
                Ok(Err(error)) => {
                    self.report(&format!("{error:#}"));
                    due = Instant::now() + POLL;
                }
                Err(_) => return self.report("not renewed in time"),
            }
        }
    }

    async fn look_and_renew(&mut self) -> anyhow::Result<bool> {
        let stored = self.store.read().await?;
        // Somebody who deletes it wants another vote.
        if stored.as_ref().and_then(|stored| stored.holder.as_ref()) != Some(&self.me) {
            return Ok(false);
        }
        self.see(stored);
        self.write().await
    }

    fn stand_down(&mut self) {
        if self.leading.send_replace(false) {
            self.metrics.leads(false);
            tracing::info!(me = self.me, "this replica leads no more");
        }
    }

    /// So that the next one need not wait.
    async fn give_back(&mut self) {
        let Some(seen) = self.seen.take().filter(|seen| seen.holder.as_ref() == Some(&self.me)) else {
            return;
        };
        let Self { transitions, .. } = *self;
        let free = Stored { holder: None, version: Some(seen.version), lasts: LEASE, transitions };
        if let Err(error) = self.store.write(free).await {
            self.report(&format!("{error:#}"));
        }
    }

    fn report(&self, error: &str) {
        self.metrics.failed("lease");
        tracing::warn!(error, "the lease cannot be read or written, trying again");
    }
}

#[cfg(test)]
mod tests;
