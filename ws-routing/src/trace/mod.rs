//! Traces: a span for each handshake, each move and each send, handed to whoever exports them.
//!
//! Off unless a program makes a [`channel`]; then a span costs its allocation and one step into a bounded queue. Who does
//! not keep up loses spans, and is told how many: nothing waits for an exporter. [`otlp`] sends them to a collector.

mod context;
#[cfg(feature = "otel")]
pub mod otlp;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use http::request::Parts;
use tokio::sync::mpsc;

pub use context::{SpanContext, TRACEPARENT};

/// How many finished spans may wait for the exporter.
const QUEUE: usize = 2048;

/// Makes a tracer, and the queue of what it records. `sampler` decides which traces that is.
#[must_use]
pub fn channel(sampler: Sampler) -> (Tracer, Spans) {
    let (queue, spans) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared { sampler, queue, lost: AtomicU64::new(0) });
    (Tracer(Some(Arc::clone(&shared))), Spans { spans, shared: Arc::downgrade(&shared) })
}

/// Makes spans. Cloning is a reference count; the default is off.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    sampler: Sampler,
    queue: mpsc::Sender<Finished>,
    lost: AtomicU64,
}

impl Tracer {
    /// Begins the span of a request: a child of what the request says, or a trace of its own. The request that is handed
    /// on is to say so too: it is given back with the span's `traceparent`, or as it is when nothing is traced.
    pub(crate) fn enter<'p>(&self, name: &'static str, parts: &'p Parts) -> (Cow<'p, Parts>, Option<Span>) {
        let Some(shared) = &self.0 else { return (Cow::Borrowed(parts), None) };
        let parent = SpanContext::of(&parts.headers);
        let sampled = shared.sampler.takes(parent.as_ref());
        if !sampled && parent.is_some() {
            return (Cow::Borrowed(parts), None);
        }
        let context = match &parent {
            Some(parent) => SpanContext { sampled, ..parent.child() },
            None => SpanContext::root(sampled),
        };
        let mut parts = parts.clone();
        parts.headers.insert(TRACEPARENT, context.to_header());
        if parent.is_none() {
            // It goes with a parent that is none.
            parts.headers.remove("tracestate");
        }
        let span = sampled.then(|| Span::begin(shared, name, Kind::Server, context));
        (Cow::Owned(parts), span.map(|span| span.below(parent)))
    }

    /// Begins a span of a trace of its own that is linked to another one; `None` where that one is not recorded.
    pub(crate) fn linked(&self, name: &'static str, to: Option<SpanContext>) -> Option<Span> {
        let (shared, to) = (self.0.as_ref()?, to?);
        let mut span = Span::begin(shared, name, Kind::Internal, SpanContext::root(true));
        span.0.link = Some(to);
        Some(span)
    }
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a request that says whether it is sampled is believed.
    pub by_parent: bool,
    /// The part of all other traces, 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    /// All but those whose parent says otherwise.
    fn default() -> Self {
        Self { by_parent: true, ratio: 1.0 }
    }
}

impl Sampler {
    fn takes(&self, parent: Option<&SpanContext>) -> bool {
        match parent {
            Some(parent) if self.by_parent => parent.sampled,
            _ => rand::random::<f64>() < self.ratio,
        }
    }
}

/// A span that is under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Span(Box<Finished>, Arc<Shared>);

impl Span {
    fn begin(shared: &Arc<Shared>, name: &'static str, kind: Kind, context: SpanContext) -> Self {
        let now = SystemTime::now();
        let span = Finished {
            name,
            kind,
            context,
            parent: None,
            link: None,
            began: now,
            ended: now,
            attributes: Vec::new(),
            failed: false,
        };
        Self(Box::new(span), Arc::clone(shared))
    }

    fn below(mut self, parent: Option<SpanContext>) -> Self {
        self.0.parent = parent.map(|parent| parent.span);
        self
    }

    pub(crate) fn context(&self) -> SpanContext {
        self.0.context
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.attributes.push((name, value.into()));
    }

    /// What it stands for went wrong.
    pub(crate) fn fail(&mut self) {
        self.0.failed = true;
    }

    /// Notes the status that the request was answered with.
    pub(crate) fn answered(&mut self, status: u16) {
        self.set("http.response.status_code", u64::from(status));
        if status >= 500 {
            self.fail();
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let mut finished = (*self.0).clone();
        finished.ended = SystemTime::now();
        if self.1.queue.try_send(finished).is_err() {
            self.1.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The spans that have ended, for one exporter.
#[derive(Debug)]
pub struct Spans {
    spans: mpsc::Receiver<Finished>,
    shared: std::sync::Weak<Shared>,
}

impl Spans {
    /// Waits for a span that has ended; `None` when there can be no more.
    ///
    /// # Cancel safety
    ///
    /// No span is lost when it is cancelled.
    pub async fn next(&mut self) -> Option<Finished> {
        self.spans.recv().await
    }

    /// A span that has ended, if there is one now.
    pub fn try_next(&mut self) -> Option<Finished> {
        self.spans.try_recv().ok()
    }

    /// How many spans were lost since this was last asked, as the queue was full.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        self.shared.upgrade().map_or(0, |shared| shared.lost.swap(0, Ordering::Relaxed))
    }
}

/// A span that has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finished {
    /// What it stands for.
    pub name: &'static str,
    /// How it came about.
    pub kind: Kind,
    /// The span itself.
    pub context: SpanContext,
    /// The span of the same trace that it is part of.
    pub parent: Option<[u8; 8]>,
    /// A span of another trace that it has to do with.
    pub link: Option<SpanContext>,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What it stands for went wrong, through a fault of this side.
    pub failed: bool,
}

/// How a span came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By this process itself.
    Internal,
    /// By another one's request.
    Server,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Any number.
    Float(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(parent: Option<&str>) -> Parts {
        let mut request = Request::builder().uri("/");
        if let Some(parent) = parent {
            request = request.header(TRACEPARENT, parent);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn off_it_leaves_requests_as_they_are() {
        let parts = request(Some(PARENT));
        let (same, span) = Tracer::default().enter("handshake", &parts);
        assert!(matches!(same, Cow::Borrowed(_)) && span.is_none());
    }

    #[test]
    fn a_span_is_a_child_of_the_requests_and_the_next_ones_parent() {
        let (tracer, mut spans) = channel(Sampler::default());
        let asked = request(Some(PARENT));
        let (onward, span) = tracer.enter("handshake", &asked);
        let context = span.as_ref().unwrap().context();
        assert_eq!(SpanContext::of(&onward.headers), Some(context));
        drop(span);
        let finished = spans.try_next().unwrap();
        let parent = SpanContext::of(&asked.headers).unwrap();
        assert_eq!((finished.context.trace, finished.parent), (parent.trace, Some(parent.span)));
        drop(tracer.linked("move", Some(context)));
        let moved = spans.try_next().unwrap();
        assert!(moved.link == Some(context) && moved.context.trace != parent.trace);
    }

    #[test]
    fn a_parent_that_is_not_recorded_is_left_alone_and_what_is_not_sampled_says_so() {
        let (tracer, mut spans) = channel(Sampler { ratio: 0.0, ..Sampler::default() });
        let (unsampled, untold) = (request(Some(&PARENT.replace("-01", "-00"))), request(None));
        let (same, span) = tracer.enter("handshake", &unsampled);
        assert!(matches!(same, Cow::Borrowed(_)) && span.is_none());
        let (marked, span) = tracer.enter("handshake", &untold);
        assert!(!SpanContext::of(&marked.headers).unwrap().sampled && span.is_none());
        assert!(spans.try_next().is_none() && tracer.linked("move", None).is_none());
    }

    #[test]
    fn the_queue_is_bounded_and_what_is_lost_is_counted() {
        let (tracer, mut spans) = channel(Sampler::default());
        let asked = request(None);
        for _ in 0..QUEUE + 3 {
            drop(tracer.enter("handshake", &asked));
        }
        assert_eq!((spans.take_lost(), spans.take_lost()), (3, 0));
        assert_eq!(std::iter::from_fn(|| spans.try_next()).count(), QUEUE);
    }
}
