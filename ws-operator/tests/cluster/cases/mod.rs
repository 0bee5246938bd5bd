//! What must hold, one after another: each in a namespace of its own.

mod faults;
mod label;
mod operator;
mod rings;

use crate::setup::Installed;

/// A case: its name, and what it does.
type Case = (&'static str, fn(&Installed));

pub const ALL: &[Case] = &[
    ("labelled on create, un-labelled", label::on_and_off),
    ("a dry run changes nothing", label::dry_run),
    ("scaled and rolled", faults::scaled_and_rolled),
    ("a pod is deleted without grace", faults::deleted_without_grace),
    ("the operator is down", faults::operator_down),
    ("a node crashes", faults::node_crash),
    ("two groups", rings::two_groups),
    ("a Service of somebody else", rings::foreign_service),
    ("a WebSocketApp", operator::web_socket_app),
    ("certificates rotate under load", operator::certificates_rotate),
    ("the CA bundle is reset", operator::ca_bundle_is_repaired),
    ("the leader is killed", operator::leader_killed),
];
