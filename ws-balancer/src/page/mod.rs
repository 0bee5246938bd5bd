//! The live page: what this balancer does, for people.
//!
//! One file, `page.html`, with its style and its script inside. It follows `/v1/events` of [`admin::events`], and asks
//! `/v1/owner/{key}` and `/v1/plan`.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use ws_routing::{
    admin::{self, Answer, Call, Problem, Routes},
    membership::View,
    proxy::Proxy,
};

use crate::plan::{NoPlan, Plan};

const PAGE: &str = include_str!("page.html");

/// The page at `/`, `/v1/events` until `stop`, and `/v1/plan`.
pub(crate) fn page(proxy: Proxy, stop: CancellationToken) -> Routes {
    let (policy, view) = (policy(), proxy.view().clone());
    let one_at_a_time = Arc::new(Semaphore::new(1));
    Routes::new()
        .get("/", move |_| {
            let page = shown(&policy);
            async move { Ok(page) }
        })
        .get("/v1/plan", move |call| plan(call, view.clone(), Arc::clone(&one_at_a_time)))
        .merge(admin::events(proxy, stop))
}

fn shown(policy: &HeaderValue) -> Answer {
    let mut answer = admin::answer("text/html; charset=utf-8", PAGE);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Lets the page do what it does, and nothing that was put into it.
fn policy() -> HeaderValue {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script"),
    );
    // Letters, digits and signs of base64 are fit for a header.
    policy.try_into().unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The hash of what stands in the page's one element of that name.
fn hash(element: &str) -> String {
    let inside = PAGE
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map_or("", |(inside, _)| inside);
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(inside)))
}

/// `GET /v1/plan?add=&remove=&sample=`: which share of the keys would move. Asks nobody; changes nothing.
///
/// `sample` is 1,000 to 100,000 keys, default 20,000. One at a time is computed, the others wait.
async fn plan(call: Call, view: View, turn: Arc<Semaphore>) -> Result<Answer, Problem> {
    let add = call.number("add", 0..=1_000)?.unwrap_or(0);
    let remove = call.number("remove", 0..=100_000)?.unwrap_or(0);
    let sample = call.number("sample", 1_000..=100_000)?.unwrap_or(20_000);
    // The semaphore is never closed.
    let turn = turn.acquire_owned().await;
    let members = view.load();
    let work = move || {
        // Who hangs up does not let the next one begin before this is done.
        let _turn = turn;
        Plan::new(&members, add, remove, sample)
    };
    let plan = tokio::task::spawn_blocking(work).await;
    match plan {
        Ok(Ok(plan)) => Ok(admin::json(&plan.to_json())),
        Ok(Err(none)) => Err(match none {
            NoPlan::NoMembers => Problem::new(503, "no-members", none.to_string()),
            NoPlan::TooFew(_) | NoPlan::NobodyLeft => Problem::new(400, "bad-parameter", none.to_string()),
        }),
        Err(_) => Err(Problem::new(503, "ending", "the process ends")),
    }
}
