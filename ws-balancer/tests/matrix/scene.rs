//! Runs one case: starts everything, puts it under load, lets the fault happen, and judges.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    cases::{Case, Permits},
    report::{Row, show_code},
    support::{
        Cluster, answers,
        caller::{Caller, Doors},
        checker::{self, Verdict},
        client::{Driven, finish},
        eventually,
        lateness::Lateness,
        log::ClientEvent,
        range::API,
        wait::{millis, secs},
    },
};

/// How many clients there are, and how often each sends.
pub const CLIENTS: u32 = 100;
const PACE: Duration = millis(100);

/// Callers of the API.
const CALLERS: u32 = 4;

/// What was sent so long before a fault may still have been on its way.
const UNDER_WAY: Duration = secs(2);

/// Everything that runs while a fault happens.
pub struct Scene {
    pub cluster: Cluster,
    pub clients: Vec<Driven>,
    /// Where callers ask.
    doors: Doors,
    struck: Instant,
}

impl Scene {
    /// The fault strikes now: pauses count from here.
    pub fn strike(&mut self) {
        self.struck = Instant::now();
    }

    /// Every client that is still there sends `more` messages from now on.
    pub async fn flow(&self, more: u64) {
        let goals: Vec<u64> = self.clients.iter().map(|client| client.sent() + more).collect();
        let all = || self.clients.iter().zip(&goals);
        let reached = async || all().all(|(client, goal)| client.sent() >= *goal || client.is_over());
        eventually(secs(60), "messages flow", reached).await;
    }

    /// Every client that is still there is at its owner, and nowhere else.
    pub async fn settled(&self, within: Duration) {
        let there: Vec<u32> = self.clients.iter().filter(|c| !c.is_over()).map(|c| c.id).collect();
        self.cluster.settled(there.into_iter(), within).await;
    }

    /// The apps of these pods hold every client.
    pub async fn held_by(&self, hosts: &[u8]) {
        let held = async || {
            let held: BTreeSet<u32> = hosts.iter().flat_map(|h| self.cluster.app(*h).clients()).collect();
            (0..CLIENTS).all(|id| held.contains(&id))
        };
        eventually(secs(30), format!("{hosts:?} hold everybody"), held).await;
    }

    /// Callers ask at the sidecars of these pods from now on.
    pub fn ask_at(&self, hosts: &[u8]) {
        let doors = hosts.iter().map(|host| self.cluster.range.addr(*host, API));
        *self.doors.lock().unwrap() = doors.collect();
    }
}

/// Runs it. Panics only where the test itself cannot go on.
pub async fn run(case: &Case, redelivery: bool) -> Row {
    let setup = (case.setup)().balancer(if redelivery { &["--redelivery", "on"] } else { &[] });
    let hosts: Vec<u8> = (1..=setup.pods).collect();
    let cluster = setup.start().await;
    let lateness = Lateness::start();
    let connect = async |id| {
        let mut client = cluster.client(id).await;
        client.patience = secs(3);
        client.drive(PACE)
    };
    let clients: Vec<Driven> = stream::iter(0..CLIENTS).map(connect).buffered(16).collect().await;
    let mut scene = Scene { cluster, clients, doors: Arc::default(), struck: Instant::now() };
    scene.ask_at(&hosts);
    let callers: Vec<Caller> =
        (0..CALLERS).map(|id| Caller::start(id, &scene.doors, 0..CLIENTS, &scene.cluster.logs)).collect();
    scene.flow(10).await;
    scene.strike();
    let began = Instant::now();
    (case.fault)(&mut scene).await;
    let healed = Instant::now();
    scene.flow(10).await;
    let ended = Instant::now();
    for caller in callers {
        caller.finish().await;
    }
    finish(std::mem::take(&mut scene.clients)).await;
    let window = Window { began: began - UNDER_WAY, struck: scene.struck, healed, ended };
    let mut row = judge(&scene.cluster, case.permits, redelivery, &window);
    (row.name, row.redelivery, row.lateness) = (case.name, redelivery, lateness.longest());
    row.require(&case.permits);
    row
}

/// When it all happened.
struct Window {
    began: Instant,
    struck: Instant,
    healed: Instant,
    ended: Instant,
}

fn judge(cluster: &Cluster, permits: Permits, redelivery: bool, window: &Window) -> Row {
    let (clients, apps) = cluster.logs.read();
    let answers = answers::check(&clients, &cluster.logs.sends());
    let Verdict { sent, said, moves, up, down, losses, .. } = checker::check(&clients, &apps);
    let closes: BTreeMap<u32, Option<u16>> = clients
        .iter()
        .filter_map(|entry| match entry.event {
            ClientEvent::Closed(code) => Some((entry.client, code)),
            _ => None,
        })
        .collect();
    let mut closed: BTreeMap<String, usize> = BTreeMap::new();
    closes.values().for_each(|code| *closed.entry(show_code(*code)).or_default() += 1);
    let amid = |at: Instant| (window.began..window.healed).contains(&at);
    let stays = |client: u32| client < CLIENTS && !closes.contains_key(&client);
    let lost = |up: bool| losses.iter().filter(move |l| l.up == up && stays(l.client));
    let excused = |at: Instant, up: bool| permits.crash && amid(at) && !(up && redelivery);
    let told = |(client, at): &(u32, Instant)| stays(*client) && !(permits.crash && amid(*at));
    let unheard = answers.unheard.iter().filter(|send| told(send)).count();
    let silences = checker::silences(&apps, window.struck, window.ended);
    let mut pauses: Vec<Duration> =
        silences.iter().filter(|(id, _)| stays(**id)).map(|(_, d)| d.saturating_sub(PACE)).collect();
    pauses.sort();
    let codes = closes.values().filter(|code| !permits.closes.contains(code)).count();
    Row {
        sent: sent + said,
        moves,
        lost_up: lost(true).count(),
        lost_down: lost(false).count(),
        inexcusable: losses.iter().filter(|l| stays(l.client) && !excused(l.at, l.up)).count(),
        repeated: up.repeated + down.repeated,
        announced: up.announced,
        reordered: up.reordered + down.reordered,
        late: up.late,
        invented: up.invented + down.invented,
        wrong: answers.wrong() + unheard,
        closed,
        wrongly_closed: codes,
        pauses,
        answers,
        ..Row::default()
    }
}
