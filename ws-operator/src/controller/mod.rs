//! Keeps what each namespace has at what its workloads ask for.

mod apply;
mod watches;

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::{Settings, members::Rings, names, world::World};

/// How long changes are gathered: a label and the pods that follow it are one round.
const GATHER: Duration = Duration::from_millis(200);

/// How often everything is looked at, changed or not: for tokens whose time has come, and what no watch told.
const ROUND: Duration = Duration::from_secs(60);

/// How long a namespace in which something failed is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// Watches the cluster, for the members that `rings` serve; and writes, as the only one of all replicas that does.
pub(crate) struct Controller {
    client: Client,
    settings: Settings,
    rings: Rings,
    recorder: Recorder,
}

impl Controller {
    pub(crate) fn new(client: Client, settings: Settings, rings: Rings) -> Self {
        let reporter = Reporter { controller: names::OPERATOR.into(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, settings, rings, recorder }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(self) {
        let mut world = World::default();
        let mut dirty: BTreeSet<String> = BTreeSet::new();
        let mut due: Option<Instant> = None;
        let mut round = interval_at(Instant::now() + ROUND, ROUND);
        let mut told = watches::all(&self.client, &self.rings);
        loop {
            tokio::select! {
                change = told.next() => {
                    let Some(change) = change else { return };
                    dirty.extend(change(&mut world));
                }
                _ = round.tick() => dirty.extend(world.namespaces()),
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    dirty = self.round(&world, std::mem::take(&mut dirty)).await;
                    due = (!dirty.is_empty()).then(|| Instant::now() + RETRY);
                }
            }
            if due.is_none() && !dirty.is_empty() && world.is_whole() {
                due = Some(Instant::now() + GATHER);
            }
        }
    }

    /// Brings those namespaces to what they should be; those in which something failed are left over.
    async fn round(&self, world: &World, dirty: BTreeSet<String>) -> BTreeSet<String> {
        let mut failed = BTreeSet::new();
        for namespace in dirty {
            let plans = world.plans(&namespace);
            if let Err(error) = self.reconcile(&namespace, &plans).await {
                tracing::warn!(namespace, %error, "cannot bring the namespace to what it should be, trying again");
                failed.insert(namespace);
            }
        }
        failed
    }
}
