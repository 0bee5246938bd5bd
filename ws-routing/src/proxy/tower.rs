//! The proxy as a tower service, for programs that have an HTTP server already.

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, task};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::{
    LegStream, Proxy,
    arrival::Arrival,
    connect::{Answered, PumpError},
    error::Refusal,
    handshake::ResponseHead,
    service::Admitted,
    serving::Joined,
};

/// The address of a request's client: put it into the request's extensions, for `x-forwarded-for` and the logs.
///
/// Without it the forwarding headers pass as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub SocketAddr);

/// The body of an answer: empty for a 101, a line of text for a refusal of ours, the app's own for its answers.
pub type Body = UnsyncBoxBody<Bytes, PumpError>;

/// Takes requests of any hyper server, such as axum, that serves connections *with upgrades*.
///
/// Each connection that is upgraded is relayed in a task of its own, which the drain's guard counts. The service is
/// always ready: what is too much is answered 503.
impl<B> Service<Request<B>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let proxy = self.clone();
        Box::pin(async move { Ok(proxy.answer(&parts, upgrade).await) })
    }
}

impl Proxy {
    async fn answer(self, parts: &Parts, upgrade: OnUpgrade) -> Response<Body> {
        let client = parts.extensions.get().map(|ClientAddr(addr)| Arrival::tcp(*addr));
        match self.admit(client, parts).await {
            Ok(Admitted::Leg(opened)) => {
                let head = opened.dialed.accepted.render(None);
                self.spawn(async move {
                    // The client has gone before it was answered when this fails.
                    if let Ok(io) = upgrade.await {
                        Joined { io: TokioIo::new(io), held: Bytes::new(), opened }.relay().await;
                    }
                });
                response(&head, empty())
            }
            Ok(Admitted::Answered(answered, place)) => {
                let stall = self.stall_timeout();
                response(&answered.head.render(), body(*answered, stall, place))
            }
            Err(refusal) => {
                self.count_refusal(&refusal);
                refusal.response().map(|text| Full::new(text).map_err(|never| match never {}).boxed_unsync())
            }
        }
    }
}

/// A rendered head as hyper takes it. Framing is hyper's own business.
fn response(head: &[u8], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    match ResponseHead::parse(head) {
        Ok(Some((head, _))) => {
            *response.status_mut() = head.parts.status;
            *response.headers_mut() = without_framing(head.parts.headers, head.parts.status);
        }
        // What we have rendered can be read; were it not, the client would hear of it.
        Ok(None) | Err(_) => *response.status_mut() = Refusal::Unreachable.status(),
    }
    response
}

fn without_framing(mut headers: HeaderMap, status: StatusCode) -> HeaderMap {
    headers.remove(header::TRANSFER_ENCODING);
    if status != StatusCode::SWITCHING_PROTOCOLS {
        headers.remove(header::CONNECTION);
    }
    headers
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

/// The app's body, as it comes; `held` is kept until its end.
fn body(answered: Answered<LegStream>, stall: std::time::Duration, held: impl Send + 'static) -> Body {
    let pieces = stream::unfold(Some((answered, held)), move |state| async move {
        let (mut answered, held) = state?;
        match answered.data(stall).await {
            Ok(Some(data)) => Some((Ok(Frame::data(data)), Some((answered, held)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}
