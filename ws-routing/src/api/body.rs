//! Reading a request's body: bounded in bytes and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use crate::admin::Problem;

/// The body of a request, from whichever server.
pub(super) trait RequestBody: Body<Data = Bytes> + Unpin + Send {}

impl<B: Body<Data = Bytes> + Unpin + Send> RequestBody for B {}

/// How long a body may bring nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// How long a body may take.
const WHOLE: Duration = Duration::from_secs(60);

/// How much room is made at once, in bytes.
const AT_ONCE: u64 = 1 << 20;

/// The whole body.
///
/// # Errors
///
/// 413 over `most` bytes, 408 when it stalls, 400 when it ends too early.
pub(super) async fn read(mut body: impl RequestBody, most: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(413, "too-large", format!("expected at most {most} bytes"));
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let end = Instant::now() + WHOLE;
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let next = timeout_at(end.min(Instant::now() + SILENCE), body.frame()).await;
        let Ok(next) = next else {
            return Err(Problem::new(408, "body-timeout", "the body was not complete in time"));
        };
        let Some(frame) = next else { break };
        let frame = frame.map_err(|_| Problem::new(400, "bad-body", "the body is not complete"))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.as_ref().map_or(0, BytesMut::len) + data.len() > most {
            return Err(too_large());
        }
        // Most bodies come as one piece, which is not copied.
        match &mut all {
            Some(all) => all.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                // What was announced is about to come, if it is true.
                let announced = body.size_hint().lower().min(AT_ONCE) as usize;
                let mut joined = BytesMut::with_capacity(first.len() + data.len() + announced);
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&data);
                all = Some(joined);
            }
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

/// Reads what is left of a body that nobody wants, if it is there already and short: then its connection can be kept.
pub(super) async fn discard(body: &mut impl RequestBody) -> bool {
    const WAIT: Duration = Duration::from_millis(50);
    const MOST: usize = 64 * 1024;
    let (end, mut read) = (Instant::now() + WAIT, 0);
    while !body.is_end_stream() {
        match timeout_at(end, body.frame()).await {
            Ok(Some(Ok(frame))) => read += frame.into_data().map_or(0, |data| data.len()),
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        if read > MOST {
            return false;
        }
    }
    true
}
