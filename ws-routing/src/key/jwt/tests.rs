//! The examples of RFC 7515 and RFC 8037, and what is made of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::key::InvalidToken;

const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const EXPIRES: u64 = 1_300_819_380;

/// Header and signature of each example, and its key.
fn examples() -> [(&'static str, &'static str, Value); 3] {
    [
        (
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}),
        ),
        (
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            json!({"kty": "RSA", "e": "AQAB", "n": RSA_N}),
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
        ),
    ]
}

const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

const SECRET: &[u8] = b"a secret that is shared, and long";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn jwks(keys: impl IntoIterator<Item = Value>) -> Verifier {
    let keys: Vec<Value> = keys.into_iter().collect();
    Verifier::new(KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap())
}

fn secret() -> Verifier {
    Verifier::new(KeySet::parse(SECRET).unwrap())
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with that header, signed as HS256 by [`SECRET`], whatever the header says.
fn signed(header: &Value, claims: &Value) -> String {
    by(SECRET, header, claims)
}

fn by(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hs256(claims: &Value) -> String {
    signed(&json!({"alg": "HS256"}), claims)
}

fn outcome(verifier: &Verifier, token: &str, now: u64) -> Result<(), InvalidToken> {
    verifier.verify(token, at(now)).map(drop)
}

#[test]
fn the_examples_of_the_standards_are_valid_until_they_expire() {
    let all = jwks(examples().map(|(_, _, key)| key));
    for (header, signature, key) in examples() {
        let token = format!("{header}.{CLAIMS}.{signature}");
        let alone = Verifier::new(KeySet::parse(key.to_string().as_bytes()).unwrap());
        for verifier in [&all, &alone, &jwks([key])] {
            assert_eq!(verifier.verify(&token, at(EXPIRES - 1)).unwrap().key("iss").unwrap().as_str(), "joe");
            assert_eq!(outcome(verifier, &token, EXPIRES + 59), Ok(()));
            assert_eq!(outcome(verifier, &token, EXPIRES + 60), Err(InvalidToken::Expired));
        }
    }
}

#[test]
fn the_example_with_an_edwards_curve_has_the_right_signature() {
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let verifier = jwks([key]);
    // What is signed is no JSON, which shows only after the signature was found right.
    let whole = format!("{message}.{signature}");
    assert_eq!(outcome(&verifier, &whole, 0), Err(InvalidToken::Malformed));
    let forged = format!("{message}.{}", signature.replace('h', "i"));
    assert_eq!(outcome(&verifier, &forged, 0), Err(InvalidToken::Signature));
}

#[test]
fn a_key_is_for_its_own_algorithm_whatever_the_token_says() {
    let [hmac, rsa, ec] = examples().map(|(_, _, key)| key);
    let public = jwks([rsa.clone(), ec.clone()]);
    // Signed with the public key's own bytes, as text and as they are: nobody takes them for a secret.
    let n = URL_SAFE_NO_PAD.decode(RSA_N).unwrap();
    for secret in [RSA_N.as_bytes(), &n, rsa.to_string().as_bytes()] {
        let token = by(secret, &json!({"alg": "HS256"}), &json!({"sub": "mallory"}));
        assert_eq!(outcome(&public, &token, 0), Err(InvalidToken::UnknownKey));
    }
    for alg in ["none", "None", "", "HS384", "RS512", "PS256", "ES384", "hs256"] {
        let token = signed(&json!({"alg": alg}), &json!({"sub": "mallory"}));
        assert_eq!(outcome(&secret(), &token, 0), Err(InvalidToken::Algorithm), "{alg}");
        let unsigned = format!("{}.{}.", encode(&json!({"alg": alg})), encode(&json!({"sub": "mallory"})));
        assert_eq!(outcome(&secret(), &unsigned, 0), Err(InvalidToken::Algorithm), "{alg}");
    }
    for alg in ["RS256", "ES256", "EdDSA"] {
        let token = signed(&json!({"alg": alg}), &json!({}));
        assert_eq!(outcome(&secret(), &token, 0), Err(InvalidToken::UnknownKey), "{alg}");
        assert!(outcome(&jwks([hmac.clone(), rsa.clone(), ec.clone()]), &token, 0).is_err(), "{alg}");
    }
    // A key that names its algorithm is for no other, though its kind would do.
    let mut ps256 = rsa;
    ps256["alg"] = "PS256".into();
    assert_eq!(
        KeySet::parse(json!({ "keys": [ps256] }).to_string().as_bytes()).unwrap_err(),
        BadKeys::NoneUsable
    );
}

#[test]
fn a_changed_token_and_one_by_another_key_are_forged() {
    let header = json!({"alg": "HS256"});
    let token = hs256(&json!({"sub": "alice"}));
    assert_eq!(outcome(&secret(), &token, 0), Ok(()));
    let parts: Vec<&str> = token.split('.').collect();
    let changed = [parts[0], &encode(&json!({"sub": "bob"})), parts[2]].join(".");
    let other = by(b"another secret", &header, &json!({"sub": "alice"}));
    let short = &token[..token.len() - 3];
    for forged in [&changed, &other, short] {
        assert_eq!(outcome(&secret(), forged, 0), Err(InvalidToken::Signature), "{forged}");
    }
    let no_signature = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(outcome(&secret(), &no_signature, 0), Err(InvalidToken::Signature));
    for broken in ["", ".", "..", "...", parts[0], &format!("{token}=")] {
        assert_eq!(outcome(&secret(), broken, 0), Err(InvalidToken::Malformed), "{broken}");
    }
    let critical = signed(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &json!({}));
    assert_eq!(outcome(&secret(), &critical, 0), Err(InvalidToken::Critical));
}

#[test]
fn times_are_obeyed_with_a_leeway() {
    for (claims, now, expected) in [
        (json!({}), 0, Ok(())),
        (json!({"exp": 1000}), 1059, Ok(())),
        (json!({"exp": 1000.5}), 1060, Ok(())),
        (json!({"exp": 1000}), 1060, Err(InvalidToken::Expired)),
        (json!({"exp": -5}), 100, Err(InvalidToken::Expired)),
        (json!({"exp": "1000"}), 0, Err(InvalidToken::Malformed)),
        (json!({"exp": null}), 0, Err(InvalidToken::Malformed)),
        (json!({"nbf": 1000}), 940, Ok(())),
        (json!({"nbf": 1000}), 939, Err(InvalidToken::NotYetValid)),
        (json!({"nbf": 1e300}), 939, Err(InvalidToken::NotYetValid)),
        (json!({"nbf": []}), 0, Err(InvalidToken::Malformed)),
    ] {
        assert_eq!(outcome(&secret(), &hs256(&claims), now), expected, "{claims} at {now}");
    }
}

#[test]
fn audience_and_issuer_must_be_known_ones() {
    let verifier = secret().audiences(["chat".into(), "game".into()]).issuers(["https://a".into()]);
    for (claims, expected) in [
        (json!({"aud": "chat", "iss": "https://a"}), Ok(())),
        (json!({"aud": ["x", "game"], "iss": "https://a"}), Ok(())),
        (json!({"aud": ["x"], "iss": "https://a"}), Err(InvalidToken::Audience)),
        (json!({"aud": {"chat": "chat"}, "iss": "https://a"}), Err(InvalidToken::Audience)),
        (json!({"aud": "chats", "iss": "https://a"}), Err(InvalidToken::Audience)),
        (json!({"iss": "https://a"}), Err(InvalidToken::Audience)),
        (json!({"aud": "chat", "iss": "https://b"}), Err(InvalidToken::Issuer)),
        (json!({"aud": "chat", "iss": ["https://a"]}), Err(InvalidToken::Issuer)),
        (json!({"aud": "chat"}), Err(InvalidToken::Issuer)),
    ] {
        assert_eq!(outcome(&verifier, &hs256(&claims), 0), expected, "{claims}");
        assert_eq!(outcome(&secret(), &hs256(&claims), 0), Ok(()), "{claims}");
    }
}

#[test]
fn a_claim_is_a_key_when_it_is_text_or_a_whole_number() {
    let long = "x".repeat(513);
    for (value, expected) in [
        (json!("alice"), Ok("alice")),
        (json!("ä b"), Ok("ä b")),
        (json!(42), Ok("42")),
        (json!(-7), Ok("-7")),
        (json!(u64::MAX), Ok("18446744073709551615")),
        (json!(1.5), Err(InvalidToken::Claim)),
        (json!(true), Err(InvalidToken::Claim)),
        (json!(null), Err(InvalidToken::Claim)),
        (json!(["alice"]), Err(InvalidToken::Claim)),
        (json!({"id": "alice"}), Err(InvalidToken::Claim)),
        (json!(""), Err(InvalidToken::Claim)),
        (json!(long), Err(InvalidToken::Claim)),
    ] {
        let claims = secret().verify(&hs256(&json!({"sub": value})), at(0)).unwrap();
        assert_eq!(
            claims.key("sub").as_ref().map(|key| key.as_str()),
            expected.as_ref().map(|it| *it),
            "{value}"
        );
        assert_eq!(claims.key("user"), Err(InvalidToken::NoClaim));
    }
}

#[test]
fn a_kid_selects_and_without_one_some_are_tried() {
    let oct = |secret: &[u8], kid: Option<&str>| {
        let mut key = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret)});
        if let Some(kid) = kid {
            key["kid"] = kid.into();
        }
        key
    };
    let verifier = jwks([oct(b"one", Some("1")), oct(b"two", Some("2")), oct(b"three", None)]);
    for (secret, kid, expected) in [
        (&b"one"[..], json!("1"), Ok(())),
        (b"two", json!("2"), Ok(())),
        (b"one", json!("2"), Err(InvalidToken::Signature)),
        (b"two", json!(null), Ok(())),
        (b"three", json!("9"), Ok(())),
        (b"one", json!("9"), Err(InvalidToken::Signature)),
    ] {
        let token = by(secret, &json!({"alg": "HS256", "kid": kid}), &json!({}));
        assert_eq!(outcome(&verifier, &token, 0), expected, "{kid}");
    }
    let only_named = jwks([oct(b"one", Some("1"))]);
    let token = by(b"one", &json!({"alg": "HS256", "kid": "2"}), &json!({}));
    assert_eq!(outcome(&only_named, &token, 0), Err(InvalidToken::UnknownKey));
    let many = jwks((0..KeySet::MOST).map(|n| oct(&n.to_be_bytes(), Some(&n.to_string()))));
    for (n, expected) in [(KeySet::TRIED - 1, Ok(())), (KeySet::TRIED, Err(InvalidToken::Signature))] {
        let token = by(&n.to_be_bytes(), &json!({"alg": "HS256"}), &json!({}));
        assert_eq!(outcome(&many, &token, 0), expected);
        let named = by(&n.to_be_bytes(), &json!({"alg": "HS256", "kid": n.to_string()}), &json!({}));
        assert_eq!(outcome(&many, &named, 0), Ok(()));
    }
}

#[test]
fn a_file_gives_keys_or_says_why_not() {
    let [oct, rsa, ec] = examples().map(|(_, _, key)| key);
    let count =
        |content: &str| KeySet::parse(content.as_bytes()).map(|keys| (keys.len(), keys.fault().cloned()));
    let set = |keys: &[&Value]| count(&json!({ "keys": keys }).to_string());
    let with = |key: &Value, name: &str, value: &str| {
        let mut key = key.clone();
        key[name] = value.into();
        key
    };
    assert_eq!(count("secret\n"), Ok((1, None)));
    assert_eq!(set(&[&oct, &rsa, &ec]), Ok((3, None)));
    let unused = [
        with(&ec, "use", "enc"),
        with(&ec, "crv", "P-384"),
        with(&oct, "kty", "AKP"),
        with(&oct, "alg", "A128KW"),
    ];
    for other in &unused {
        assert_eq!(set(&[other]), Err(BadKeys::NoneUsable), "{other}");
        assert_eq!(set(&[other, &rsa]), Ok((1, None)), "{other}");
    }
    for (bad, what) in [
        (with(&rsa, "n", "AQAB"), "is no RSA key of 2048 to 8192 bits"),
        (with(&rsa, "e", ""), "is no RSA key of 2048 to 8192 bits"),
        (with(&rsa, "n", "a b"), "has no n in base64url"),
        (with(&ec, "x", "AQAB"), "has an x or y that is not 32 bytes long"),
        (with(&oct, "k", ""), "has an empty k"),
        (json!({"kid": "x"}), "has no kty"),
    ] {
        assert_eq!(set(&[&bad]), Err(BadKeys::Key(1, what)), "{bad}");
        assert_eq!(set(&[&oct, &bad]), Ok((1, Some(BadKeys::Key(2, what)))), "{bad}");
    }
    assert_eq!(count(""), Err(BadKeys::Empty));
    assert_eq!(count("\r\n"), Err(BadKeys::Empty));
    assert_eq!(count("{\"keys\": 1}"), Err(BadKeys::Json));
    assert_eq!(count("{"), Err(BadKeys::Json));
    assert_eq!(count("-----BEGIN PUBLIC KEY-----\n"), Err(BadKeys::Pem));
    assert_eq!(count("Public-Key: (2048 bit)\n-----BEGIN PUBLIC KEY-----\n"), Err(BadKeys::Pem));
    for public in ["[{}]", "<html>no such host</html>", "\u{feff}{\"keys\":[]}"] {
        assert_eq!(count(public), Err(BadKeys::NoSecret), "{public}");
    }
    assert_eq!(set(&[&oct; KeySet::MOST + 1]), Err(BadKeys::TooMany(101)));
}

#[test]
fn a_secret_ends_with_its_line_and_is_not_shown() {
    for content in ["secret", "secret\n", "secret\r\n"] {
        let verifier = Verifier::new(KeySet::parse(content.as_bytes()).unwrap());
        let token = by(b"secret", &json!({"alg": "HS256"}), &json!({}));
        assert_eq!(outcome(&verifier, &token, 0), Ok(()));
        assert!(verifier.keys().has_short_secret());
        assert!(!format!("{verifier:?}").contains("secret"), "{verifier:?}");
    }
    assert!(!secret().keys().has_short_secret());
}

proptest! {
    #[test]
    fn no_token_and_no_file_makes_it_panic(token in "\\PC{0,80}", parts in prop::array::uniform3(any::<Vec<u8>>()), file in any::<Vec<u8>>()) {
        let verifier = jwks(examples().map(|(_, _, key)| key));
        let encoded = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        for token in [token, encoded] {
            prop_assert!(verifier.verify(&token, at(0)).is_err());
        }
        let _ = KeySet::parse(&file);
        let _ = KeySet::parse(&[b"{", &file[..]].concat());
    }

    #[test]
    fn no_changed_token_is_valid(place in any::<prop::sample::Index>(), byte in "[A-Za-z0-9_.=-]") {
        let verifier = jwks(examples().map(|(_, _, key)| key));
        for (header, signature, _) in examples() {
            let mut token = format!("{header}.{CLAIMS}.{signature}");
            let place = place.index(token.len());
            if token[place..=place] != byte {
                token.replace_range(place..=place, &byte);
                prop_assert!(verifier.verify(&token, at(0)).is_err(), "{}", token);
            }
        }
    }
}
