//! What must hold, one after another: each in a namespace of its own.

mod faults;
mod label;
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
];
