//! Bytes that pass as they came, and control frames of our own between them.

use crate::frame::{self, Opcode};

/// A whole control frame.
pub(crate) fn control(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame::MAX_HEADER + payload.len());
    frame::write(&mut out, opcode, payload, mask);
    out
}

/// The bytes that pass as they came: a part of what was read that is written in one go.
#[derive(Debug, Default)]
pub(crate) struct Run {
    start: usize,
    end: usize,
}

impl Run {
    /// Takes `len` bytes more. Before bytes that do not pass, the run must have been flushed.
    pub(crate) fn take(&mut self, len: usize, pass: bool) {
        self.end += len;
        if !pass {
            self.start = self.end;
        }
    }

    pub(crate) fn flush(&mut self, bytes: &[u8], put: impl FnOnce(&[u8])) {
        if self.start < self.end {
            put(&bytes[self.start..self.end]);
            self.start = self.end;
        }
    }

    /// What has not been taken.
    pub(crate) fn rest<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.end..]
    }

    /// How many bytes were taken.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}
