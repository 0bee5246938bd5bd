//! The instruments themselves: the checker finds every fault that is sown into its logs, the second implementation
//! of the ownership function agrees with the recorded vectors, and clients, apps and the fault proxy do what they say
//! with nothing of ours between them.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use support::{
    App, Client, Logs, Raw, answers,
    app::{Answers, Manners},
    checker::{Faults, Verdict, check, silences, wrong_pod},
    client::finish,
    eventually,
    fault::{Fault, Mode},
    log::{AppEntry, AppEvent, ClientEntry, ClientEvent, SendEntry},
    owner,
    range::{APP, LISTEN, Range},
    raw,
    wait::{bounded, millis, secs},
};
use tokio::time::Instant;

/// Two clients, three messages each; client 1 moves from pod `a` (leg 1) to pod `b` (leg 2) before its last.
fn good() -> (Vec<ClientEntry>, Vec<AppEntry>) {
    let mut logs = Sown { at: Instant::now(), clients: Vec::new(), apps: Vec::new() };
    for (client, leg) in [(0, 0), (1, 1)] {
        logs.app(client, leg, AppEvent::Opened { redelivered: 0 });
        for n in 0..2 {
            logs.call(client, leg, n, n);
        }
    }
    logs.app(1, 2, AppEvent::Opened { redelivered: 0 });
    logs.call(0, 0, 2, 2);
    logs.call(1, 2, 2, 0);
    (logs.clients, logs.apps)
}

struct Sown {
    at: Instant,
    clients: Vec<ClientEntry>,
    apps: Vec<AppEntry>,
}

impl Sown {
    /// A message up and its answer down, a millisecond apart.
    fn call(&mut self, client: u32, leg: u64, n: u64, serial: u64) {
        self.client(client, ClientEvent::Sent(n));
        self.app(client, leg, AppEvent::Got(n));
        self.app(client, leg, AppEvent::Said(serial));
        self.client(client, ClientEvent::Got { leg, serial });
    }

    fn client(&mut self, client: u32, event: ClientEvent) {
        self.at += Duration::from_millis(1);
        self.clients.push(ClientEntry { at: self.at, client, event });
    }

    fn app(&mut self, client: u32, leg: u64, event: AppEvent) {
        self.at += Duration::from_millis(1);
        let pod: Arc<str> = if leg == 2 { "b" } else { "a" }.into();
        self.apps.push(AppEntry { at: self.at, pod, client, leg, event });
    }
}

fn after(change: impl FnOnce(&mut Vec<ClientEntry>, &mut Vec<AppEntry>)) -> Verdict {
    let (mut clients, mut apps) = good();
    change(&mut clients, &mut apps);
    check(&clients, &apps)
}

fn got(apps: &[AppEntry], client: u32, n: u64) -> usize {
    apps.iter().position(|e| e.client == client && e.event == AppEvent::Got(n)).unwrap()
}

fn heard(clients: &[ClientEntry], leg: u64, serial: u64) -> usize {
    clients.iter().position(|e| e.event == ClientEvent::Got { leg, serial }).unwrap()
}

#[test]
fn good_logs_are_clean() {
    let verdict = after(|_, _| {});
    verdict.assert_clean();
    assert_eq!((verdict.clients, verdict.sent, verdict.said, verdict.moves), (2, 6, 6, 1));
    assert_eq!(verdict.pause, Duration::from_millis(1));
}

#[test]
fn a_message_that_no_app_saw_is_lost() {
    let verdict = after(|_, apps| _ = apps.remove(got(apps, 1, 1)));
    assert_eq!(verdict.up, Faults { lost: 1, ..Faults::default() });
}

#[test]
fn a_word_that_no_client_saw_is_lost() {
    let verdict = after(|clients, _| _ = clients.remove(heard(clients, 1, 1)));
    assert_eq!(verdict.down, Faults { lost: 1, ..Faults::default() });
}

#[test]
fn a_message_seen_twice_is_repeated() {
    let verdict = after(|_, apps| apps.push(apps[got(apps, 1, 2)].clone()));
    assert_eq!(verdict.up, Faults { repeated: 1, ..Faults::default() });
    let verdict = after(|clients, _| clients.push(clients[heard(clients, 0, 2)].clone()));
    assert_eq!(verdict.down, Faults { repeated: 1, ..Faults::default() });
}

#[test]
fn an_announced_repeat_is_none_but_only_as_many_as_announced() {
    let repeat = |announced| {
        after(move |_, apps| {
            let opened = apps.iter().position(|e| e.leg == 2).unwrap();
            apps[opened].event = AppEvent::Opened { redelivered: announced };
            for (i, n) in [0, 1].into_iter().enumerate() {
                apps.insert(opened + 1 + i, AppEntry { event: AppEvent::Got(n), ..apps[opened].clone() });
            }
        })
    };
    assert_eq!(repeat(2).up, Faults { announced: 2, ..Faults::default() });
    assert_eq!(repeat(1).up, Faults { announced: 1, repeated: 1, ..Faults::default() });
}

#[test]
fn messages_out_of_order_are_reordered() {
    let verdict = after(|_, apps| {
        let (first, second) = (got(apps, 0, 0), got(apps, 0, 1));
        apps.swap(first, second);
    });
    assert_eq!(verdict.up, Faults { reordered: 1, ..Faults::default() });
}

#[test]
fn words_of_the_new_pod_before_the_last_of_the_old_are_reordered() {
    let verdict = after(|clients, _| {
        let (old, new) = (heard(clients, 1, 1), heard(clients, 2, 0));
        clients.swap(old, new);
    });
    assert_eq!(verdict.down, Faults { reordered: 1, ..Faults::default() });
}

#[test]
fn what_an_app_sees_after_it_was_given_up_is_late_and_not_reordered() {
    let verdict = after(|_, apps| {
        let stale = apps.remove(got(apps, 1, 1));
        apps.push(stale);
    });
    assert_eq!(verdict.up, Faults { late: 1, ..Faults::default() });
}

#[test]
fn an_announced_copy_may_come_before_the_one_that_was_sent_first() {
    let repeated = |announced| {
        after(move |_, apps| {
            let stale = apps.remove(got(apps, 1, 1));
            let opened = apps.iter().position(|e| e.leg == 2).unwrap();
            apps[opened].event = AppEvent::Opened { redelivered: announced };
            apps.insert(opened + 1, AppEntry { leg: 2, ..stale.clone() });
            apps.push(stale);
        })
    };
    assert_eq!(repeated(1).up, Faults { announced: 1, ..Faults::default() });
    assert_eq!(repeated(0).up, Faults { repeated: 1, ..Faults::default() });
}

#[test]
fn a_loss_is_told_with_its_client_and_time() {
    let (clients, _) = good();
    let sent = clients.iter().find(|e| e.client == 1 && e.event == ClientEvent::Sent(1)).unwrap().at;
    let verdict = after(|_, apps| _ = apps.remove(got(apps, 1, 1)));
    // The two logs of two calls of `good` begin at different times.
    assert_eq!(verdict.losses.len(), 1);
    assert!(verdict.losses[0].client == 1 && verdict.losses[0].up && verdict.losses[0].at >= sent);
    let verdict = after(|clients, _| _ = clients.remove(heard(clients, 0, 1)));
    assert!(verdict.losses[0].client == 0 && !verdict.losses[0].up);
}

#[test]
fn a_silence_is_the_longest_time_between_two_arrivals() {
    let (_, mut apps) = good();
    let (since, until) = (apps[0].at, apps[0].at + secs(60));
    let last = got(&apps, 1, 2);
    apps[last].at += secs(7);
    let silences = silences(&apps, since, until);
    assert!((secs(7)..secs(8)).contains(&silences[&1]) && silences[&0] < secs(1), "{silences:?}");
}

/// What is said of three sends of one caller to one client, which is told all of them, after a change.
fn answers_after(change: impl FnOnce(&mut Vec<ClientEntry>, &mut Vec<SendEntry>)) -> answers::Answers {
    let at = Instant::now();
    let (mut clients, mut sends) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let (asked, answered) = (at + millis(10 * n), at + millis(10 * n + 5));
        clients.push(ClientEntry { at: asked, client: 0, event: ClientEvent::Pushed { caller: 0, n } });
        let received = n == 1;
        sends.push(SendEntry { caller: 0, n, client: 0, asked, answered, received, status: Some(200) });
    }
    change(&mut clients, &mut sends);
    answers::check(&clients, &sends)
}

#[test]
fn true_answers_are_not_complained_of() {
    let good = answers_after(|_, _| {});
    assert_eq!((good.wrong(), good.unheard.len(), good.statuses[&200]), (0, 0, 3));
    for unknown in [None, Some(504)] {
        let heard = answers_after(|_, sends| sends[0].status = unknown);
        assert_eq!(heard.wrong(), 0);
        let never = answers_after(|clients, sends| {
            clients.remove(0);
            sends[0].status = unknown;
        });
        assert_eq!((never.wrong(), never.unheard.len()), (0, 0));
    }
}

#[test]
fn wrong_answers_are_found() {
    let unheard = answers_after(|clients, _| _ = clients.remove(0));
    assert_eq!(
        (unheard.unheard.len(), unheard.wrong()),
        (1, 0),
        "whether that is wrong depends on the fault"
    );
    let received = answers_after(|clients, _| _ = clients.remove(1));
    assert_eq!((received.false_received, received.wrong()), (1, 1));
    for refusal in [404, 429, 503] {
        let refused = answers_after(|_, sends| sends[0].status = Some(refusal));
        assert_eq!((refused.false_refusals, refused.wrong()), (1, 1), "{refusal}");
    }
    let twice = answers_after(|clients, _| clients.push(clients[0].clone()));
    assert_eq!((twice.repeated, twice.wrong()), (1, 1));
    let swapped = answers_after(|clients, _| clients.swap(0, 2));
    assert_eq!(swapped.reordered, 2, "both come after the last: {swapped}");
}

#[test]
fn not_found_is_right_of_a_client_that_was_closed_and_of_no_other() {
    let absent = |closed_at: Option<Duration>| {
        answers_after(|clients, sends| {
            let gone = clients.pop().unwrap();
            sends[2].status = Some(404);
            if let Some(before) = closed_at {
                let at = sends[2].answered - before;
                clients.push(ClientEntry { at, event: ClientEvent::Closed(None), ..gone });
            }
        })
    };
    assert_eq!((absent(None).not_found, absent(Some(millis(1))).not_found), (1, 0));
}

#[test]
fn what_nobody_sent_is_invented() {
    let verdict = after(|_, apps| apps.push(AppEntry { event: AppEvent::Got(9), ..apps[0].clone() }));
    assert_eq!(verdict.up.invented, 1);
    let stranger = ClientEvent::Got { leg: 2, serial: 0 };
    let verdict = after(|clients, _| clients.push(ClientEntry { event: stranger, ..clients[0].clone() }));
    assert_eq!(verdict.down.invented, 1, "another client's word");
}

#[test]
fn a_closed_connection_is_seen_with_its_code() {
    let closed = ClientEvent::Closed(Some(1012));
    let verdict = after(|clients, _| clients.push(ClientEntry { event: closed, ..clients[0].clone() }));
    assert_eq!(verdict.closed, [(0, Some(1012))]);
}

#[test]
fn the_longest_way_of_a_message_is_the_pause() {
    let verdict = after(|_, apps| {
        let late = got(apps, 1, 2);
        apps[late].at += Duration::from_secs(3);
    });
    assert_eq!(verdict.pause, Duration::from_millis(3001));
}

#[test]
fn a_message_at_another_pod_than_the_owner_is_counted_from_then_on() {
    let (_, apps) = good();
    let home = |client| if client == 1 { "b".to_owned() } else { "a".to_owned() };
    assert_eq!(wrong_pod(&apps, apps[0].at, home), 2, "the two before the move");
    assert_eq!(wrong_pod(&apps, apps[got(&apps, 0, 2)].at, home), 0);
}

#[test]
fn the_second_implementation_agrees_with_the_recorded_vectors() {
    owner::agrees_with_the_recorded_vectors();
}

/// An app with a fault proxy before it.
async fn direct(manners: Manners) -> (Range, Arc<Logs>, App, Fault) {
    let (range, logs) = (Range::claim(), Logs::new());
    let app = App::start(range.addr(1, APP), "a", &logs, manners).await;
    let fault = Fault::start(range.addr(1, LISTEN), app.addr).await;
    (range, logs, app, fault)
}

fn verdict(logs: &Logs) -> Verdict {
    let (clients, apps) = logs.read();
    check(&clients, &apps)
}

#[tokio::test]
async fn clients_and_app_alone_lose_nothing_in_any_manner() {
    for answers in
        [Answers::AtOnce, Answers::After(millis(80)), Answers::Busy(millis(5)), Answers::Bursts(millis(90))]
    {
        let (_range, logs, _app, fault) =
            direct(Manners { answers, greets: true, ..Manners::default() }).await;
        let mut clients = Vec::new();
        for id in 0..5 {
            clients.push(Client::connect(fault.addr, id, &logs).await.drive(millis(20)));
        }
        eventually(secs(10), "20 messages each", async || clients.iter().all(|c| c.sent() >= 20)).await;
        finish(clients).await;
        verdict(&logs).assert_clean();
    }
}

#[tokio::test]
async fn a_cut_link_loses_and_closes_and_the_checker_says_so() {
    let (_range, logs, _app, fault) = direct(Manners { answers: Answers::Never, ..Manners::default() }).await;
    let mut client = Client::connect(fault.addr, 7, &logs).await;
    fault.set(Mode::Stall);
    assert!(client.send().await);
    fault.set(Mode::Cut);
    assert!(!bounded(secs(5), "the end", client.hear()).await);
    let verdict = verdict(&logs);
    assert_eq!((verdict.closed.as_slice(), verdict.up.lost), (&[(7, None)][..], 1), "{verdict}");
}

#[tokio::test]
async fn a_stalled_link_pauses_and_nothing_is_lost() {
    let (_range, logs, _app, fault) = direct(Manners::default()).await;
    let mut client = Client::connect(fault.addr, 0, &logs).await;
    client.ask(secs(5)).await;
    fault.set(Mode::Stall);
    assert!(client.send().await);
    // The stall is the thing measured, not a wait for something.
    tokio::time::sleep(millis(300)).await;
    fault.set(Mode::Pass);
    client.leave().await;
    let verdict = verdict(&logs);
    verdict.assert_clean();
    assert!(verdict.pause >= millis(300), "{verdict}");
}

#[tokio::test]
async fn a_dead_app_refuses_and_its_clients_see_the_end() {
    let (_range, logs, app, _fault) = direct(Manners::default()).await;
    let mut client = Client::connect(app.addr, 0, &logs).await;
    client.ask(secs(5)).await;
    let addr = app.addr;
    drop(app);
    assert!(!bounded(secs(5), "the end", client.hear()).await);
    assert_eq!(verdict(&logs).closed, [(0, None)]);
    eventually(secs(5), "a refused dial", async || Raw::connect(addr, "/", "").await.is_err()).await;
}

#[tokio::test]
async fn the_raw_client_speaks_and_reads_frames() {
    let (_range, _logs, app, _fault) = direct(Manners::default()).await;
    let mut raw = Raw::open(app.addr, "k").await;
    raw.frame(false, raw::TEXT, b"he").await.unwrap();
    raw.frame(true, raw::PING, b"now").await.unwrap();
    raw.frame(true, raw::CONTINUATION, b"llo").await.unwrap();
    let pong = raw.read().await.unwrap();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (raw::PONG, &b"now"[..]));
    assert_eq!(raw.message().await.unwrap(), (raw::TEXT, b"hello".to_vec()));
    raw.frame(true, raw::TEXT, b"!close 4001 bye").await.unwrap();
    let close = raw.read().await.unwrap();
    assert_eq!((close.code(), &close.payload[2..]), (Some(4001), &b"bye"[..]));
}
