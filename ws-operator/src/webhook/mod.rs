//! The admission webhooks: an object that is to be written comes in, what it should be besides goes out.
//!
//! `review` is what the API server says and hears, `decide` what is decided, pure and without a client, so that a dry
//! run is as any other; `server` takes the requests.

mod decide;
mod review;
mod server;

pub use server::Webhooks;
