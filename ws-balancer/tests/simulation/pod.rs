//! A pod: a sidecar with its app. Dropping it is its sudden death.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use ws_routing::{
    drain,
    membership::View,
    metrics::Metrics,
    proxy::{
        LegStream, Settings, connect,
        handshake::{Handshake, LegHeaders},
    },
    session::{SendSettings, Sender, Sidecar, SidecarParts},
};

use crate::{
    network::{Host, Net},
    support::{App, Logs, app::Manners},
};

pub struct Pod {
    pub host: Host,
    /// For calls of its app.
    pub sender: Sender,
    /// When it is cancelled the pod is dead, and so are calls under way.
    pub dead: CancellationToken,
    signal: drain::Signal,
    drain: drain::Drain,
    door: Arc<Door>,
    app: Option<App>,
    logs: Arc<Logs>,
    manners: Manners,
    _tasks: JoinSet<()>,
    _dies: DropGuard,
}

impl Pod {
    pub fn start(
        host: Host,
        net: &Net,
        view: View,
        logs: &Arc<Logs>,
        manners: Manners,
        settings: Settings,
    ) -> Self {
        let (metrics, sidecar_metrics) = Metrics::for_sidecar("simulated");
        let (signal, drain) = drain::channel();
        let door = Arc::new(Door::default());
        let parts = SidecarParts {
            node: host.node(),
            app: door.clone(),
            view,
            drain: drain.clone(),
            metrics,
            sidecar_metrics,
            tokens: None,
            sends: SendSettings::default(),
            route_field: None,
            settings,
            limits: Default::default(),
        };
        let sidecar = Sidecar::new(parts, |builder| builder.network(net.at(host)));
        let sender = sidecar.sender();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(sidecar.clone(), net.listen(host)));
        tasks.spawn(async move { sidecar.run().await });
        let dead = CancellationToken::new();
        let mut pod = Self {
            host,
            sender,
            signal,
            drain,
            door,
            app: None,
            logs: logs.clone(),
            manners,
            _tasks: tasks,
            _dies: dead.clone().drop_guard(),
            dead,
        };
        pod.start_app();
        pod
    }

    /// The app is killed; its sidecar lives on.
    pub fn kill_app(&mut self) {
        self.app = None;
        *self.door.0.lock().unwrap() = None;
    }

    pub fn start_app(&mut self) {
        let (knocks, connections) = mpsc::unbounded_channel();
        let name = self.host.node().to_string();
        self.app = Some(App::within(connections, &name, &self.logs, self.manners.clone()));
        *self.door.0.lock().unwrap() = Some(knocks);
    }

    /// Begins to drain; the future ends when the process would end.
    pub fn drain(&self, window: Duration) -> impl Future<Output = ()> + use<> {
        let (signal, drain) = (self.signal.clone(), self.drain.clone());
        signal.begin(window);
        async move {
            // An app beside it is stopped only after its clients have gone.
            let _ = timeout(window, drain.empty()).await;
            signal.end();
            sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn serve(sidecar: Sidecar, mut arrivals: mpsc::UnboundedReceiver<DuplexStream>) {
    let mut connections = JoinSet::new();
    while let Some(stream) = arrivals.recv().await {
        while connections.try_join_next().is_some() {}
        let sidecar = sidecar.clone();
        connections.spawn(async move { sidecar.serve(stream, ([10, 0, 0, 99], 1).into()).await });
    }
}

/// The way to the pod's app.
#[derive(Debug, Default)]
struct Door(Mutex<Option<mpsc::UnboundedSender<DuplexStream>>>);

impl ws_routing::app::App for Door {
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> ws_routing::app::Opening<'a> {
        Box::pin(async move {
            let (near, far) = duplex(64 * 1024);
            let knocked = self.0.lock().unwrap().as_ref().is_some_and(|door| door.send(far).is_ok());
            if !knocked {
                return Err(
                    connect::DialError::from(io::Error::from(io::ErrorKind::ConnectionRefused)).into()
                );
            }
            let head = handshake.to_app(leg, "");
            let limit = Duration::from_secs(7);
            let opened = connect::open(LegStream::Local(near), &head, handshake, limit).await?;
            Ok(ws_routing::app::AppLeg { opened, far: None })
        })
    }
}
