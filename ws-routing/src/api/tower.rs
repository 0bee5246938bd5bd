//! The API as a tower service, for programs that have an HTTP server already.

use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use hyper::body::Body;
use tower_service::Service;

use super::{Api, Caller};
use crate::{admin::Answer, proxy::ClientAddr};

/// Answers the node's own app: whoever reaches this service may send to any key, so put it where only the app does.
///
/// Always ready. The caller's address is the [`ClientAddr`] among the request's extensions; without one it is taken
/// for a stranger's.
impl<B> Service<Request<B>> for Api
where
    B: Body<Data = Bytes> + Send + 'static,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        const STRANGER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let caller = request.extensions().get().map_or(STRANGER, |ClientAddr(addr)| *addr);
        let api = self.clone();
        Box::pin(async move { api.answer(request.map(Box::pin), caller, Caller::App).await })
    }
}
