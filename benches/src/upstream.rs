//! A bare WebSocket echo server: what stands behind the proxies that are compared.

use std::ops::Range;

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::load::{mask, message};

/// Echoes whatever connects, for ever.
///
/// # Errors
///
/// When nothing can be accepted.
pub async fn serve(listener: TcpListener) -> Result<()> {
    loop {
        let (io, _) = listener.accept().await?;
        // A client that breaks off ends its own connection only.
        io.set_nodelay(true)?;
        tokio::spawn(async move { drop(echo(io).await) });
    }
}

/// Answers each POST with its body, for ever.
///
/// # Errors
///
/// When nothing can be accepted.
pub async fn serve_http(listener: TcpListener) -> Result<()> {
    loop {
        let (mut io, _) = listener.accept().await?;
        io.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut read = Vec::new();
            loop {
                match message(&read) {
                    Ok(Some(len)) => {
                        let end = read.windows(4).position(|w| w == b"\r\n\r\n").map_or(len, |at| at + 4);
                        let mut out = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
                            len - end
                        )
                        .into_bytes();
                        out.extend_from_slice(&read[end..len]);
                        read.drain(..len);
                        if io.write_all(&out).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => match io.read_buf(&mut read).await {
                        Ok(n) if n > 0 => {}
                        _ => return,
                    },
                    Err(_) => return,
                }
            }
        });
    }
}

/// Echoes what comes on one connection, from its handshake to its end.
pub(crate) async fn echo<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) -> Result<()> {
    let mut read = handshake(&mut io).await?;
    loop {
        let mut done = 0;
        while let Some((answer, len)) = answer(&mut read[done..]) {
            let answer = &read[done..][answer];
            io.write_all(answer).await?;
            if answer.first() == Some(&0x88) {
                return Ok(());
            }
            done += len;
        }
        read.drain(..done);
        if io.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// Answers the upgrade; what came behind it.
async fn handshake<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I) -> Result<Vec<u8>> {
    let mut read = Vec::with_capacity(40 * 1024);
    let end = loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        anyhow::ensure!(io.read_buf(&mut read).await? > 0, "no request");
    };
    let text = std::str::from_utf8(&read[..end])?;
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let Some(key) = key else {
        // A probe: it is alive.
        io.write_all(b"HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await?;
        anyhow::bail!("no upgrade");
    };
    let accept =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
        BASE64_STANDARD.encode(accept)
    );
    io.write_all(answer.as_bytes()).await.context("answer")?;
    Ok(read.split_off(end))
}

/// Makes the masked frame at the beginning the answer to it, where it is; where in the frame that begins and ends, and
/// how long the frame is, if it is whole.
fn answer(bytes: &mut [u8]) -> Option<(Range<usize>, usize)> {
    let (&first, &len) = (bytes.first()?, bytes.get(1)?);
    let (start, len) = match len & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    let key: [u8; 4] = bytes.get(start..start + 4)?.try_into().ok()?;
    let end = start + 4 + len;
    mask(bytes.get_mut(start + 4..end)?, key);
    // The same header, without the key.
    bytes.copy_within(..start, 4);
    bytes[5] &= 0x7f;
    // Data and Closes go back as they came, a ping as a pong; a pong is not answered.
    match first & 0x0f {
        10 => return Some((end..end, end)),
        9 => bytes[4] = 0x8a,
        _ => {}
    }
    Some((4..end, end))
}
