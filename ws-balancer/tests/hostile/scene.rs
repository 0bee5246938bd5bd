//! Good clients that talk all the while, and what must hold for them and for the processes afterwards.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    Client, Cluster, Setup,
    client::{Driven, finish, key},
    eventually,
    process::{Process, Usage},
    range::APP,
    wait::{millis, secs},
};

/// How much resident memory may differ after another round of the same: allocators keep some.
const SLACK: usize = 6 << 20;

/// Two pods: the first serves the good clients, the second is for the others.
pub struct Scene {
    pub cluster: Cluster,
    good: Vec<Driven>,
    /// A key of the second pod.
    pub key: String,
}

impl Scene {
    pub async fn start(setup: Setup) -> Self {
        let cluster = setup.start().await;
        let key = key(cluster.client_of(2, 0));
        let (mut good, mut id) = (Vec::new(), 0);
        // Half of them come through the second pod, whose sidecar relays them to the first.
        for addr in [cluster.addr(), cluster.addr(), cluster.pod_addr(2), cluster.pod_addr(2)] {
            // A plain node relays nothing.
            let addr = if cluster.pods[&2].sidecar.is_some() { addr } else { cluster.addr() };
            id = cluster.client_of(1, id + 1);
            good.push(Client::connect(addr, id, &cluster.logs).await.drive(millis(50)));
        }
        Self { cluster, good, key }
    }

    /// Lets go of the second pod's app, for another to take its address.
    pub async fn second_app(&mut self) -> SocketAddr {
        self.cluster.pods.get_mut(&2).unwrap().app = None;
        let addr = self.cluster.range.addr(2, APP);
        eventually(secs(5), "the app's end", async || tokio::net::TcpStream::connect(addr).await.is_err())
            .await;
        addr
    }

    /// Where clients connect: to the balancer, and to the second pod's sidecar if there is one.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        let sidecar = self.cluster.pods[&2].sidecar.is_some().then(|| self.cluster.pod_addr(2));
        [self.cluster.addr()].into_iter().chain(sidecar).collect()
    }

    /// Does `round` once, then twice more: they must leave nothing behind.
    pub async fn rounds(&self, mut round: impl AsyncFnMut()) {
        let at_first: Vec<Usage> = self.processes().iter().map(|process| process.usage()).collect();
        round().await;
        self.empties(&at_first).await;
        let before: Vec<Usage> = self.processes().iter().map(|process| process.usage()).collect();
        round().await;
        round().await;
        self.empties(&at_first).await;
        for (process, before) in self.processes().iter().zip(&before) {
            let now = process.usage();
            assert!(now.memory <= before.memory + SLACK, "{before:?} has become {now:?}");
        }
    }

    /// Waits until no more descriptors are open than were before.
    async fn empties(&self, before: &[Usage]) {
        let processes = self.processes();
        let fine = || {
            processes.iter().zip(before).all(|(process, before)| {
                let now = process.usage().descriptors;
                // Probes come and go.
                now <= before.descriptors + 2
            })
        };
        let shown =
            || -> Vec<usize> { processes.iter().map(|process| process.usage().descriptors).collect() };
        let end = tokio::time::Instant::now() + secs(20);
        while !fine() {
            assert!(tokio::time::Instant::now() < end, "descriptors stay: {before:?}, {:?}", shown());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn processes(&self) -> Vec<&Process> {
        let sidecars = self.cluster.pods.values().filter_map(|pod| pod.sidecar.as_ref());
        [&self.cluster.balancer].into_iter().chain(sidecars).collect()
    }

    /// The good clients have noticed nothing.
    pub async fn end(self) {
        finish(self.good).await;
        let verdict = self.cluster.verdict();
        eprintln!("{verdict}");
        verdict.assert_clean();
    }
}
