//! Members in Kubernetes: the EndpointSlices of a Service, watched through its API.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use futures_util::{StreamExt, stream::BoxStream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Config,
    runtime::watcher::{self, Event, watcher},
};
use tokio::time::{Instant, sleep};

use super::{
    NextUpdate, Source, SourceError, Update,
    backoff::Backoff,
    endpoints::{endpoint_nodes, port_of, tcp_ports},
    follow::at,
};

/// How long one watch lasts, in seconds. A connection that died without a word is noticed when it is over.
const WATCH: u32 = 45;

/// How often the members are confirmed while the watch goes on.
const CONFIRM: Duration = Duration::from_secs(10);

/// Follows the EndpointSlices of a Service through the Kubernetes API.
///
/// They are read as [`endpoint_nodes`] does; the half of a list is never shown. Needs `list` and `watch` on
/// `endpointslices` of `discovery.k8s.io` in the Service's namespace. Costs one watch, and memory for the slices.
pub struct Kubernetes {
    service: String,
    port: Option<String>,
    events: BoxStream<'static, Result<Event<EndpointSlice>, watcher::Error>>,
    slices: Slices,
    backoff: Backoff,
    /// The watch has failed: wait before it is taken up again.
    failed: bool,
    /// When the members are confirmed; none while there is nothing to stand by.
    confirm: Option<Instant>,
}

impl Kubernetes {
    /// [`new`](Self::new) with the credentials of the pod, or of the user's kubeconfig.
    ///
    /// # Errors
    ///
    /// [`InvalidKubernetes`] when there are none that can be used. Whether the API is reachable is not tried.
    pub async fn infer(
        namespace: &str,
        service: &str,
        port: Option<&str>,
    ) -> Result<Self, InvalidKubernetes> {
        let invalid = |error| InvalidKubernetes(Box::new(error));
        let mut config = Config::infer().await.map_err(|error| invalid(kube::Error::InferConfig(error)))?;
        config.default_retry = false;
        let client = Client::try_from(config).map_err(invalid)?;
        Ok(Self::new(client, namespace, service, port))
    }

    /// Follows `service` in `namespace`; nodes listen on the TCP port of the name `port`, or on the only one.
    ///
    /// The client should not retry by itself (`kube::Config::default_retry`): it would do so for minutes before anybody
    /// learns that the members grow old.
    #[must_use]
    pub fn new(client: Client, namespace: &str, service: &str, port: Option<&str>) -> Self {
        let selector = format!("kubernetes.io/service-name={service}");
        let config = watcher::Config::default().labels(&selector).timeout(WATCH);
        Self {
            service: format!("{namespace}/{service}"),
            port: port.map(Into::into),
            events: watcher(Api::namespaced(client, namespace), config).boxed(),
            slices: Slices::default(),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            failed: false,
            confirm: None,
        }
    }

    async fn answer(&mut self) -> Option<Result<Update, SourceError>> {
        if self.failed {
            sleep(self.backoff.wait()).await;
            self.failed = false;
        }
        loop {
            let event = tokio::select! {
                event = self.events.next() => event?,
                () = at(self.confirm) => {
                    self.confirm = Some(Instant::now() + CONFIRM);
                    return Some(Ok(Update::Confirmed));
                }
            };
            match event {
                Ok(event) => {
                    self.backoff.reset();
                    if self.slices.apply(event) {
                        return Some(self.members().map_err(SourceError::new));
                    }
                }
                Err(error) => {
                    (self.failed, self.confirm) = (true, None);
                    return Some(Err(SourceError::new(error)));
                }
            }
        }
    }

    fn members(&mut self) -> Result<Update, NoPort> {
        let (slices, port) = (self.slices.shown.values(), self.port.as_deref());
        let mut full = slices.clone().filter(|slice| !slice.endpoints.is_empty()).peekable();
        if full.peek().is_some() && full.all(|slice| port_of(slice, port).is_none()) {
            self.confirm = None;
            return Err(NoPort {
                service: self.service.clone(),
                wanted: self.port.clone(),
                there: slices.flat_map(tcp_ports).filter_map(|port| port.name.clone()).collect(),
            });
        }
        self.confirm = Some(Instant::now() + CONFIRM);
        Ok(Update::Reset(endpoint_nodes(slices, port)))
    }
}

impl Source for Kubernetes {
    fn next(&mut self) -> NextUpdate<'_> {
        Box::pin(self.answer())
    }
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes")
            .field("service", &self.service)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// There is no way to the Kubernetes API: neither a pod's credentials nor a kubeconfig.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the Kubernetes client")]
pub struct InvalidKubernetes(#[source] Box<kube::Error>);

/// Endpoints that cannot be connected to, because it is not clear where.
#[derive(Debug, thiserror::Error)]
#[error(
    "endpoints of service {service} have no single TCP port{}, but {there:?}",
    wanted.as_ref().map(|name| format!(" named {name:?}")).unwrap_or_default()
)]
struct NoPort {
    service: String,
    wanted: Option<String>,
    there: BTreeSet<String>,
}

/// The slices as of now, by name.
#[derive(Default)]
struct Slices {
    shown: BTreeMap<String, EndpointSlice>,
    /// A list that is not yet whole: the old slices count until it is.
    listed: BTreeMap<String, EndpointSlice>,
}

impl Slices {
    /// Takes an event; says whether it is a new state to show.
    fn apply(&mut self, event: Event<EndpointSlice>) -> bool {
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
        match event {
            Event::Init => {
                self.listed.clear();
                return false;
            }
            Event::InitApply(slice) => {
                self.listed.insert(name(&slice), slice);
                return false;
            }
            Event::InitDone => self.shown = std::mem::take(&mut self.listed),
            Event::Apply(slice) => drop(self.shown.insert(name(&slice), slice)),
            Event::Delete(slice) => drop(self.shown.remove(&name(&slice))),
        }
        true
    }
}
