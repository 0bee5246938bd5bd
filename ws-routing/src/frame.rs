//! Frame headers without I/O.
