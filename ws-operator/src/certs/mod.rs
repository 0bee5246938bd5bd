//! The certificate of the webhooks, and the CA that the API server trusts for it.
//!
//! `serving` is what TLS shows, exchanged while it serves.

mod serving;

pub use serving::{BadCertificate, Serving};
