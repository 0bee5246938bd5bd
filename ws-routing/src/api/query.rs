//! Parameters of a request's query, as forms write them: percent-encoded, a space perhaps as `+`.

use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::{admin::Problem, key};

/// The parameter of that name, decoded.
///
/// # Errors
///
/// 400 when it is there twice, is badly encoded, or is not UTF-8.
pub(super) fn get(parts: &Parts, name: &str) -> Result<Option<String>, Problem> {
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(name, value, "it once"));
    }
    let spaced = value.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) if key::is_well_escaped(value) => Ok(Some(decoded.into_owned())),
        _ => Err(bad(name, value, "percent-encoded UTF-8")),
    }
}

/// 400: a parameter that is not what was expected.
pub(super) fn bad(name: &str, value: &str, expected: &str) -> Problem {
    Problem::new(400, "bad-parameter", format!("{name}={value}: expected {expected}"))
}
