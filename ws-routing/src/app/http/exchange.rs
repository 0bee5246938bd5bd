//! One request and its answer, on a connection that is kept for the next.

use std::{
    io,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    app::{AppError, url::Authority},
    proxy::{
        connect::{Answered, OpenError, PumpError, final_answer},
        handshake::ResponseHead,
    },
};

/// Idle connections to the application. Nobody watches them: one that the application has closed meanwhile is found out
/// when it is to be used.
#[derive(Debug)]
pub(super) struct Pool {
    authority: Authority,
    dial_timeout: Duration,
    /// The last one used is the first one used again.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    io: TcpStream,
    since: Instant,
}

/// The most idle connections, and how long one is kept.
const MOST_IDLE: usize = 64;
const IDLE: Duration = Duration::from_secs(30);

impl Pool {
    pub(super) fn new(authority: Authority, dial_timeout: Duration) -> Self {
        Self { authority, dial_timeout, idle: Mutex::default() }
    }

    /// Sends `request` and reads the head of its answer. Has no time limit of its own but for the dial.
    ///
    /// An idle connection that turns out to be dead is replaced by a fresh one: the application may see the request
    /// twice then, as on any retry.
    pub(super) async fn ask(&self, request: &[u8]) -> Result<Reply, AppError> {
        if let Some(io) = self.take() {
            match exchange(io, request).await {
                Err(OpenError::Lost(_)) => {}
                answered => return Ok(answered?),
            }
        }
        let io = self.authority.dial(self.dial_timeout).await?;
        Ok(exchange(io, request).await?)
    }

    /// Keeps the reply's connection, if its body was read and another request may follow.
    pub(super) fn give_back(&self, reply: Reply) {
        let Some(io) = reply.written.then(|| reply.answer.into_idle()).flatten() else { return };
        let now = Instant::now();
        let mut idle = self.lock();
        idle.retain(|idle| now - idle.since < IDLE);
        if idle.len() < MOST_IDLE {
            idle.push(Idle { io, since: now });
        }
    }

    /// The same for a reply whose body nobody wants, unless that is long in coming.
    pub(super) async fn give_back_soon(&self, mut reply: Reply) {
        const SOON: Duration = Duration::from_millis(100);
        const LITTLE: usize = 64 * 1024;
        if let Ok(Ok(_)) = timeout(SOON, reply.body(LITTLE)).await {
            self.give_back(reply);
        }
    }

    fn take(&self) -> Option<TcpStream> {
        let mut idle = self.lock();
        loop {
            let Idle { io, since } = idle.pop()?;
            // Whatever can be read there, the end included, belongs to no request of ours.
            let silent = matches!(io.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
            if silent && since.elapsed() < IDLE {
                return Some(io);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing is left half done in there by a panic.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes and reads at once: an application may answer before it has read all, and one that streams its answer while it
/// reads would wait for us as we for it.
async fn exchange(mut io: TcpStream, request: &[u8]) -> Result<Reply, OpenError> {
    let (mut reader, mut writer) = io.split();
    let mut written = None;
    let (head, buffer) = {
        let mut writing = pin!(writer.write_all(request));
        let mut reading = pin!(final_answer(&mut reader));
        loop {
            tokio::select! {
                biased;
                done = &mut writing, if written.is_none() => written = Some(done.is_ok()),
                answer = &mut reading => break answer?,
            }
        }
    };
    Ok(Reply { answer: Answered::new(head, io, buffer)?, written: written == Some(true) })
}

/// An answer of the application, its body not read yet.
#[derive(Debug)]
pub(super) struct Reply {
    answer: Answered<TcpStream>,
    /// The application has taken the whole request.
    written: bool,
}

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.answer.head.parts.status
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.answer.head.parts.headers
    }

    pub(super) fn head(&self) -> &ResponseHead {
        &self.answer.head
    }

    /// The answer as it can be passed on.
    pub(super) fn into_answer(self) -> Answered<TcpStream> {
        self.answer
    }

    /// Reads the body; `None` when it has more than `most` bytes. Has no time limit of its own.
    pub(super) async fn body(&mut self, most: usize) -> Result<Option<Vec<u8>>, PumpError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.answer.data(Duration::MAX).await? {
            if body.len() + bytes.len() > most {
                return Ok(None);
            }
            body.extend_from_slice(&bytes);
        }
        Ok(Some(body))
    }
}
