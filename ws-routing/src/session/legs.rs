//! Serving legs: a handshake that a balancer or a relaying sidecar has routed here is opened at the app.

use std::{
    future::{pending, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderMap, Response, StatusCode, header, request::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

use super::{
    drive::Drive,
    fence::{Fenced, Fences},
    relay::{Finished, Session},
    route_field::RouteField,
    seat::{Guest, Seated, Seats, Whither},
    shape::{Shape, Within},
};
use crate::{
    app::{App, AppError, AppLeg, FarEnd},
    drain::{Drain, Guard, Phase},
    membership::View,
    metrics::Metrics,
    node::{NodeId, NodeState},
    proxy::{
        LegStream, Settings,
        connect::{OpenError, Opened, Upgraded},
        error::{self, Refusal, SidecarRefusal},
        handshake::{Handshake, LegHeaders, finish, head::RequestHead},
        relay::Nonce,
        shown,
        wire::Wire,
    },
    trace::Tracer,
};

/// What serving a leg takes.
#[derive(Clone, Debug)]
pub(crate) struct Legs {
    pub(super) node: NodeId,
    pub(super) app: Arc<dyn App>,
    pub(super) route: Option<RouteField>,
    pub(super) view: View,
    pub(super) drain: Drain,
    pub(super) metrics: Metrics,
    pub(super) settings: Arc<Settings>,
    pub(super) seats: Seats,
    pub(super) fences: Fences,
    /// Whether its connections are counted here, and not where the client came in.
    pub(super) counted: bool,
    /// Whether keys are logged as they are.
    pub(super) log_keys: bool,
    pub(super) tracer: Tracer,
}

impl Legs {
    /// The state that this node tells of itself.
    pub(crate) fn state(&self) -> NodeState {
        if self.drain.is_draining() { NodeState::Draining } else { NodeState::Ready }
    }

    /// Answers a leg whose handshake's head has been read; the leg, if it is to be relayed.
    pub(crate) async fn join(
        &self,
        mut io: LegStream,
        head: &RequestHead,
        mut leg: LegHeaders,
        peer: Option<SocketAddr>,
    ) -> Option<LegJoined> {
        let began = Instant::now();
        leg.connection.get_or_insert_with(|| format!("{:032x}", rand::random::<u128>()).into());
        let AppLeg { opened, far } = match self.open(head, &leg).await {
            Ok(opened) => opened,
            Err(refusal) => {
                self.refuse(&mut io, &refusal).await;
                return None;
            }
        };
        let stall = self.settings.stall_timeout;
        match opened {
            Opened::Upgraded(upgraded) => {
                let guard = self.drain.guard();
                // Who reads the 101 may have somebody send to the key at once: it has to be found by then.
                let arrival = self.take_in(head, leg, &upgraded, peer);
                let answer = upgraded.answer.render(Some(self.state()));
                if matches!(timeout(stall, io.write_all(&answer)).await, Ok(Ok(()))) {
                    self.metrics.handshake().observe(began.elapsed());
                    return Some(self.joined(io, head, arrival, upgraded, far, guard));
                }
                let Arrival { fenced, seated, .. } = arrival;
                drop((upgraded, seated));
                hand_over(far, &fenced).await;
            }
            Opened::Answered(answered) => {
                // The leg is closed whatever becomes of the answer.
                let _ = answered.forward(&mut io, stall).await;
                let _ = finish(&mut io, &[]).await;
            }
        }
        None
    }

    /// Answers an order to cut a leg.
    pub(super) async fn fence(&self, io: &mut (impl AsyncRead + AsyncWrite + Unpin), found: bool) {
        let mut response = Response::new(bytes::Bytes::new());
        *response.status_mut() = if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        if !found {
            headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("0"));
        }
        // Whoever asked is gone when this fails.
        let _ = finish(io, &error::render(&response)).await;
    }

    pub(crate) async fn refuse(&self, io: &mut (impl AsyncRead + AsyncWrite + Unpin), refusal: &Refusal) {
        self.metrics.refused(refusal.status().as_u16()).inc();
        // Nobody is left to be told when this fails.
        let _ = finish(io, &refusal.render_from(self.state())).await;
    }

    /// Opens a leg at the app.
    async fn open(&self, head: &RequestHead, leg: &LegHeaders) -> Result<AppLeg, Refusal> {
        let (parts, mut span) = self.tracer.enter("leg", &head.parts);
        let opened = self.open_app(&parts, leg).await;
        if let Some(span) = &mut span {
            span.set("ws.connection", leg.connection.as_deref().unwrap_or_default());
            span.set("ws.node", self.node.as_str());
            span.answered(match &opened {
                Ok(AppLeg { opened: Opened::Upgraded(_), .. }) => 101,
                Ok(AppLeg { opened: Opened::Answered(answered), .. }) => answered.head.parts.status.as_u16(),
                Err(refusal) => refusal.status().as_u16(),
            });
        }
        opened
    }

    async fn open_app(&self, parts: &Parts, leg: &LegHeaders) -> Result<AppLeg, Refusal> {
        // Once the window is over nobody would close the leg any more.
        let ended = self.drain.phase() == Phase::Ended;
        if ended || self.state() == NodeState::Draining && self.another_is_ready() {
            return Err(SidecarRefusal::Draining.into());
        }
        let mut handshake = Handshake::check(parts, None)?;
        if self.settings.skip_on_move > 0 {
            // What is dropped must not be what later messages are compressed against.
            handshake = handshake.without_server_context();
        }
        if self.route.is_some() {
            handshake = handshake.without_extensions();
        }
        let opened = self.app.open(&handshake, leg).await.map_err(|error| match error {
            AppError::Open(OpenError::Nonsense(what)) => Refusal::AppNonsense(what.what()),
            AppError::Open(OpenError::TimedOut) => SidecarRefusal::AppTimedOut.into(),
            AppError::Open(OpenError::Lost(_)) => SidecarRefusal::AppSilent.into(),
            AppError::Dial(_) => SidecarRefusal::AppUnreachable.into(),
        })?;
        Ok(match &self.route {
            Some(route) => route.between(opened, leg),
            None => opened,
        })
    }

    fn another_is_ready(&self) -> bool {
        let members = self.view.load();
        members.nodes().iter().any(|node| node.state == NodeState::Ready && node.id != self.node)
    }

    /// Makes the leg known, to senders and to who may cut it.
    fn take_in(
        &self,
        head: &RequestHead,
        leg: LegHeaders,
        upgraded: &Upgraded<LegStream>,
        peer: Option<SocketAddr>,
    ) -> Arrival {
        let nonce = Nonce::of(&leg);
        let connection = leg.connection.unwrap_or_default();
        let fenced = self.fences.take_in(&connection, nonce);
        let remote = client(&head.parts.headers).or_else(|| peer.map(|peer| peer.to_string().into()));
        let subprotocol = upgraded.answer.agreed().protocol.as_deref().map(Into::into);
        let guest = Guest { key: leg.key, connection, moved_from: leg.moved_from, remote, subprotocol };
        Arrival { nonce, fenced, seated: self.seats.take_seat(guest) }
    }

    fn joined(
        &self,
        io: LegStream,
        head: &RequestHead,
        arrival: Arrival,
        upgraded: Upgraded<LegStream>,
        far: Option<FarEnd>,
        guard: Guard,
    ) -> LegJoined {
        let shape = Shape {
            compressed: upgraded.answer.agreed().deflate.is_some(),
            moved_in: arrival.seated.seat().guest().moved_from.is_some(),
            within: far.as_ref().map(|far| Within { mark: Nonce(far.mark), pinged: far.pinged }),
        };
        let own = Nonce(rand::random());
        let machine = Session::new(Duration::ZERO, &self.settings, arrival.nonce, own, shape);
        let down = Wire::new(io, &head.leftover());
        let up = Wire::new(upgraded.io, &upgraded.leftover);
        LegJoined(Box::new(Joined { machine, down, up, arrival, far, guard }))
    }

    /// Relays a leg that was answered until it ends.
    pub(crate) async fn relay(&self, LegJoined(joined): LegJoined) {
        let Joined { machine, down, up, arrival, mut far, guard } = joined.out();
        let Arrival { fenced, mut seated, .. } = arrival;
        let counted = self.counted.then(|| Counted::new(&self.metrics));
        let began = Instant::now();
        let finished = {
            // In a box of its own: within the task's it would be there twice, before and after it begins.
            let drive = Box::pin(Drive::new(machine, down, up, &self.metrics, &mut seated));
            tokio::select! {
                biased;
                () = fenced.ordered() => None,
                finished = beside(&mut far, drive) => Some(finished),
            }
        };
        if let Some(far) = &far
            && (finished.is_none() || !self.counted)
        {
            // A client of its own is gone with its leg: nobody else could have cut that.
            far.elsewhere.tell(finished.is_none());
        }
        match finished {
            None => {
                seated.over(Some(Whither::Sought));
                self.log_end(seated.seat().guest(), began, None);
            }
            Some(finished) => self.ended(seated.seat().guest(), began, finished),
        }
        drop((counted, seated));
        // In a box of its own: its timer would be held within the task's as long as the leg lasts.
        Box::pin(hand_over(far, &fenced)).await;
        drop(guard);
    }

    fn ended(&self, guest: &Guest, began: Instant, finished: Finished) {
        if self.counted {
            self.metrics.closed(finished.code).inc();
        }
        self.log_end(guest, began, Some(finished));
    }

    /// `finished`: nothing for a leg that was cut, as its connection is elsewhere. Of a client of its own the proxy
    /// tells.
    fn log_end(&self, guest: &Guest, began: Instant, finished: Option<Finished>) {
        if !self.counted {
            return;
        }
        let (code, moved) =
            (finished.map(|finished| finished.code), finished.is_none_or(|finished| finished.moved));
        let seconds = began.elapsed().as_secs();
        tracing::info!(
            connection = &*guest.connection, key = %shown(&guest.key, self.log_keys), remote = guest.remote.as_deref(),
            node = %self.node, code, moved, seconds, "leg ended"
        );
    }
}

/// A leg that has its answer, and is about to be relayed.
pub(crate) struct LegJoined(Box<Joined>);

struct Joined {
    machine: Session,
    down: Wire<LegStream>,
    up: Wire<LegStream>,
    arrival: Arrival,
    far: Option<FarEnd>,
    guard: Guard,
}

impl Joined {
    /// What is in the box, which is gone then: a pattern would keep it as long as the connection.
    fn out(self: Box<Self>) -> Self {
        *self
    }
}

/// Lets the app's end within this process hand over what it has read, for as long as it may. An order to cut the leg that
/// comes by then tells it that the connection is elsewhere.
async fn hand_over(far: Option<FarEnd>, fenced: &Fenced) {
    let Some(FarEnd { run, linger, elsewhere, .. }) = far else { return };
    let ordered = async {
        fenced.ordered().await;
        elsewhere.tell(true);
        pending::<()>().await;
    };
    tokio::select! {
        // What it could not hand over by then is lost with the leg.
        _ = timeout(linger, run) => {}
        () = ordered => {}
    }
}

/// A leg that others know of, until this is dropped.
struct Arrival {
    nonce: Option<Nonce>,
    fenced: Fenced,
    seated: Seated,
}

/// Runs `drive`, and the far end of its stream beside it as long as that has something to do.
async fn beside<T>(far: &mut Option<FarEnd>, mut drive: Pin<Box<impl Future<Output = T>>>) -> T {
    poll_fn(|cx| {
        if let Poll::Ready(finished) = drive.as_mut().poll(cx) {
            return Poll::Ready(finished);
        }
        if far.as_mut().is_some_and(|far| far.run.as_mut().poll(cx).is_ready()) {
            *far = None;
        }
        Poll::Pending
    })
    .await
}

/// The client's address as the first proxy before us saw it.
fn client(headers: &HeaderMap) -> Option<Box<str>> {
    let first = headers.get("x-forwarded-for")?.to_str().ok()?.split(',').next()?.trim();
    (!first.is_empty()).then(|| first.into())
}

/// A held leg in the gauge, also when its task is aborted.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.opened().inc();
        metrics.connections().inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections().dec();
    }
}
