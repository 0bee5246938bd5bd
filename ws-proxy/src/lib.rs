//! ws-proxy.
