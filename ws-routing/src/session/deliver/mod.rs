//! Bringing a call to every connection of a key, wherever they are.
//!
//! Reading order: `plan` (who is asked), `reply` (what a node says), `here` (what this one says).

mod plan;
mod reply;
