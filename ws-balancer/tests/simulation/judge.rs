//! Whether a run was as the contract says.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::{
    OWN,
    schedule::{Excuse, Kind},
    support::{
        answers, checker,
        log::{AppEntry, AppEvent, ClientEntry, ClientEvent, Logs},
        wait::secs,
    },
};

/// What was so long before a fault may still have been on its way, and so long after it is not over yet: a node is
/// given up, and trusted again.
const BEFORE: Duration = secs(3);
const AFTER: Duration = secs(9);

/// What the contract does not permit.
pub fn judge(logs: &Logs, kind: Kind, redelivery: bool, excuses: &[Excuse]) -> (Vec<String>, String) {
    let (clients, mut apps) = logs.read();
    let taken = taken_over(&clients, &apps);
    apps.retain(|entry| taken.contains(&entry.leg));
    let verdict = checker::check(&clients, &apps);
    let answers = answers::check(&clients, &logs.sends());
    let closed: BTreeSet<u32> = verdict.closed.iter().map(|(client, _)| *client).collect();
    let amid = |at: Instant| excuses.iter().any(|e| (e.from - BEFORE..e.until + AFTER).contains(&at));
    let stays = |client: u32| !closed.contains(&client);
    let lost = |up: bool| {
        let excused = move |at| amid(at) && !(up && redelivery);
        verdict.losses.iter().filter(|l| l.up == up && stays(l.client) && !excused(l.at)).count()
    };
    let unheard = answers.unheard.iter().filter(|(client, at)| stays(*client) && !amid(*at)).count();
    let late = if kind == Kind::Graceful { verdict.up.late } else { 0 };
    let permitted = |client: u32, code: Option<u16>| match code {
        Some(1011) => crowded(excuses),
        Some(1012) | None if OWN.contains(&client) => true,
        Some(1012 | 1013) => kind == Kind::Wild,
        _ => false,
    };
    let wrongly = verdict.closed.iter().filter(|(client, code)| !permitted(*client, *code)).count();
    let counts = [
        ("lost from clients", lost(true)),
        ("lost to clients", lost(false)),
        ("repeated unannounced", verdict.up.repeated + verdict.down.repeated),
        ("reordered", verdict.up.reordered + verdict.down.reordered),
        ("invented", verdict.up.invented + verdict.down.invented),
        ("late", late),
        ("closed without reason", wrongly),
        ("wrong answers", answers.wrong()),
        ("told that it was written, but never heard", unheard),
        ("nothing sent", usize::from(verdict.sent == 0 || !answers.statuses.contains_key(&200))),
    ];
    let wrong = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    (wrong, format!("{verdict}\n{answers}"))
}

/// The legs that ever took over. What an app says on one whose move was given up is nobody's.
fn taken_over(clients: &[ClientEntry], apps: &[AppEntry]) -> BTreeSet<u64> {
    let got = apps.iter().filter(|e| matches!(e.event, AppEvent::Got(_))).map(|entry| entry.leg);
    let heard = clients.iter().filter_map(|entry| match entry.event {
        ClientEvent::Got { leg, .. } => Some(leg),
        _ => None,
    });
    got.chain(heard).collect()
}

/// All that clients and apps saw, in the order of its time.
pub fn timeline(logs: &Logs) -> String {
    let (clients, apps) = logs.read();
    let mut lines: Vec<(Instant, String)> =
        clients.iter().map(|e| (e.at, format!("client {}: {:?}", e.client, e.event))).collect();
    let tell = |e: &AppEntry| format!("client {}, leg {} at {}: {:?}", e.client, e.leg, e.pod, e.event);
    lines.extend(apps.iter().map(|e| (e.at, tell(e))));
    lines.sort_by_key(|(at, _)| *at);
    let began = lines.first().map(|(at, _)| *at);
    let line = |(at, what): &(Instant, String)| {
        format!("{:8.3} s  {what}\n", began.map_or(0.0, |began| (*at - began).as_secs_f64()))
    };
    lines.iter().map(line).collect()
}

/// Whether a message may have been lost twice, or a client three times in 10 s.
fn crowded(excuses: &[Excuse]) -> bool {
    excuses.windows(2).any(|pair| pair[1].from < pair[0].until + secs(10))
}
