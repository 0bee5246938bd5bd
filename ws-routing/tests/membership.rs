//! Sources, followers and views together, as a program uses them.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

mod membership {
    #[cfg(feature = "dns")]
    mod dns;
    mod file;
    #[cfg(feature = "kube")]
    mod kubernetes;
    mod machine;
    mod properties;
    mod remote;
}
