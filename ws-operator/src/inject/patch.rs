//! `add` operations, and where in an object they go.

use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::PointerBuf};
use serde_json::Value;

/// A patch that only adds. In a JSON patch that means too: puts another value in the place of a member.
#[derive(Debug, Default)]
pub(super) struct Additions(Vec<PatchOperation>);

impl Additions {
    /// Adds `value` at the path of those names.
    pub(super) fn add<'a>(&mut self, path: impl IntoIterator<Item = &'a str>, value: Value) {
        let path = PointerBuf::from_tokens(path);
        self.0.push(PatchOperation::Add(AddOperation { path, value }));
    }

    pub(super) fn into_patch(self) -> Patch {
        Patch(self.0)
    }
}
