//! Sources, followers and views together, as a program uses them.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

mod membership {
    mod file;
    mod remote;
}
