//! An issuer of tokens: its keys as a JWKS, and what it signs.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use serde_json::{Value, json};

pub const ALGORITHMS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

/// A key for each algorithm.
pub struct Issuer {
    secret: [u8; 32],
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    random: SystemRandom,
    /// What its keys' names begin with.
    name: &'static str,
}

impl Issuer {
    /// Fresh keys, but for the RSA one, which takes long to make.
    pub fn new(name: &'static str) -> Self {
        let random = SystemRandom::new();
        let der = STANDARD.decode(include_str!("rsa.base64").replace('\n', "")).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            secret: ring::rand::generate(&random).unwrap().expose(),
            rsa: RsaKeyPair::from_pkcs8(&der).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            random,
            name,
        }
    }

    /// Its keys, as `--jwt-keys` takes them.
    pub fn jwks(&self) -> Value {
        let public: rsa::PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        let mut keys = [
            json!({"kty": "oct", "k": encode(self.secret)}),
            json!({"kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)}),
            json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.ed.public_key().as_ref())}),
        ];
        for (key, alg) in keys.iter_mut().zip(ALGORITHMS) {
            key["alg"] = alg.into();
            key["kid"] = self.kid(alg).into();
        }
        json!({ "keys": keys })
    }

    /// A token with these claims.
    pub fn sign(&self, alg: &str, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": alg, "kid": self.kid(alg)});
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let bytes = message.as_bytes();
        let signature = match alg {
            "HS256" => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), bytes).as_ref().to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.random, bytes, &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&self.random, bytes).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(bytes).as_ref().to_vec(),
            other => panic!("{other} is no algorithm of ours"),
        };
        format!("{message}.{}", encode(signature))
    }

    fn kid(&self, alg: &str) -> String {
        format!("{}-{alg}", self.name)
    }
}

/// Base64url as tokens have it.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970, so far from now.
pub fn after(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}
