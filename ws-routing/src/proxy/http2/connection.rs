//! One HTTP/2 connection: its streams are taken in, each in a task of its own, until the client is done or is told to go.

use std::{future::pending, future::poll_fn, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{STREAMS, WINDOW, answer, request::as_http1, stream::Stream};
use crate::{
    drain::Drain,
    proxy::{
        Arrival, Proxy, Via,
        connect::Answered,
        error::Refusal,
        handshake::head::Limits,
        leg::LegStream,
        service::Admitted,
        serving::{Joined, Opened},
    },
    serve,
};

/// How long a client that is told to go, and has no stream, may stay.
const FAREWELL: Duration = Duration::from_secs(5);

/// How many more handshakes a client may take back before they are answered than become connections.
const ABANDONED: u32 = 100;

/// Serves a connection on which HTTP/2 was agreed, the first bytes of which are to be there at `until`.
pub(in crate::proxy) async fn serve(
    proxy: &Proxy,
    io: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    until: Instant,
) {
    let handshake = builder(proxy.limits()).handshake(io);
    match timeout_at(until, handshake).await {
        Ok(Ok(connection)) => run(proxy, connection, Arrival { peer, via: Via::Http2 }, until).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no HTTP/2 with a client"),
        Err(_) => tracing::debug!(%peer, "a client did not begin HTTP/2"),
    }
}

fn builder(limits: Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * u32::from(STREAMS))
        .max_concurrent_streams(STREAMS.into())
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .max_send_buffer_size(WINDOW as usize);
    builder
}

async fn run<I>(proxy: &Proxy, mut connection: Connection<I, Bytes>, arrival: Arrival, until: Instant)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut streams = JoinSet::new();
    let mut idle = pin!(sleep_until(until));
    let mut draining = pin!(begun(proxy.drain()));
    let (mut leaving, mut abandoned) = (false, 0);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn(handle(proxy.clone(), arrival, request, respond));
                }
                Some(Err(error)) => {
                    tracing::debug!(peer = %arrival.peer, %error, "an HTTP/2 connection was cut");
                    break;
                }
                None => break,
            },
            Some(ended) = streams.join_next() => {
                abandoned = count(ended, abandoned);
                if abandoned > ABANDONED {
                    leaving = true;
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                let patience = if leaving { FAREWELL } else { proxy.limits().timeout };
                idle.as_mut().reset(Instant::now() + patience);
            }
            () = &mut draining, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
            () = &mut idle, if streams.is_empty() => {
                if leaving {
                    break;
                }
                leaving = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + FAREWELL);
            }
        }
    }
    // Those that are left see their end, and tell their nodes.
    drop(connection);
    while let Some(ended) = streams.join_next().await {
        count(ended, 0);
    }
}

async fn begun(drain: Option<&Drain>) {
    match drain {
        Some(drain) => drop(drain.began().await),
        None => pending().await,
    }
}

fn count(ended: Result<Fate, JoinError>, abandoned: u32) -> u32 {
    match ended {
        Ok(Fate::Abandoned) => abandoned + 1,
        Ok(Fate::Relayed) => abandoned.saturating_sub(1),
        Ok(Fate::Answered) => abandoned,
        Err(error) => {
            serve::report(&error);
            abandoned
        }
    }
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was a client's connection.
    Relayed,
    /// It was to be none: that costs too little to make up for what was taken back.
    Answered,
    /// The client has taken it back before.
    Abandoned,
}

async fn handle(
    proxy: Proxy,
    arrival: Arrival,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Fate {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let admitted = async {
        let parts = as_http1(parts, proxy.limits(), rand::random())?;
        proxy.admit(Some(arrival), &parts).await
    };
    let admitted = tokio::select! {
        admitted = admitted => admitted,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return Fate::Abandoned,
    };
    match admitted {
        Ok(Admitted::Leg(opened)) => {
            relay(&proxy, opened, body, respond, began).await;
            return Fate::Relayed;
        }
        Ok(Admitted::Answered(answered, _place)) => {
            forward(*answered, body, respond, proxy.stall_timeout()).await;
        }
        Err(refusal) => {
            // Its bytes are nobody's.
            drop(body);
            refuse(&proxy, &refusal, respond);
        }
    }
    Fate::Answered
}

async fn relay(
    proxy: &Proxy,
    opened: Box<Opened>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    began: Instant,
) {
    let head = answer::head(&opened.dialed.accepted.render(None));
    // The client has gone before it was answered when this fails.
    if let Ok(send) = respond.send_response(head, false) {
        proxy.metrics().handshake().observe(began.elapsed());
        Joined { io: Stream::new(send, body), held: Bytes::new(), opened }.relay().await;
    }
}

/// The app's answer, whose end the client sees only if all of it came.
async fn forward(
    mut answered: Answered<LegStream>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    stall: Duration,
) {
    let Ok(send) = respond.send_response(answer::head(&answered.head.render()), false) else { return };
    let mut io = Stream::new(send, body);
    while let Ok(Some(data)) =
        answered.data(stall).await.inspect_err(|_| respond.send_reset(Reason::INTERNAL_ERROR))
    {
        if !matches!(timeout(stall, io.write_all(&data)).await, Ok(Ok(()))) {
            return respond.send_reset(Reason::CANCEL);
        }
    }
    // After a reset this has no effect.
    let _ = io.shutdown().await;
}

fn refuse(proxy: &Proxy, refusal: &Refusal, mut respond: SendResponse<Bytes>) {
    proxy.count_refusal(refusal);
    let (parts, text) = refusal.response().into_parts();
    let mut head = Response::new(());
    *head.status_mut() = parts.status;
    *head.headers_mut() = answer::without_connection(parts.headers);
    if let Ok(mut send) = respond.send_response(head, false) {
        // Nobody is left to be told when this fails.
        let _ = send.send_data(text, true);
    }
}
