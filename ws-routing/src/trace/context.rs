//! Which span of which trace: W3C Trace Context, as the header `traceparent` carries it.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries a [`SpanContext`].
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A span, as other processes and other spans refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SpanContext {
    /// The trace: not all zero.
    pub trace: [u8; 16],
    /// The span: not all zero.
    pub span: [u8; 8],
    /// Whether whoever began the trace wants it recorded.
    pub sampled: bool,
}

impl SpanContext {
    /// The first span of a new trace.
    #[must_use]
    pub fn root(sampled: bool) -> Self {
        Self { trace: rand::random::<u128>().max(1).to_be_bytes(), span: fresh(), sampled }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: fresh(), ..*self }
    }

    /// What a request carries; `None` unless it is one valid `traceparent`.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        Self::parse(parent.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let version: [u8; 1] = hex(fields.next()?)?;
        let (trace, span) = (hex(fields.next()?)?, hex(fields.next()?)?);
        let [flags] = hex(fields.next()?)?;
        // Later versions may add fields; version 0 has none.
        let whole = match version {
            [0] => fields.next().is_none(),
            [version] => version != 0xff,
        };
        let valid = whole && trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// As the header's value.
    pub(crate) fn to_header(self) -> HeaderValue {
        // Digits and letters are fit for a header.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

fn fresh() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

/// Exactly so many bytes in lower-case hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f').then(|| char::from(b).to_digit(16)).flatten();
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(16 * digit(*high)? + digit(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_as_it_is_written() {
        let parent = SpanContext::parse(PARENT).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), PARENT);
        let child = parent.child();
        assert!(child.trace == parent.trace && child.span != parent.span);
        assert!(!SpanContext::parse(&PARENT.replace("-01", "-00")).unwrap().sampled);
    }

    #[test]
    fn what_is_no_context_is_none() {
        for wrong in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &PARENT.replace("00-", "ff-"),
            &PARENT.replace("-01", "-01-x"),
            &PARENT.replace("-01", "-1"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert_eq!(SpanContext::parse(wrong), None, "{wrong}");
        }
        assert!(SpanContext::parse(&PARENT.replace("00-", "01-").replace("-01", "-01-more")).is_some());
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert!(SpanContext::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(SpanContext::of(&headers), None, "two are none");
    }
}
