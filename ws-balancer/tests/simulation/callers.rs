//! Callers in the pods' apps: each sends numbered messages to clients, one after another, from wherever it is let.

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use ws_routing::{
    Key,
    session::{Ack, SendError},
};

use crate::{
    chance::Chance,
    network::Host,
    support::{client::key, log::SendEntry, numbered::Push},
    world::World,
};

/// A caller on a task of its own.
pub fn start(
    id: u32,
    clients: u32,
    chance: Chance,
    world: &World,
    stop: &watch::Sender<bool>,
) -> JoinHandle<()> {
    let caller = Caller { id, clients, chance, world: world.clone() };
    tokio::spawn(caller.run(stop.subscribe()))
}

struct Caller {
    id: u32,
    clients: u32,
    chance: Chance,
    world: World,
}

impl Caller {
    async fn run(mut self, stopped: watch::Receiver<bool>) {
        for n in 0.. {
            sleep(self.chance.millis(10..300)).await;
            if *stopped.borrow() {
                return;
            }
            self.send(n).await;
        }
    }

    async fn send(&mut self, n: u64) {
        let hosts: Vec<Host> = self.world.with(|pods| pods.keys().copied().collect());
        let Some(host) = self.chance.pick(&hosts) else { return };
        let Some((sender, dead)) =
            self.world.with(|pods| pods.get(&host).map(|pod| (pod.sender.clone(), pod.dead.clone())))
        else {
            return;
        };
        let client = u32::try_from(self.chance.below(self.clients as usize)).unwrap();
        let received = self.chance.one_in(2);
        let ack = if received { Ack::Received } else { Ack::Written };
        let (key, text) = (Key::new(key(client)).unwrap(), Push { caller: self.id, n }.text());
        let asked = Instant::now();
        let status = tokio::select! {
            biased;
            () = dead.cancelled() => None,
            answer = sender.send(&key, text, ack) => Some(match answer {
                Ok(_) => 200,
                Err(SendError::NotConnected { .. }) => 404,
                Err(SendError::SlowConsumer) => 429,
                Err(SendError::Moving) => 503,
                Err(_) => 504,
            }),
        };
        let answered = Instant::now();
        self.world.logs.send(SendEntry { caller: self.id, n, client, asked, answered, received, status });
    }
}
