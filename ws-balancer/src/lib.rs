//! ws-balancer.
