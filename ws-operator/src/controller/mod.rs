//! Keeps what each namespace has at what its workloads ask for, and says how it is.
//!
//! Every replica watches, so that the next leader knows the cluster already; only the leader writes, in [`Term`]s.

mod apply;
mod mend;
mod restart;
mod tell;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{Fuse, FusedFuture},
    stream::BoxStream,
};
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use tokio::time::{Instant, interval, interval_at, sleep_until};

use crate::{Settings, desired::Plan, lease::Leading, members::Rings, metrics::Metrics, names, world::World};
use apply::Report;
use tell::Told;
use watches::{Change, Changed, Watches};

/// How long changes are gathered: a label and the pods that follow it are one round.
const GATHER: Duration = Duration::from_millis(200);

/// How often everything is looked at, changed or not: for tokens whose time has come, and what no watch told.
const ROUND: Duration = Duration::from_secs(60);

/// How long a namespace in which something failed is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// How often it is said how everything is.
const TELL: Duration = Duration::from_secs(5);

/// Watches the cluster; and writes, while this replica leads.
pub(crate) struct Controller {
    client: Client,
    settings: Settings,
    rings: Rings,
    recorder: Recorder,
    metrics: Metrics,
}

impl Controller {
    pub(crate) fn new(client: Client, settings: Settings, rings: Rings, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: names::OPERATOR.into(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, settings, rings, recorder, metrics }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn run(self, mut leading: Leading) {
        let Self { client, settings, metrics, .. } = &self;
        let mut watches = Watches { client, settings, metrics }.all();
        let mut world = World::default();
        loop {
            tokio::select! {
                Some(change) = watches.next() => drop(change(&mut world)),
                () = leading.won() => {
                    let mut over = leading.clone();
                    let over = over.lost();
                    Term::new(&self).run(&mut world, &mut watches, over).await;
                }
            }
        }
    }

    /// Brings namespaces to what they should be; says how that went.
    async fn round(&self, jobs: Vec<Job>) -> Vec<(Job, Option<Report>)> {
        let mut done = Vec::new();
        for job in jobs {
            let Job { namespace, plans, mends } = &job;
            let outcome = self.reconcile(namespace, plans, *mends).await;
            self.metrics.reconciled(outcome.is_ok());
            if let Err(error) = &outcome {
                let error = format!("{error:#}");
                tracing::warn!(
                    namespace,
                    error,
                    "cannot bring the namespace to what it should be, trying again"
                );
            }
            done.push((job, outcome.ok()));
        }
        done
    }
}

/// A namespace that is to be looked at.
struct Job {
    namespace: String,
    plans: Vec<Plan>,
    /// Whether its workloads are looked through for templates that are not told what they should be.
    mends: bool,
}

/// The time in which this replica leads.
struct Term<'a> {
    controller: &'a Controller,
    dirty: BTreeSet<String>,
    /// When the dirty namespaces are looked at.
    due: Option<Instant>,
    /// Namespaces in which something failed, and when they are looked at again.
    failed: BTreeSet<String>,
    retry: Option<Instant>,
    /// Those of the dirty ones that are looked at even if they ask for nothing new.
    made: BTreeSet<String>,
    /// Namespaces whose workloads are looked through the next time.
    mends: BTreeSet<String>,
    /// What was asked for, and brought about, by namespace.
    done: BTreeMap<String, Vec<Plan>>,
    /// What was found, by namespace.
    reports: BTreeMap<String, Report>,
    told: Told,
}

impl<'a> Term<'a> {
    fn new(controller: &'a Controller) -> Self {
        Self {
            controller,
            dirty: BTreeSet::new(),
            due: None,
            failed: BTreeSet::new(),
            retry: None,
            made: BTreeSet::new(),
            mends: BTreeSet::new(),
            done: BTreeMap::new(),
            reports: BTreeMap::new(),
            told: Told::default(),
        }
    }

    /// Until it is over: then whatever is being written is let go at once.
    async fn run(
        mut self,
        world: &mut World,
        watches: &mut BoxStream<'static, Change>,
        over: impl Future<Output = ()>,
    ) {
        let (mut over, controller) = (pin!(over), self.controller);
        let (mut work, mut telling) = (pin!(Fuse::terminated()), pin!(Fuse::terminated()));
        let (mut round, mut tell) = (interval(ROUND), interval_at(Instant::now() + TELL, TELL));
        loop {
            tokio::select! {
                // Nothing is begun when it is over.
                biased;
                () = &mut over => return,
                done = &mut work, if !work.is_terminated() => self.take(done),
                told = &mut telling, if !telling.is_terminated() => self.told.done(told),
                _ = round.tick() => self.look_at_all(world),
                () = until(self.retry), if self.retry.is_some() => self.look_at_failed(),
                _ = tell.tick(), if telling.is_terminated() && world.is_whole() => {
                    let now = self.told.look(world, &self.reports, &controller.rings);
                    telling.set(controller.tell(now).fuse());
                }
                () = until(self.due), if self.due.is_some() && work.is_terminated() => {
                    work.set(controller.round(self.jobs(world)).fuse());
                }
                Some(change) = watches.next() => self.see(change(world)),
            }
            if self.due.is_none() && !self.dirty.is_empty() && world.is_whole() {
                self.due = Some(Instant::now() + GATHER);
            }
        }
    }

    fn see(&mut self, changed: Changed) {
        match changed {
            Changed::Asked(namespaces) => self.dirty.extend(namespaces),
            Changed::Made(namespaces) => {
                self.made.extend(namespaces.iter().cloned());
                self.dirty.extend(namespaces);
            }
        }
    }

    fn look_at_all(&mut self, world: &World) {
        let all = world.namespaces();
        self.mends.extend(all.iter().cloned());
        self.see(Changed::Made(all));
    }

    fn look_at_failed(&mut self) {
        self.retry = None;
        let failed = std::mem::take(&mut self.failed);
        self.mends.extend(failed.iter().cloned());
        self.see(Changed::Made(failed));
    }

    /// The dirty namespaces. A pod more or less asks for nothing new.
    fn jobs(&mut self, world: &World) -> Vec<Job> {
        self.due = None;
        let mut jobs = Vec::new();
        for namespace in std::mem::take(&mut self.dirty) {
            let plans = world.plans(&namespace);
            let mends = self.mends.remove(&namespace) || world.has_missed(&namespace);
            let done = self.done.get(&namespace).map(Vec::as_slice).unwrap_or_default();
            if self.made.remove(&namespace) || mends || done != plans {
                jobs.push(Job { namespace, plans, mends });
            }
        }
        jobs
    }

    /// Namespaces in which something failed are looked at again, a while later.
    fn take(&mut self, done: Vec<(Job, Option<Report>)>) {
        for (Job { namespace, plans, .. }, report) in done {
            let Some(report) = report else {
                self.failed.insert(namespace);
                self.retry = Some(Instant::now() + RETRY);
                continue;
            };
            if plans.is_empty() {
                self.done.remove(&namespace);
                self.reports.remove(&namespace);
                continue;
            }
            self.done.insert(namespace.clone(), plans);
            let had = self.reports.insert(namespace.clone(), report.clone()).unwrap_or_default();
            if had.taken != report.taken && !report.taken.is_empty() {
                let names: Vec<&String> = report.taken.iter().map(|(_, name)| name).collect();
                tracing::warn!(namespace, ?names, "somebody else has made these: they are left alone");
            }
        }
        let foreign = self.reports.values().map(|report| report.taken.len()).sum();
        self.controller.metrics.foreign(foreign);
    }
}

async fn until(due: Option<Instant>) {
    sleep_until(due.unwrap_or_else(Instant::now)).await;
}
