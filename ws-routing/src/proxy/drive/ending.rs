//! The end of a relayed connection: what was said last is written, then both sockets are closed.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{super::relay::End, Drive};

/// How long what was said last may take to be written.
const FAREWELL: Duration = Duration::from_secs(5);

impl<C: AsyncRead + AsyncWrite + Unpin + 'static> Drive<C> {
    /// Begins the end that the machine has come to.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        self.finishing = self.machine.end();
        self.take_dial();
        self.timer.as_mut().reset(Instant::now() + FAREWELL);
        // Not armed by anything else from here on.
        let _ = self.timer.as_mut().poll(cx);
    }

    pub(super) fn poll_finish(&mut self, end: End, cx: &mut Context<'_>) -> Poll<End> {
        let late = self.timer.as_mut().poll(cx).is_ready();
        // Which of the two waits for the other says by itself that nothing more comes.
        let waits = self.sockets.current.as_mut().is_some_and(|leg| {
            leg.flush(cx);
            leg.blocked()
        });
        let client = match self.machine.is_deaf() {
            true => self.sockets.client.poll_linger(cx),
            false if waits => self.sockets.client.poll_end(cx),
            false => self.sockets.client.poll_close(cx),
        };
        let leg = match &mut self.sockets.current {
            Some(leg) if client.is_pending() => leg.poll_end(cx),
            Some(leg) => leg.poll_close(cx),
            None => Poll::Ready(()),
        };
        if !late {
            ready!(leg);
            ready!(client);
        }
        Poll::Ready(end)
    }
}
