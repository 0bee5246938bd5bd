//! What of a handshake is left without a credential: all else byte for byte.

use percent_encoding::percent_decode;

/// The lines of a head without `Authorization: Bearer`.
pub(super) fn bearer(lines: &[u8]) -> Vec<u8> {
    let begins =
        |text: &[u8], with: &[u8]| text.get(..with.len()).is_some_and(|t| t.eq_ignore_ascii_case(with));
    let is_it = |line: &&[u8]| {
        let mut parts = line.splitn(2, |&b| b == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        name.eq_ignore_ascii_case(b"authorization") && begins(value.trim_ascii_start(), b"bearer ")
    };
    lines.split_inclusive(|&b| b == b'\n').filter(|line| !is_it(line)).collect::<Vec<_>>().concat()
}

/// A path and query without the parameters of that name. A query of nothing else goes with them.
pub(super) fn parameter(target: &[u8], name: &str) -> Vec<u8> {
    let Some(mark) = target.iter().position(|&b| b == b'?') else { return target.to_vec() };
    let (path, query) = (&target[..mark], &target[mark + 1..]);
    let is_it = |pair: &&[u8]| {
        let written = pair.split(|&b| b == b'=').next().unwrap_or_default();
        percent_decode(written).eq(name.bytes())
    };
    let kept: Vec<&[u8]> = query.split(|&b| b == b'&').filter(|pair| !is_it(pair)).collect();
    match kept.is_empty() {
        true => path.to_vec(),
        false => [path, b"?", &kept.join(&b'&')].concat(),
    }
}

/// A comma-separated list without that item.
pub(super) fn item(list: &[u8], item: &str) -> Vec<u8> {
    let items = list.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = items.filter(|it| !it.is_empty() && *it != item.as_bytes()).collect();
    kept.join(&b", "[..])
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        key::{Credential, Key},
        proxy::handshake::{Handshake, LegHeaders},
    };

    #[test]
    fn only_the_credential_goes() {
        for (target, left) in [
            ("/a?access_token=x", "/a"),
            ("/a?access_token=x&b=%20c&&d", "/a?b=%20c&&d"),
            ("/a?b=?&access%5Ftoken=x&access_token=y&b=2", "/a?b=?&b=2"),
            ("/access_token=x", "/access_token=x"),
            ("/a?my_access_token=x", "/a?my_access_token=x"),
            ("/a?", "/a?"),
        ] {
            let found = parameter(target.as_bytes(), "access_token");
            assert_eq!(String::from_utf8_lossy(&found), left, "{target}");
        }
        for (list, left) in [
            ("access_token.x", ""),
            ("chat, access_token.x ,v2", "chat, v2"),
            ("chat,access_token.xx", "chat, access_token.xx"),
        ] {
            assert_eq!(String::from_utf8_lossy(&item(list.as_bytes(), "access_token.x")), left);
        }
        let lines =
            b"host: a\r\nAuthorization: Bearer x\r\nauthorization: Basic bearer \r\nx-y: Bearer x\r\n";
        assert_eq!(bearer(lines), b"host: a\r\nauthorization: Basic bearer \r\nx-y: Bearer x\r\n");
    }

    #[test]
    fn a_handshake_without_its_token_is_otherwise_the_same() {
        let head = |target: &str, authorization: &str, protocols: &str| {
            let request = Request::builder()
                .uri(target)
                .header("host", "test")
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                .header("sec-websocket-extensions", "permessage-deflate")
                .header("authorization", authorization)
                .header("sec-websocket-protocol", protocols)
                .header("cookie", "a=b");
            Handshake::check(&request.body(()).unwrap().into_parts().0, None).unwrap()
        };
        let whole = head("/a?b=1&access_token=x", "Bearer x", "chat, access_token.x");
        let leg = LegHeaders::new(Key::new("k").unwrap());
        let text = |handshake: &Handshake| String::from_utf8(handshake.to_app(&leg, "").to_vec()).unwrap();
        let none = whole
            .clone()
            .without(&Credential::Bearer)
            .without(&Credential::Query)
            .without(&Credential::Protocol("access_token.x".into()));
        let expected = text(&whole)
            .replace("&access_token=x", "")
            .replace("authorization: Bearer x\r\n", "")
            .replace(", access_token.x", "");
        assert_eq!(text(&none), expected);
        assert_eq!((none.target(), none.accept()), ("/a?b=1", whole.accept()));
        assert_eq!(none.protocols().collect::<Vec<_>>(), ["chat"]);
        let only =
            head("/", "Basic x", "access_token.x").without(&Credential::Protocol("access_token.x".into()));
        assert!(!text(&only).contains("Sec-WebSocket-Protocol"), "{}", text(&only));
        assert_eq!(text(&only), text(&only.clone().without(&Credential::Bearer)));
    }
}
