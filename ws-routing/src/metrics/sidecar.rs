//! What only a sidecar counts: sends of applications, and requests to its own and to its peers.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{
    Counter,
    families::{Families, Labelled, each, pairs},
    labels::{Ack, AppRequest, PeerResult, SendResult},
    timing::Timing,
};

/// The handles of a sidecar's own metrics. Cloning is a reference count.
#[derive(Clone)]
pub struct SidecarMetrics {
    shared: Arc<Shared>,
}

struct Shared {
    sends: Vec<Counter>,
    send_duration: Timing,
    app_requests: Labelled<2>,
    peer_requests: Vec<Counter>,
}

impl SidecarMetrics {
    pub(super) fn register(families: &mut Families) -> Self {
        let answered = AppRequest::ALL.iter().map(|kind| [(*kind).into(), "200".into()]);
        let shared = Shared {
            sends: families.labels("ws_sends_total", pairs(Ack::ALL, SendResult::ALL)),
            send_duration: families.timing("ws_send_duration_seconds"),
            app_requests: families.labelled("ws_app_requests_total", answered),
            peer_requests: families.labels("ws_peer_requests_total", each(PeerResult::ALL)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sends that applications asked for.
    #[must_use]
    pub fn sends(&self, ack: Ack, result: SendResult) -> &Counter {
        &self.shared.sends[ack as usize * SendResult::ALL.len() + result as usize]
    }

    /// From the request to its answer.
    #[must_use]
    pub fn send_duration(&self) -> &Timing {
        &self.shared.send_duration
    }

    /// Requests to the application over HTTP that were answered with that status; `None`: not answered.
    #[must_use]
    pub fn app_requests(&self, kind: AppRequest, status: Option<u16>) -> Counter {
        let status = status.map_or(Cow::Borrowed("none"), |status| status.to_string().into());
        self.shared.app_requests.get([kind.into(), status])
    }

    /// Requests to other sidecars.
    #[must_use]
    pub fn peer_requests(&self, result: PeerResult) -> &Counter {
        &self.shared.peer_requests[result as usize]
    }
}

impl fmt::Debug for SidecarMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarMetrics").finish_non_exhaustive()
    }
}
