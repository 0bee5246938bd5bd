//! One label on a Deployment, on a real cluster.
//!
//! `$WS_CLUSTER` (default: `../shared/cluster` beside the workspace) is a folder with a Kubernetes for this machine: the
//! test starts it, of the version `$WS_KUBERNETES` (default: 1.36), and takes it down; `$WS_CLUSTER_KEEP` leaves it up,
//! and takes one that is up. `$WS_KUBECONFIG` names any other cluster (kind, k3d) with two nodes, into which `$WS_LOAD`
//! puts an image archive, as in `WS_LOAD='kind load image-archive'`; `$WS_NODE_STOP` and `$WS_NODE_START` are commands that
//! crash a node and bring it back, as in `WS_NODE_STOP='docker pause'`. Without either the test says that it is skipped.
//! `$WS_CASES` is a word, or several with | between, in the names of the cases to run; after a fault the cluster is left as it is for
//! `$WS_STOP_AT_FAULT` seconds.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod app;
mod cases;
mod fleet;
mod kubectl;
mod setup;

use std::env;

use tokio::time::Instant;

use kubectl::Cluster;
use setup::Installed;

#[test]
fn one_label_on_a_deployment() {
    let cluster = match Cluster::find() {
        Ok(cluster) => cluster,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let began = Instant::now();
    let installed = Installed::new(cluster);
    let word = env::var("WS_CASES").unwrap_or_default();
    for (name, case) in cases::ALL.iter().filter(|(name, _)| word.split('|').any(|word| name.contains(word)))
    {
        let began = Instant::now();
        eprintln!("== {name}");
        case(&installed);
        eprintln!("== {name}: {:.0?}", began.elapsed());
    }
    drop(installed);
    eprintln!("all: {:.0?}", began.elapsed());
}
