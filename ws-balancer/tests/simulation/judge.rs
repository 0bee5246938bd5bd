//! Whether a run was as the contract says.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::{
    schedule::{Excuse, Kind},
    support::{answers, checker, log::Logs, wait::secs},
};

/// What was so long before a fault may still have been on its way, and so long after it is not over yet: a node is
/// given up, and trusted again.
const BEFORE: Duration = secs(3);
const AFTER: Duration = secs(9);

/// What the contract does not permit.
pub fn judge(logs: &Logs, kind: Kind, redelivery: bool, excuses: &[Excuse]) -> (Vec<String>, String) {
    let (clients, apps) = logs.read();
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
    let late = if kind == Kind::Crashes { 0 } else { verdict.up.late };
    let wrongly =
        verdict.closed.iter().filter(|(_, code)| !(*code == Some(1011) && crowded(excuses))).count();
    let counts = [
        ("lost from clients", lost(true)),
        ("lost to clients", lost(false)),
        ("repeated unannounced", verdict.up.repeated + verdict.down.repeated),
        ("reordered", verdict.up.reordered + verdict.down.reordered),
        ("invented", verdict.up.invented + verdict.down.invented),
        ("late", late),
        ("closed", wrongly),
        ("wrong answers", answers.wrong()),
        ("told that it was written, but never heard", unheard),
        ("nothing sent", usize::from(verdict.sent == 0 || answers.statuses.get(&200).is_none())),
    ];
    let wrong = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
    (wrong, format!("{verdict}\n{answers}"))
}

/// Whether a message may have been lost twice, or a client three times in 10 s.
fn crowded(excuses: &[Excuse]) -> bool {
    excuses.windows(2).any(|pair| pair[1].from < pair[0].until + secs(10))
}
