//! What goes wrong. Each returns when everything is whole again, as far as it can be.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    scene::Scene,
    support::{
        App, Raw,
        app::Manners,
        eventually,
        fault::Mode,
        members::MembersFile,
        raw::{BINARY, PING, TEXT, masked},
        wait::{bounded, millis, secs},
    },
};

pub async fn added(scene: &mut Scene) {
    scene.cluster.join(4).await;
    scene.settled(secs(30)).await;
}

pub async fn removed(scene: &mut Scene) {
    remove(scene, 2).await;
    scene.settled(secs(30)).await;
}

/// As Kubernetes ends a pod: it is shown as terminating, and told to end.
async fn remove(scene: &mut Scene, host: u8) {
    scene.cluster.drain(host);
    let id = scene.cluster.pods[&host].id.clone();
    scene.cluster.stop(host).await;
    scene.cluster.members.remove(&id);
}

pub async fn rolled(scene: &mut Scene) {
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        scene.cluster.join(new).await;
        scene.settled(secs(30)).await;
        let hosts: Vec<u8> = scene.cluster.pods.keys().copied().filter(|host| *host != old).collect();
        scene.ask_at(&hosts);
        remove(scene, old).await;
        scene.settled(secs(30)).await;
    }
}

pub async fn pod_killed(scene: &mut Scene) {
    scene.strike();
    scene.cluster.kill(2);
    scene.held_by(&[1, 3]).await;
}

pub async fn sidecar_killed(scene: &mut Scene) {
    scene.strike();
    scene.cluster.pods.get_mut(&2).unwrap().sidecar = None;
    scene.held_by(&[1, 3]).await;
}

pub async fn app_killed(scene: &mut Scene) {
    scene.strike();
    scene.cluster.pods.get_mut(&2).unwrap().app = None;
    scene.held_by(&[1, 3]).await;
    scene.flow(10).await;
    let (addr, id) = (scene.cluster.app_addr(2), scene.cluster.pods[&2].id.clone());
    let app = App::start(addr, &id, &scene.cluster.logs, Manners::default()).await;
    scene.cluster.pods.get_mut(&2).unwrap().app = Some(app);
    scene.settled(secs(60)).await;
}

pub async fn app_stopped(scene: &mut Scene) {
    scene.strike();
    scene.cluster.app(2).freeze(true);
    scene.held_by(&[1, 3]).await;
    scene.flow(10).await;
    scene.cluster.app(2).freeze(false);
    scene.settled(secs(60)).await;
}

pub async fn two_killed(scene: &mut Scene) {
    scene.strike();
    scene.cluster.kill(2);
    // While the clients of the first are on their way.
    sleep(millis(30)).await;
    scene.cluster.kill(3);
    scene.held_by(&[1, 4]).await;
}

pub async fn new_pod_killed(scene: &mut Scene) {
    scene.cluster.join(4).await;
    let moving = async || !scene.cluster.app(4).handshakes().is_empty();
    eventually(secs(20), "moves under way", moving).await;
    // Some are done by then, some are not, and some have not begun.
    sleep(millis(1000)).await;
    scene.strike();
    scene.cluster.kill(4);
    scene.held_by(&[1, 2, 3]).await;
    scene.cluster.leave(4);
    scene.settled(secs(30)).await;
}

pub async fn pod_stopped(scene: &mut Scene, pause: Duration) {
    let end = Instant::now() + pause;
    scene.strike();
    scene.cluster.app(2).freeze(true);
    scene.cluster.pods[&2].signal("STOP");
    scene.held_by(&[1, 3]).await;
    sleep_until(end).await;
    scene.cluster.pods[&2].signal("CONT");
    scene.cluster.app(2).freeze(false);
    scene.settled(secs(60)).await;
}

pub async fn link_stalled(scene: &mut Scene, pause: Duration) {
    let end = Instant::now() + pause;
    scene.strike();
    scene.cluster.pods[&2].link().set(Mode::Stall);
    sleep_until(end).await;
    scene.cluster.pods[&2].link().set(Mode::Pass);
    scene.settled(secs(60)).await;
}

pub async fn link_cut(scene: &mut Scene) {
    scene.strike();
    scene.cluster.pods[&2].link().set(Mode::Cut);
    scene.held_by(&[1, 3]).await;
    sleep(secs(5)).await;
    scene.cluster.pods[&2].link().set(Mode::Pass);
    scene.settled(secs(60)).await;
}

pub async fn peers_cut(scene: &mut Scene) {
    peers(scene, Mode::Cut).await;
}

pub async fn peers_stalled(scene: &mut Scene) {
    peers(scene, Mode::Stall).await;
}

async fn peers(scene: &mut Scene, mode: Mode) {
    let all = |mode| scene.cluster.pods.values().for_each(|pod| pod.link().set_peers(mode));
    all(mode);
    sleep(secs(10)).await;
    all(Mode::Pass);
}

pub async fn source_gone(scene: &mut Scene) {
    std::fs::remove_file(scene.cluster.members.path()).unwrap();
    sleep(secs(5)).await;
    pod_killed(scene).await;
    sleep(secs(5)).await;
    scene.cluster.members.edit(|_| {});
}

pub async fn flapping(scene: &mut Scene) {
    scene.cluster.add(4).await;
    let node = scene.cluster.pods[&4].id.clone();
    for _ in 0..15 {
        scene.cluster.members.join(&node);
        sleep(millis(200)).await;
        scene.cluster.members.remove(&node);
        sleep(millis(200)).await;
    }
    scene.settled(secs(60)).await;
}

/// The balancer has pod 4 in place of pod 2; the sidecars have other opinions, each its own.
pub async fn views_disagree(scene: &mut Scene) {
    scene.cluster.add(4).await;
    let id = |host: u8| scene.cluster.pods[&host].id.clone();
    let (two, three, four) = (id(2), id(3), id(4));
    let pods = &mut scene.cluster.pods;
    let mut view = |host, change: &dyn Fn(&mut MembersFile)| {
        change(pods.get_mut(&host).unwrap().view.as_mut().unwrap());
    };
    view(1, &|view| view.drain(&three));
    view(2, &|view| view.remove(&three));
    view(4, &|view| view.remove(&two));
    scene.cluster.members.edit(|nodes| {
        nodes.remove(&two);
        nodes.insert(four.clone(), "");
    });
    sleep(secs(30)).await;
    for pod in scene.cluster.pods.values_mut() {
        let view = pod.view.as_mut().unwrap();
        view.edit(|nodes| {
            for id in [&two, &three, &four] {
                nodes.insert(id.clone(), "");
            }
        });
    }
    scene.cluster.members.join(&two);
    scene.settled(secs(30)).await;
}

pub async fn balancer_stopped(scene: &mut Scene) {
    scene.strike();
    scene.cluster.balancer.signal("STOP");
    sleep(secs(10)).await;
    scene.cluster.balancer.signal("CONT");
    scene.settled(secs(30)).await;
}

pub async fn balancer_ended(scene: &mut Scene) {
    scene.cluster.balancer.signal("TERM");
    let status = scene.cluster.balancer.exit(secs(20)).await;
    assert_eq!(status.code(), Some(0), "{}", scene.cluster.balancer.output());
    everybody_is_over(scene).await;
}

pub async fn balancer_killed(scene: &mut Scene) {
    scene.cluster.balancer.signal("KILL");
    everybody_is_over(scene).await;
}

async fn everybody_is_over(scene: &Scene) {
    let over = async || scene.clients.iter().all(|client| client.is_over());
    eventually(secs(30), "everybody is closed", over).await;
}

pub async fn all_gone(scene: &mut Scene, pause: Duration, held: bool) {
    let end = Instant::now() + pause;
    scene.strike();
    (1..=3).for_each(|host| scene.cluster.kill(host));
    sleep(secs(2)).await;
    let late = Raw::connect(scene.cluster.addr(), "/", "ws-user-id: late\r\n").await.unwrap();
    assert!(matches!(late.answer.status, 502 | 503), "{:?}", late.answer);
    sleep_until(end).await;
    if !held {
        everybody_is_over(scene).await;
    }
    for host in 1..=3 {
        scene.cluster.add(host).await;
    }
    scene.settled(secs(60)).await;
    let addr = scene.cluster.addr();
    eventually(secs(60), "new clients are served", async || {
        Raw::connect(addr, "/", "ws-user-id: late\r\n").await.is_ok_and(|raw| raw.answer.status == 101)
    })
    .await;
}

/// Clients that read a byte now and then of much that they asked for.
pub async fn slow(scene: &mut Scene) {
    const MUCH: usize = 4 << 20;
    let mut readers = JoinSet::new();
    for n in 0..10 {
        let mut raw = Raw::open(scene.cluster.addr(), &format!("slow-{n}")).await;
        raw.frame(true, TEXT, format!("!bytes {MUCH}").as_bytes()).await.unwrap();
        readers.spawn(async move {
            sleep(secs(3)).await;
            assert_eq!(raw.message().await.unwrap().1.len(), MUCH);
        });
    }
    scene.cluster.join(4).await;
    scene.settled(secs(30)).await;
    bounded(secs(60), "what slow clients asked for", readers.join_all()).await;
}

/// Clients that break the protocol, flood, and never read, again and again.
pub async fn hostile(scene: &mut Scene) {
    let addr = scene.cluster.addr();
    let floods: [Vec<u8>; 5] = [
        masked(true, BINARY, &[7; 60_000]).repeat(100),
        masked(true, PING, &[7; 125]).repeat(10_000),
        vec![0xff; 1000],
        masked(false, TEXT, b"and then").repeat(100),
        masked(true, TEXT, &[0xff; 100]),
    ];
    let mut crowd = JoinSet::new();
    for (n, flood) in floods.into_iter().cycle().take(15).enumerate() {
        crowd.spawn(async move {
            loop {
                let mut raw = Raw::open(addr, &format!("hostile-{n}")).await;
                drop(tokio::time::timeout(secs(2), raw.bytes(&flood)).await);
                sleep(millis(200)).await;
            }
        });
    }
    scene.cluster.join(4).await;
    scene.settled(secs(60)).await;
    remove(scene, 2).await;
    scene.settled(secs(60)).await;
    crowd.shutdown().await;
}
