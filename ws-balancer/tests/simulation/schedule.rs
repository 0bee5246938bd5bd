//! What happens to the world: changes and faults, drawn by chance.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use ws_routing::NodeState;

use crate::{
    network::Host,
    support::wait::{millis, secs},
    world::World,
};

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pods come and go as they should, on links that stutter.
    Graceful,
    /// They also crash, hang, and are cut off.
    Crashes,
    /// As often as chance has it, so that clients may be lost with them.
    Wild,
}

/// A time in which something that the contract excuses may be lost.
#[derive(Clone, Copy, Debug)]
pub struct Excuse {
    pub from: Instant,
    pub until: Instant,
}

/// The pods that there may be.
const HOSTS: std::ops::RangeInclusive<u8> = 1..=6;
/// So many at least are members and well.
const LEAST: usize = 2;

/// How long a link stutters at the most: nobody is given up for that.
const STUTTER: u64 = 700;

/// Goes on until `until`, and ends when everything is whole again. What it excuses.
pub async fn run(world: &World, kind: Kind, until: Instant) -> Vec<Excuse> {
    let mut happening = JoinSet::new();
    let mut excuses = Vec::new();
    let mut last_fault = Instant::now();
    while Instant::now() < until {
        sleep(world.chance(|chance| chance.millis(50..2000))).await;
        while happening.try_join_next().is_some() {}
        let graceful = kind == Kind::Graceful || world.chance(|chance| chance.one_in(2));
        if graceful {
            change(world, &mut happening);
            continue;
        }
        // Two faults at once may cost a client its connection, as may three losses in 10 s.
        if kind != Kind::Wild && last_fault.elapsed() < secs(3) {
            continue;
        }
        if let Some(length) = fault(world, &mut happening) {
            let from = Instant::now();
            last_fault = from + length;
            excuses.push(Excuse { from, until: from + length });
        }
    }
    while happening.join_next().await.is_some() {}
    excuses
}

/// Something that loses nothing.
fn change(world: &World, happening: &mut JoinSet<()>) {
    let ready = ready(world);
    let vacant: Vec<u8> = HOSTS.filter(|host| !world.with(|pods| pods.contains_key(&Host(*host)))).collect();
    let lag = lag(world);
    match world.chance(|chance| chance.below(4)) {
        0 => {
            let Some(host) = world.chance(|chance| chance.pick(&vacant)) else { return };
            world.note(format!("pod {host} joins, known within {lag:?}"));
            world.start_pod(Host(host));
            world.change(Host(host), Some(NodeState::Ready), lag);
        }
        1 if ready.len() > LEAST => {
            let Some(host) = world.chance(|chance| chance.pick(&ready)) else { return };
            world.note(format!("pod {} drains, known within {lag:?}", host.0));
            happening.spawn(leave(world.clone(), host, lag));
        }
        _ => stutter(world, happening),
    }
}

async fn leave(world: World, host: Host, lag: Duration) {
    // Its word of itself may come before or after that of the members.
    world.change(host, Some(NodeState::Draining), lag);
    sleep(world.chance(|chance| chance.millis(0..300))).await;
    let Some(drained) = world.with(|pods| pods.get(&host).map(|pod| pod.drain(secs(25)))) else { return };
    drained.await;
    world.note(format!("pod {} is gone", host.0));
    world.change(host, None, lag);
    world.kill_pod(host);
}

/// Holds a link, in one direction or both, for a time in which nobody is given up.
fn stutter(world: &World, happening: &mut JoinSet<()>) {
    let hosts = hosts(world);
    let length = world.chance(|chance| chance.millis(10..STUTTER));
    let (Some(one), Some(other)) = world.chance(|chance| (chance.pick(&hosts), chance.pick(&hosts))) else {
        return;
    };
    if one == other {
        return;
    }
    world.note(format!("{} → {} is held for {length:?}", one.0, other.0));
    happening.spawn(hold(world.clone(), vec![(one, other)], length));
}

async fn hold(world: World, links: Vec<(Host, Host)>, length: Duration) {
    links.iter().for_each(|(from, to)| world.net.hold(*from, *to));
    sleep(length).await;
    links.iter().for_each(|(from, to)| world.net.release(*from, *to));
}

/// Something by which messages may be lost; until when.
fn fault(world: &World, happening: &mut JoinSet<()>) -> Option<Duration> {
    let ready = ready(world);
    let host = world.chance(|chance| chance.pick(&ready)).filter(|_| ready.len() > LEAST)?;
    match world.chance(|chance| chance.below(6)) {
        0 => {
            let back = world.chance(|chance| chance.millis(0..4000));
            world.note(format!("pod {} crashes, and is back after {back:?}", host.0));
            world.kill_pod(host);
            happening.spawn(start_again(world.clone(), host, back));
            Some(secs(1))
        }
        1 => {
            let known = world.chance(|chance| chance.millis(0..8000));
            world.note(format!("pod {} crashes, known after {known:?}", host.0));
            world.kill_pod(host);
            happening.spawn(forget(world.clone(), host, known));
            Some(secs(1))
        }
        2 => {
            let length = world.chance(|chance| chance.millis(2000..15_000));
            world.note(format!("pod {} hangs for {length:?}", host.0));
            let others = hosts(world).into_iter().filter(|other| *other != host);
            let links = others.flat_map(|other| [(host, other), (other, host)]).collect();
            happening.spawn(hold(world.clone(), links, length));
            Some(length + secs(1))
        }
        3 => {
            let length = world.chance(|chance| chance.millis(2000..15_000));
            world.note(format!("pod {} and the balancer do not see each other for {length:?}", host.0));
            let links = vec![(host, Host::BALANCER), (Host::BALANCER, host)];
            happening.spawn(hold(world.clone(), links, length));
            Some(length + secs(1))
        }
        4 => {
            world.note(format!("connections of pod {} to the balancer are reset", host.0));
            world.net.cut(Host::BALANCER, host);
            Some(secs(1))
        }
        _ => {
            let back = world.chance(|chance| chance.millis(0..4000));
            world.note(format!("the app of pod {} crashes, and is back after {back:?}", host.0));
            world.with(|pods| pods.get_mut(&host).into_iter().for_each(crate::pod::Pod::kill_app));
            happening.spawn(start_app_again(world.clone(), host, back));
            Some(secs(1) + back)
        }
    }
}

async fn start_again(world: World, host: Host, back: Duration) {
    sleep(back).await;
    world.start_pod(host);
}

async fn forget(world: World, host: Host, known: Duration) {
    sleep(known).await;
    world.change(host, None, millis(300));
}

async fn start_app_again(world: World, host: Host, back: Duration) {
    sleep(back).await;
    world.with(|pods| pods.get_mut(&host).into_iter().for_each(crate::pod::Pod::start_app));
}

/// How long it is until everybody knows of a change.
fn lag(world: &World) -> Duration {
    world.chance(|chance| if chance.one_in(6) { chance.millis(0..6000) } else { chance.millis(0..400) })
}

/// The pods that run and are ready members.
fn ready(world: &World) -> Vec<Host> {
    let members = world.members();
    world.with(|pods| pods.keys().copied().filter(|h| members.get(h) == Some(&NodeState::Ready)).collect())
}

/// The balancer, and the pods that run.
fn hosts(world: &World) -> Vec<Host> {
    world.with(|pods| std::iter::once(Host::BALANCER).chain(pods.keys().copied()).collect())
}
