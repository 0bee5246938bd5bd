//! Parameters of a request's query.

use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::admin::Problem;

/// The first parameter of that name, percent-decoded.
pub(super) fn get(parts: &Parts, name: &str) -> Result<Option<String>, Problem> {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = pairs.find(|(found, _)| *found == name) else { return Ok(None) };
    match percent_decode_str(value).decode_utf8() {
        Ok(value) => Ok(Some(value.into_owned())),
        Err(_) => Err(bad(name, value, "UTF-8")),
    }
}

/// 400: a parameter that is not what was expected.
pub(super) fn bad(name: &str, value: &str, expected: &str) -> Problem {
    Problem::new(400, "bad-parameter", format!("{name}={value}: expected {expected}"))
}
