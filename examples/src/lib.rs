//! Examples of ws-routing: see `README.md` beside this folder for the reading order.
//!
//! What the programs that deploy pods share is here: [`deployment`] is what Kubernetes would do, [`pod`] is one pod.

pub mod deployment;
pub mod pod;
