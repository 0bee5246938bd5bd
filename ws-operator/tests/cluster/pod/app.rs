//! The application of a pod.

use std::{net::SocketAddr, time::Duration};

use tokio::{signal::unix, sync::mpsc, time::sleep};

use crate::{
    events, support,
    support::{app::Manners, log::Logs},
    told,
};

/// Serves on port 3001 until it is told to end.
pub async fn run() {
    let (sender, entries) = mpsc::unbounded_channel();
    let app = support::App::start(
        SocketAddr::from(([0; 4], support::range::APP)),
        &told("POD"),
        &Logs::far(sender),
        Manners::default(),
    )
    .await;
    let mut terminate = unix::signal(unix::SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = terminate.recv() => {}
        () = events::tell(told("EVENTS"), entries) => {}
    }
    drop(app);
    // The last lines are on their way.
    sleep(Duration::from_millis(50)).await;
}
