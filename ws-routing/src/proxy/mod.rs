//! The proxy.
pub mod relay;
