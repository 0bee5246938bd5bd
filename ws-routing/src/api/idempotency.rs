//! `Idempotency-Key`: a repeat within a minute gets the first result and changes nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::Instant};

use super::said::Said;
use crate::admin::Problem;

/// What one key of a caller's stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope(Arc<str>);

impl Scope {
    /// The longest value of the header, in bytes.
    const MAX: usize = 256;

    /// Reads the header; `None` without it.
    ///
    /// # Errors
    ///
    /// 400 when it is empty, too long, or there twice.
    pub(super) fn read(headers: &HeaderMap, key: &str, to: &str) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.to_str().ok().filter(|text| (1..=Self::MAX).contains(&text.len()));
        match (text, values.next()) {
            (Some(text), None) => Ok(Some(Self(format!("{to} {} {key} {text}", key.len()).into()))),
            _ => {
                let expected = "expected one Idempotency-Key of 1 to 256 ASCII characters";
                Err(Problem::new(400, "bad-idempotency-key", expected))
            }
        }
    }
}

impl Scope {
    /// What a result costs besides its text, in bytes.
    fn cost(&self) -> usize {
        2 * self.0.len() + OVERHEAD
    }
}

/// The results of the last minute. Cloning is a reference count.
#[derive(Clone, Debug, Default)]
pub(super) struct Idempotency {
    shared: Arc<Mutex<Results>>,
}

#[derive(Debug, Default)]
struct Results {
    known: HashMap<Scope, Known>,
    /// When each may be forgotten, soonest first; one that was said anew since has a later one.
    order: VecDeque<(Instant, Scope)>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    body: [u8; 32],
    /// `None` while it is being found out.
    said: watch::Receiver<Option<Said>>,
    /// What is known of a result of which a part may be tried again, while nobody does.
    partial: Option<Said>,
    /// When it may be forgotten; `None` while it is being found out.
    until: Option<Instant>,
    cost: usize,
}

/// How long a result is kept.
const KEPT: Duration = Duration::from_secs(60);

/// What all results may cost, in bytes.
const MOST: usize = 64 << 20;

/// What one result costs besides its text, about.
const OVERHEAD: usize = 512;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Claim {
    /// It was done already.
    Said(Said),
    /// It is to be done now.
    First(First),
}

/// The right, and the duty, to find out a result. Dropping it lets the next request try.
#[derive(Debug)]
pub(super) struct First {
    results: Idempotency,
    scope: Scope,
    said: watch::Sender<Option<Said>>,
    /// What earlier tries came to, of which a part is to be tried again.
    earlier: Option<Said>,
    /// It was told what became of it.
    told: bool,
}

impl Idempotency {
    /// Waits for a result that is being found out, or takes on to find it.
    ///
    /// # Errors
    ///
    /// 409 when the body is another one, 503 when there is no room.
    pub(super) async fn claim(&self, scope: Scope, body: &[u8]) -> Result<Claim, Problem> {
        let body: [u8; 32] = Sha256::digest(body).into();
        loop {
            let mut waiting = match self.look(&scope, &body)? {
                Ok(first) => return Ok(Claim::First(first)),
                Err(waiting) => waiting,
            };
            // Whoever finds it out may give up, or come to a result that is not kept: then the next one tries.
            if let Ok(said) = waiting.wait_for(Option::is_some).await
                && let Some(said) = &*said
            {
                return Ok(Claim::Said(said.clone()));
            }
        }
    }

    fn look(
        &self,
        scope: &Scope,
        body: &[u8; 32],
    ) -> Result<Result<First, watch::Receiver<Option<Said>>>, Problem> {
        let mut results = self.lock();
        results.forget();
        let first =
            |said, earlier| First { results: self.clone(), scope: scope.clone(), said, earlier, told: false };
        if let Some(known) = results.known.get_mut(scope) {
            if known.body != *body {
                let detail = "this Idempotency-Key was used with another body";
                return Err(Problem::new(409, "idempotency-conflict", detail));
            }
            let Some(partial) = known.partial.take() else { return Ok(Err(known.said.clone())) };
            let (said, waiting) = watch::channel(None);
            (known.said, known.until) = (waiting, None);
            return Ok(Ok(first(said, Some(partial))));
        }
        let cost = scope.cost();
        if results.bytes + cost > MOST {
            let detail = "too many results are kept; nothing was sent";
            let problem = Problem::new(503, "idempotency-full", detail);
            return Err(problem.header(http::header::RETRY_AFTER, "1"));
        }
        results.bytes += cost;
        let (said, waiting) = watch::channel(None);
        let known = Known { body: *body, said: waiting, partial: None, until: None, cost };
        results.known.insert(scope.clone(), known);
        Ok(Ok(first(said, None)))
    }

    fn lock(&self) -> MutexGuard<'_, Results> {
        // Nothing is left half done in there by a panic.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Results {
    fn forget(&mut self) {
        let now = Instant::now();
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, scope)) = self.order.pop_front() else { return };
            if self.known.get(&scope).and_then(|known| known.until).is_some_and(|until| until <= now) {
                self.remove(&scope);
            }
        }
    }

    fn remove(&mut self, scope: &Scope) {
        if let Some(known) = self.known.remove(scope) {
            self.bytes -= known.cost;
        }
    }
}

impl First {
    /// What earlier tries came to, if [`First::said_in_part`] was said of them.
    pub(super) fn earlier(&self) -> Option<&Said> {
        self.earlier.as_ref()
    }

    /// This is the result. Only a success and an unknown outcome are kept: all else may be tried again.
    pub(super) fn said(mut self, said: &Said) {
        self.tell(said);
    }

    /// This is the result, of which a part may be tried again: by the next who asks.
    pub(super) fn said_in_part(mut self, said: &Said) {
        self.keep(said, Some(said.clone()));
    }

    fn tell(&mut self, said: &Said) {
        if matches!(said.status, 200 | 504) {
            self.keep(said, None);
            self.said.send_replace(Some(said.clone()));
        } else {
            self.told = true;
            self.results.lock().remove(&self.scope);
        }
    }

    fn keep(&mut self, said: &Said, partial: Option<Said>) {
        self.told = true;
        let cost = self.scope.cost() + said.body.to_string().len();
        let until = Instant::now() + KEPT;
        let mut results = self.results.lock();
        if let Some(known) = results.known.get_mut(&self.scope) {
            let before = std::mem::replace(&mut known.cost, cost);
            (known.partial, known.until) = (partial, Some(until));
            results.bytes = results.bytes - before + cost;
        }
        results.order.push_back((until, self.scope.clone()));
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if !self.told {
            // It was given up on the way: it may have been delivered, so it is not to be sent again.
            self.tell(&Said::given_up());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &'static str) -> Scope {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", text.parse().unwrap());
        Scope::read(&headers, "key", "client").unwrap().unwrap()
    }

    fn said(status: u16) -> Said {
        Said { status, body: serde_json::json!({"delivered": 1}) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_gets_the_first_result_for_a_minute() {
        let results = Idempotency::default();
        let Claim::First(first) = results.claim(scope("a"), b"body").await.unwrap() else { panic!() };
        let meanwhile = tokio::spawn({
            let results = results.clone();
            async move { results.claim(scope("a"), b"body").await.unwrap() }
        });
        tokio::task::yield_now().await;
        first.said(&said(200));
        assert!(matches!(meanwhile.await.unwrap(), Claim::Said(found) if found == said(200)));
        assert!(results.claim(scope("a"), b"other").await.is_err());
        assert!(matches!(results.claim(scope("b"), b"body").await.unwrap(), Claim::First(_)));
        tokio::time::advance(Duration::from_secs(61)).await;
        let Claim::First(first) = results.claim(scope("a"), b"other").await.unwrap() else { panic!() };
        first.said(&said(404));
        assert_eq!(results.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_tried_again_is_not_kept() {
        let results = Idempotency::default();
        for status in [503, 429, 404] {
            let Claim::First(first) = results.claim(scope("a"), b"body").await.unwrap() else { panic!() };
            first.said(&said(status));
        }
        let Claim::First(first) = results.claim(scope("a"), b"body").await.unwrap() else { panic!() };
        first.said(&said(504));
        assert!(matches!(results.claim(scope("a"), b"body").await.unwrap(), Claim::Said(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_on_the_way_is_unknown_and_not_tried_again() {
        let results = Idempotency::default();
        drop(results.claim(scope("a"), b"body").await.unwrap());
        let Claim::Said(said) = results.claim(scope("a"), b"body").await.unwrap() else { panic!() };
        assert_eq!(said.status, 504);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_result_in_part_the_next_who_asks_tries_the_rest_and_the_minute_begins_anew() {
        let results = Idempotency::default();
        let Claim::First(first) = results.claim(scope("a"), b"body").await.unwrap() else { panic!() };
        let meanwhile = tokio::spawn({
            let results = results.clone();
            async move { results.claim(scope("a"), b"body").await.unwrap() }
        });
        tokio::task::yield_now().await;
        assert_eq!(first.earlier(), None);
        first.said_in_part(&said(200));
        let Claim::First(second) = meanwhile.await.unwrap() else { panic!() };
        assert_eq!(second.earlier(), Some(&said(200)));
        // It takes longer than the first result is kept.
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(results.claim(scope("a"), b"other").await.is_err());
        second.said(&said(200));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(matches!(results.claim(scope("a"), b"body").await.unwrap(), Claim::Said(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        let Claim::First(first) = results.claim(scope("a"), b"body").await.unwrap() else { panic!() };
        assert_eq!(first.earlier(), None);
        first.said(&said(503));
        assert_eq!(results.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded() {
        let results = Idempotency::default();
        results.lock().bytes = MOST - 10;
        assert!(results.claim(scope("a"), b"body").await.is_err());
    }
}
