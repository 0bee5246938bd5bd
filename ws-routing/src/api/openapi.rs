//! The description of the API that it serves itself. The tests hold it to what the API does.

/// OpenAPI 3.1.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");
