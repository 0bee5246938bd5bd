//! The body of an answer that is made of lines, each sent when it is known.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::body::{Body, Frame, SizeHint};

use crate::drain;

/// Lines that are still being found out.
pub(super) struct Lines<F> {
    open: FuturesUnordered<F>,
    ready: BytesMut,
    /// Others have had their turn since the first line was ready.
    yielded: bool,
    /// A process that drains waits for the last line.
    _guard: drain::Guard,
}

impl<F> Lines<F> {
    pub(super) fn new(open: FuturesUnordered<F>, guard: drain::Guard) -> Self {
        Self { open, ready: BytesMut::new(), yielded: false, _guard: guard }
    }
}

impl<F: Future<Output = String>> Body for Lines<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while let Poll::Ready(Some(line)) = this.open.poll_next_unpin(cx) {
            this.ready.extend_from_slice(line.as_bytes());
            this.ready.extend_from_slice(b"\n");
        }
        if this.ready.is_empty() {
            return if this.open.is_empty() { Poll::Ready(None) } else { Poll::Pending };
        }
        // What is ready in a moment goes with the same frame.
        if !this.open.is_empty() && !std::mem::replace(&mut this.yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.yielded = false;
        Poll::Ready(Some(Ok(Frame::data(this.ready.split().freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.open.is_empty() && self.ready.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::BoxFuture};
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_known_does_not_wait_for_what_is_not() {
        let (_signal, drain) = drain::channel();
        let (late, told) = oneshot::channel();
        let open: FuturesUnordered<BoxFuture<'static, String>> = [
            async { told.await.unwrap() }.boxed(),
            async { "a".into() }.boxed(),
            async { "b".into() }.boxed(),
        ]
        .into_iter()
        .collect();
        let mut lines = Lines::new(open, drain.guard());
        let mut next = async || lines.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
        let mut first: Vec<u8> = next().await.unwrap().to_vec();
        first.sort_unstable();
        assert_eq!(first, b"\n\nab", "both in one frame, in whatever order");
        late.send("c".into()).unwrap();
        assert_eq!(next().await.unwrap(), "c\n");
        assert!(next().await.is_none());
        assert!(lines.is_end_stream());
        assert_eq!(drain.count(), 1, "the process would wait for it");
        drop(lines);
        assert_eq!(drain.count(), 0);
    }
}
