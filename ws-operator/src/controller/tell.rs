//! Says how everything is: statuses, events and metrics; and has restarted what asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use ws_routing::{Members, node::NodeState};

use super::{Controller, apply::Report};
use crate::{
    Group, Ring,
    crd::{WebSocketApp, WebSocketAppStatus},
    inject::Presence,
    members::Rings,
    names,
    status::{BalancerFact, Facts, status},
    table::Place,
    watchdog::{self, Candidates, Notice},
    world::{PodSeen, World},
};

/// How long a balancer may take to say how many connections it holds.
const SCRAPE: Duration = Duration::from_secs(2);

/// Bytes of metrics that are read at most.
const PAGE: usize = 4 << 20;

/// How long all that may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How many balancers are asked at once.
const AT_ONCE: usize = 32;

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Names of notices.
    notices: BTreeSet<String>,
}

/// What is to be told now.
pub(super) struct Telling {
    apps: Vec<About>,
    notices: BTreeMap<String, Notice>,
    restarts: Candidates,
    counts: (usize, usize),
}

/// A `WebSocketApp` whose status is to be written, if it is another.
struct About {
    place: Place,
    had: Option<WebSocketAppStatus>,
    facts: Facts,
    group: Option<Group>,
    selector: Option<String>,
    balancers: Vec<IpAddr>,
}

impl Told {
    pub(super) fn look(
        &mut self,
        world: &World,
        reports: &BTreeMap<String, Report>,
        rings: &Rings,
    ) -> Telling {
        let mut notices = watchdog::notices(world);
        // What is over is told again when it comes again.
        self.notices.retain(|name| notices.contains_key(name));
        notices.retain(|name, _| !self.notices.contains(name));
        Telling {
            apps: world.apps.iter().map(|(place, app)| about(place, app, world, reports, rings)).collect(),
            notices,
            restarts: watchdog::candidates(world),
            counts: watchdog::count(world.pods_of(None)),
        }
    }

    /// These notices were told.
    pub(super) fn done(&mut self, notices: Vec<String>) {
        self.notices.extend(notices);
    }
}

fn about(
    place: &Place,
    app: &WebSocketApp,
    world: &World,
    reports: &BTreeMap<String, Report>,
    rings: &Rings,
) -> About {
    let group = app.spec.group();
    let mut facts = Facts { generation: app.metadata.generation, ..Facts::default() };
    let mut balancers = Vec::new();
    if let Some(group) = &group {
        let ring = Ring { namespace: place.namespace.clone(), group: group.clone() };
        fill(&mut facts, &ring, world, reports.get(&place.namespace));
        facts.superseded =
            world.app(&place.namespace, group).is_none_or(|first| first.metadata.uid != app.metadata.uid);
        let service = Place { namespace: place.namespace.clone(), name: group.headless_service() };
        count(&mut facts, &rings.members(&service));
        balancers = balancers_of(&ring, world);
        if balancers.is_empty() {
            // Where there is no balancer, the sidecars hold the clients.
            balancers = world
                .pods_of(Some(&ring))
                .filter_map(|(_, pod)| pod.ip.filter(|_| has_sidecar(pod)))
                .collect();
        }
    }
    let selector = app.spec.selector.as_ref().map(selector);
    About { place: place.clone(), had: app.status.clone(), facts, group, selector, balancers }
}

fn fill(facts: &mut Facts, ring: &Ring, world: &World, report: Option<&Report>) {
    let of_group = |group: &Group| *group == ring.group;
    facts.pods = world.pods_of(Some(ring)).count();
    (facts.uninjected, facts.outdated) = watchdog::count(world.pods_of(Some(ring)));
    if let Some(report) = report {
        let taken = report.taken.iter().filter(|(group, _)| of_group(group));
        facts.taken = taken.map(|(_, name)| name.clone()).collect();
        facts.unmonitored = report.unmonitored.iter().any(of_group);
    }
    let plan = world.plans(&ring.namespace).into_iter().find(|plan| of_group(&plan.ring.group));
    if plan.is_none_or(|plan| plan.balancer.is_some()) {
        let place = Place { namespace: ring.namespace.clone(), name: ring.group.balancer() };
        facts.balancer =
            world.balancers.get(&place).map_or(BalancerFact::Absent, |running| BalancerFact::There(*running));
    }
}

fn count(facts: &mut Facts, members: &Members) {
    facts.ready = members.nodes().iter().filter(|node| node.state == NodeState::Ready).count();
    facts.draining = members.nodes().len() - facts.ready;
    facts.fingerprint = members.fingerprint().to_string();
}

fn balancers_of(ring: &Ring, world: &World) -> Vec<IpAddr> {
    let pods = world.balancer_pods.within(&ring.namespace).map(|(_, pod)| pod);
    pods.filter(|pod| pod.group.as_ref() == Some(&ring.group)).filter_map(|pod| pod.ip).collect()
}

fn has_sidecar(pod: &PodSeen) -> bool {
    matches!(pod.presence, Some(Presence::Current | Presence::Outdated))
}

/// As the API has it in a query.
fn selector(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> String {
    match kube::core::Selector::try_from(selector.clone()) {
        Ok(selector) => selector.to_string(),
        // One that the API cannot express selects nothing.
        Err(_) => "!ws.operator/enable,ws.operator/enable".into(),
    }
}

impl Controller {
    /// Says all that; answers with the notices that were told.
    pub(super) async fn tell(&self, telling: Telling) -> Vec<String> {
        let told = timeout(LIMIT, self.tell_all(telling)).await;
        told.unwrap_or_else(|_| {
            self.metrics.failed("status");
            tracing::warn!("not everything was told in time");
            Vec::new()
        })
    }

    async fn tell_all(&self, telling: Telling) -> Vec<String> {
        let Telling { apps, notices, restarts, counts: (uninjected, outdated) } = telling;
        self.metrics.pods(uninjected, outdated);
        for app in apps {
            let place = app.place.clone();
            if let Err(error) = self.tell_status(app).await {
                self.metrics.failed("status");
                tracing::warn!(?place, error = format!("{error:#}"), "cannot write the status, trying again");
            }
        }
        let mut told = Vec::new();
        for (name, notice) in notices {
            match self.notify(notice).await {
                Ok(()) => told.push(name),
                Err(error) => {
                    self.metrics.failed("event");
                    tracing::debug!(%error, "an event cannot be written, trying again");
                }
            }
        }
        if let Err(error) = self.restart(restarts).await {
            self.metrics.failed("restart");
            tracing::warn!(error = format!("{error:#}"), "cannot restart a workload, trying again");
        }
        told
    }

    async fn tell_status(&self, app: About) -> anyhow::Result<()> {
        let About { place, had, mut facts, group, selector, balancers } = app;
        facts.connections = connections(&balancers).await;
        let api: Api<WebSocketApp> = Api::namespaced(self.client.clone(), &place.namespace);
        if let (Some(selector), Some(group)) = (selector, group) {
            self.count_selected(&mut facts, &place.namespace, &selector, &group).await?;
        }
        let now = status(&facts, had.as_ref(), Timestamp::now());
        if had.as_ref() == Some(&now) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": "ws.operator/v1alpha1", "kind": "WebSocketApp",
            "metadata": {"namespace": place.namespace, "name": place.name}, "status": now,
        });
        let params = PatchParams::apply(names::OPERATOR).force();
        match api.patch_status(&place.name, &params, &Patch::Apply(body)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }

    /// Instead of all pods of the group, those that are selected, labelled or not.
    async fn count_selected(
        &self,
        facts: &mut Facts,
        namespace: &str,
        selector: &str,
        group: &Group,
    ) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default().labels(selector).match_any()).await?;
        let seen: Vec<(Place, PodSeen)> = pods
            .iter()
            .map(|pod| (Place::of(pod), PodSeen::of(pod, &self.settings)))
            .filter(|(_, pod)| !pod.ends && pod.group.as_ref() == Some(group))
            .collect();
        let unlabelled = seen.iter().filter(|(_, pod)| pod.presence.is_none()).count();
        let (uninjected, outdated) = watchdog::count(seen.iter().map(|(place, pod)| (place, pod)));
        (facts.pods, facts.uninjected, facts.outdated) = (seen.len(), uninjected + unlabelled, outdated);
        Ok(())
    }

    pub(super) async fn notify(&self, notice: Notice) -> kube::Result<()> {
        let Notice { kind, place, uid, reason, text, warns } = notice;
        let event = Event {
            type_: if warns { EventType::Warning } else { EventType::Normal },
            reason: reason.into(),
            note: Some(text),
            action: "Inject".into(),
            secondary: None,
        };
        let about = ObjectReference {
            api_version: Some(if kind == "Pod" { "v1" } else { "apps/v1" }.into()),
            kind: Some(kind.into()),
            namespace: Some(place.namespace),
            name: Some(place.name),
            uid,
            ..ObjectReference::default()
        };
        self.recorder.publish(&event, &about).await
    }
}

/// The connections of all that answer; `None` when there are some and nobody does.
async fn connections(pods: &[IpAddr]) -> Option<i64> {
    let asked = stream::iter(pods.iter().copied()).map(|ip| timeout(SCRAPE, scrape(ip)));
    let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    let held: Vec<i64> = answers.into_iter().filter_map(|answer| answer.ok()?.ok()?).collect();
    (pods.is_empty() || !held.is_empty()).then(|| held.iter().sum())
}

async fn scrape(ip: IpAddr) -> anyhow::Result<Option<i64>> {
    let stream = TcpStream::connect((ip, names::ADMIN_PORT)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get("/metrics").header("host", ip.to_string()).body(Empty::<Bytes>::new())?;
    let page = Limited::new(sender.send_request(request).await?.into_body(), PAGE).collect().await;
    let page = page.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok(held(&String::from_utf8_lossy(&page)))
}

/// The number of connections on a page of metrics.
fn held(page: &str) -> Option<i64> {
    page.lines().find_map(|line| line.strip_prefix("ws_connections "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_found_on_a_page_of_metrics() {
        let page = "# TYPE ws_connections gauge\nws_connections 17\nws_connections_opened_total 99\n";
        assert_eq!(held(page), Some(17));
        assert_eq!(held("ws_connections_opened_total 99\n"), None);
    }
}
