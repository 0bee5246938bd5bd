//! The last words on a connection that is not upgraded.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Writes `answer`, if any, and closes `io` in such a way that the client can read it.
///
/// A socket that is closed with unread bytes in it resets the connection, and the reset may overtake the answer: a
/// refusal of a too large head would not be seen. So the rest is read and dropped, for 1 s and 256 KiB at most, unless
/// the client closes before; writing may take 5 s.
///
/// # Errors
///
/// The connection's. It is lost then in any case.
pub async fn finish(io: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) -> io::Result<()> {
    let write = async {
        io.write_all(answer).await?;
        io.shutdown().await
    };
    timeout(Duration::from_secs(5), write).await??;
    let (mut rest, mut nowhere) = (io.take(256 * 1024), tokio::io::sink());
    let drop_rest = tokio::io::copy(&mut rest, &mut nowhere);
    match timeout(Duration::from_secs(1), drop_rest).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
