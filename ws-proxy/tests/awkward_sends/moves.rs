//! Sends while their client is between two nodes.

use tokio::time::Instant;

use crate::{
    api,
    listener::Listener,
    support::{
        Setup, client, eventually,
        log::AppEvent,
        wait::{millis, secs},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_between_two_legs_is_held_back_and_arrives_once_and_in_order() {
    const LINGERS: std::time::Duration = millis(700);
    let mut cluster = Setup::sidecars(2).manners(|m| m.lingers = LINGERS).start().await;
    let key = client::key(cluster.mover(1, 2, &[2]));
    let listener = Listener::connect(cluster.addr(), &key).await;
    assert_eq!(api(&cluster, 2).send(&key, "before", "").await.status, 200);
    cluster.drain(1);
    let told_to_stop = || {
        let log = cluster.logs.read().1;
        log.iter().find(|entry| matches!(entry.event, AppEvent::Ended(_))).map(|entry| entry.at)
    };
    eventually(secs(20), "the old app is told to stop", async || told_to_stop().is_some()).await;
    // It says good-bye so late; only then may anybody speak for the connection at the other node.
    let live = told_to_stop().unwrap() + LINGERS;
    let from = |host: u8, query: &'static str| {
        let (mut api, key) = (api(&cluster, host), key.clone());
        async move {
            for n in 0..3 {
                let answer = api.send(&key, &format!("{host}{query}{n}"), query).await;
                assert_eq!(
                    (answer.status, answer.json()["delivered"].as_u64()),
                    (200, Some(1)),
                    "{answer:?}"
                );
                let early = live.saturating_duration_since(Instant::now());
                assert!(
                    early < millis(50),
                    "{query} from pod {host}: answered {early:?} before the leg was live"
                );
            }
        }
    };
    // What is for the app comes back, as this one echoes.
    let ways = ["", "?ack=received", "?to=app"];
    futures_util::future::join_all([1, 2].iter().flat_map(|host| ways.map(|query| from(*host, query)))).await;
    let heard = listener.heard(1 + 2 * 3 * 3).await;
    assert_eq!(heard.len(), 1 + 2 * 3 * 3, "{heard:?}");
    for host in [1, 2] {
        for query in ways {
            let of =
                |text: &&String| text.strip_prefix(&format!("{host}{query}")).is_some_and(|n| n.len() == 1);
            let found: Vec<&String> = heard.iter().filter(of).collect();
            let expected: Vec<String> = (0..3).map(|n| format!("{host}{query}{n}")).collect();
            assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{heard:?}");
        }
    }
    eventually(secs(10), "it is known that the client has left", async || {
        api(&cluster, 2).call("GET", &format!("/v1/keys/{key}"), &[], b"").await.status == 404
    })
    .await;
}
