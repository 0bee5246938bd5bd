//! Accepting connections: listeners, and one task for each connection under an owner.

use std::{future::pending, io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{
    metrics::Metrics,
    proxy::connect::{settle, settle_socket},
};

/// Listens on `addr`. Port 0 takes a free one.
///
/// A listener of a process that has just ended is no obstacle; a live one is. Must be called within a tokio runtime.
///
/// # Errors
///
/// [`BindError`], above all when the address is in use.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    listen(addr).map_err(|source| BindError { addr, source })
}

/// How many connections may wait to be accepted. The kernel's `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    // Before any connection: they have what it has when they come.
    settle_socket(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

/// Accepts connections and runs `handle` for each in a task of its own, until `stop` is done; then closes the
/// listener and waits for those tasks. Dropping the future aborts them.
///
/// `TCP_NODELAY` and keepalive are set on each connection. Faults of accepting (no file descriptors left, a client that has gone
/// again) are counted in `metrics` and survived. A balancer that drains goes on accepting, to answer 503: its `stop`
/// is the process's end. The number of connections is not limited here but by `handle`, which can say so to the client.
pub async fn serve<H, F>(listener: TcpListener, stop: impl Future<Output = ()>, metrics: Metrics, handle: H)
where
    H: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    // Linux hands a listener's options on to its connections; elsewhere each is set.
    let inherits = cfg!(target_os = "linux") && settle_socket(&SockRef::from(&listener)).is_ok();
    let mut tasks = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if !inherits {
                        // A socket that refuses it is dead, as its reader will see at once.
                        let _ = settle(&stream);
                    }
                    tasks.spawn(handle(stream, peer));
                }
                Err(error) => {
                    metrics.accept_errors().inc();
                    recover(&error).await;
                }
            },
            Some(ended) = tasks.join_next() => note(ended),
        }
    }
    drop(listener);
    while let Some(ended) = tasks.join_next().await {
        note(ended);
    }
}

/// What follows a failed accept: nothing when only that one client is concerned, a pause when it would fail again.
async fn recover(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "cannot accept connections, trying again");
    sleep(PAUSE).await;
}

/// Long enough not to spin while there is no file descriptor, short enough not to be seen by a client.
const PAUSE: Duration = Duration::from_millis(50);

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        report(&error);
    }
}

/// A connection's task that panicked has lost that connection and nothing else.
pub(crate) fn report(error: &JoinError) {
    if error.is_panic() {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// Waits until one of a program's parts has panicked. Parts that end otherwise have done their work.
///
/// # Cancel safety
///
/// May be cancelled and called again.
pub async fn fault(parts: &mut JoinSet<()>) -> JoinError {
    loop {
        match parts.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return error,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{Notify, mpsc, oneshot},
    };

    use super::*;

    fn loopback() -> TcpListener {
        bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let held = loopback().local_addr();
        let listener = loopback();
        let addr = listener.local_addr().unwrap();
        let error = bind(addr).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {addr}"));
        assert!(bind(held.unwrap()).is_ok(), "one that was dropped is free again");
    }

    #[tokio::test]
    async fn it_stops_accepting_and_waits_for_its_connections() {
        let listener = loopback();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::new(Notify::new());
        let (has, mut options) = mpsc::unbounded_channel();
        let early = TcpStream::connect(addr).await.unwrap();
        let metrics = Metrics::new("test");
        let mut server = tokio::spawn({
            let served = Arc::clone(&served);
            async move {
                let stop = async { drop(stopped.await) };
                serve(listener, stop, metrics, |mut stream, _| {
                    let (served, has) = (Arc::clone(&served), has.clone());
                    async move {
                        // Of the first one too, which came before anything was served.
                        has.send((stream.nodelay().unwrap(), SockRef::from(&stream).keepalive().unwrap()))
                            .unwrap();
                        let mut byte = [0];
                        let got = stream.read_exact(&mut byte).await;
                        assert!(got.is_ok(), "a connection that brings no byte makes this task panic");
                        stream.write_all(&byte).await.unwrap();
                        served.notify_one();
                    }
                })
                .await;
            }
        });
        drop(early);
        let mut client = TcpStream::connect(addr).await.unwrap();
        let mut second = TcpStream::connect(addr).await.unwrap();
        second.write_all(b"2").await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'2');
        served.notified().await;
        stop.send(()).unwrap();
        while TcpStream::connect(addr).await.is_ok() {}
        for _ in 0..3 {
            assert_eq!(options.recv().await, Some((true, true)));
        }
        assert!(!server.is_finished(), "one connection is still held");
        client.write_all(b"1").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'1');
        (&mut server).await.unwrap();
    }
}
