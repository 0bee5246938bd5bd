//! A client of HTTP/2 that opens WebSockets by extended CONNECT (RFC 8441).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{
    RecvStream, SendStream,
    client::{Builder, SendRequest},
    ext::Protocol,
};
use http::{HeaderMap, Method, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{
    authority::Authority,
    support::{
        Client, client, eventually,
        log::Logs,
        wait::{bounded, secs},
    },
};

/// One connection; dropping it cuts it.
pub struct Http2 {
    addr: SocketAddr,
    requests: SendRequest<Bytes>,
    carrier: AbortHandle,
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Http2 {
    /// Connects, and waits until the server permits extended CONNECT.
    pub async fn connect(authority: &Authority, addr: SocketAddr) -> Self {
        Self::with(authority, addr, &Builder::new()).await
    }

    pub async fn with(authority: &Authority, addr: SocketAddr, builder: &Builder) -> Self {
        let stream = authority.connect(addr, "h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        let carrier = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        let client = Self { addr, requests, carrier };
        // The server's settings come by themselves.
        eventually(secs(10), "extended CONNECT is permitted", async || {
            client.requests.is_extended_connect_protocol_enabled()
        })
        .await;
        client
    }

    /// What sends requests, one after the other.
    pub fn requests(&self) -> SendRequest<Bytes> {
        self.requests.clone()
    }

    /// Whether the server has gone, or is about to.
    pub async fn is_over(&self) -> bool {
        self.requests.clone().ready().await.is_err()
    }

    /// An extended CONNECT; `fields` go into it.
    pub fn handshake(&self, path: &str, fields: &[(&'static str, &str)]) -> Request<()> {
        let uri = format!("https://{}{path}", self.addr);
        let mut request = Request::builder().method(Method::CONNECT).uri(uri).version(http::Version::HTTP_2);
        for (name, value) in
            [("sec-websocket-version", "13"), ("origin", "https://balancer.test")].iter().chain(fields)
        {
            request = request.header(*name, *value);
        }
        request.extension(Protocol::from_static("websocket")).body(()).unwrap()
    }

    /// Sends a request's head; the answer to it, and the stream's two ways.
    pub async fn send(
        &self,
        request: Request<()>,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let end = request.method() != Method::CONNECT;
        let (answer, send) = requests.send_request(request, end)?;
        Ok((bounded(secs(20), "an answer", answer).await?, send))
    }

    /// The status alone.
    pub async fn ask_status(&self, request: Request<()>) -> u16 {
        self.send(request).await.unwrap().0.status().as_u16()
    }

    /// The status, fields and body of an answer.
    pub async fn ask(&self, request: Request<()>) -> (u16, HeaderMap, String) {
        let (answer, _send) = self.send(request).await.unwrap();
        let (parts, mut body) = answer.into_parts();
        let mut text = Vec::new();
        while let Some(piece) = bounded(secs(20), "a body", body.data()).await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            text.extend_from_slice(&piece);
        }
        (parts.status.as_u16(), parts.headers, String::from_utf8(text).unwrap())
    }

    /// Opens a WebSocket; the fields of the answer.
    pub async fn open(&self, path: &str, fields: &[(&'static str, &str)]) -> (Socket, HeaderMap) {
        let (answer, send) = self.send(self.handshake(path, fields)).await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        let (parts, recv) = answer.into_parts();
        (Socket { send, recv, rest: Bytes::new() }, parts.headers)
    }

    /// Connects client `id` under its own key.
    pub async fn client(&self, id: u32, logs: &std::sync::Arc<Logs>) -> Client<Socket> {
        let (key, number) = (client::key(id), id.to_string());
        let (socket, _) = self.open("/", &[("ws-user-id", &key), ("x-client", &number)]).await;
        Client::new(id, socket.websocket().await, logs)
    }
}

/// A stream as bytes.
pub struct Socket {
    pub send: SendStream<Bytes>,
    recv: RecvStream,
    rest: Bytes,
}

impl Socket {
    pub async fn websocket(self) -> WebSocketStream<Self> {
        WebSocketStream::from_raw_socket(self, Role::Client, None).await
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(bytes) => this.rest = bytes.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = this.rest.len().min(into.remaining());
        into.put_slice(&this.rest[..len]);
        this.rest.advance(len);
        this.recv.flow_control().release_capacity(len).map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.send.reserve_capacity(bytes.len());
        if this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(room) => drop(room.map_err(io::Error::other)?),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let len = this.send.capacity().min(bytes.len());
        this.send.send_data(Bytes::copy_from_slice(&bytes[..len]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
