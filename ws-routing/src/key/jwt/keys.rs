//! The keys that tokens are verified with.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
        UnparsedPublicKey,
    },
};
use serde::{Deserialize, de::IgnoredAny};

/// The keys of a JWKS, or one shared secret.
#[derive(Clone)]
pub struct KeySet {
    keys: Box<[Named]>,
    /// The first key of a JWKS that was passed over though it is for us, and what is wrong with it.
    fault: Option<BadKeys>,
    secret: bool,
}

/// How a key in PEM begins, whatever stands before it.
const PEM: &[u8] = b"-----BEGIN";

impl KeySet {
    /// The most keys that a set may have.
    pub const MOST: usize = 100;

    /// How many keys are tried, at the most, for a token that names none.
    pub const TRIED: usize = 8;

    /// Reads the content of a file: a JWKS, a single JWK, or else a secret for HS256, as it is but for the line's end.
    ///
    /// Keys of a JWKS that are for something else are passed over: other algorithms, curves, and uses than signatures;
    /// so are keys that are not what their kind says, as RFC 7517 has it, and [`KeySet::fault`] names the first.
    ///
    /// # Errors
    ///
    /// [`BadKeys`].
    pub fn parse(content: &[u8]) -> Result<Self, BadKeys> {
        let text = content.trim_ascii();
        if text.starts_with(b"{") {
            return Self::parse_jwks(text);
        }
        // What is public, or an error's page in place of what was asked for, must never become a secret.
        if text.windows(PEM.len()).any(|part| part == PEM) {
            return Err(BadKeys::Pem);
        }
        let page = [&b"<!"[..], b"<html", b"<?xml"]
            .iter()
            .any(|tag| text.get(..tag.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(tag)));
        let list = text.starts_with(b"[") && serde_json::from_slice::<IgnoredAny>(text).is_ok();
        if page || list || text.starts_with(b"\xef\xbb\xbf") {
            return Err(BadKeys::NoSecret);
        }
        let secret = content.strip_suffix(b"\n").unwrap_or(content);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        match secret {
            [] => Err(BadKeys::Empty),
            secret => {
                let keys = Box::new([Named { kid: None, material: Material::hs256(secret) }]);
                Ok(Self { keys, fault: None, secret: true })
            }
        }
    }

    fn parse_jwks(text: &[u8]) -> Result<Self, BadKeys> {
        let jwks = serde_json::from_slice::<Jwks>(text).map_err(|_| BadKeys::Json)?;
        let jwks = match jwks {
            Jwks { keys: Some(keys), .. } => keys,
            Jwks { keys: None, single } => vec![single],
        };
        if jwks.len() > Self::MOST {
            return Err(BadKeys::TooMany(jwks.len()));
        }
        let (mut keys, mut fault) = (Vec::new(), None);
        for (i, jwk) in jwks.into_iter().enumerate() {
            match jwk.named() {
                Ok(key) => keys.extend(key),
                Err(what) => fault = fault.or(Some(BadKeys::Key(i + 1, what))),
            }
        }
        match keys.is_empty() {
            true => Err(fault.unwrap_or(BadKeys::NoneUsable)),
            false => Ok(Self { keys: keys.into(), fault, secret: false }),
        }
    }

    /// What is wrong with the first key that was passed over though it is for us.
    #[must_use]
    pub const fn fault(&self) -> Option<&BadKeys> {
        self.fault.as_ref()
    }

    /// Whether it is one shared secret, and no JWKS.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// How many there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // there is always one
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether one of them is a shared secret of less than the 32 bytes that RFC 7518 asks for.
    #[must_use]
    pub fn has_short_secret(&self) -> bool {
        self.keys.iter().any(|key| matches!(key.material, Material::Hs256 { short: true, .. }))
    }

    /// The keys that may have signed a token of this header: those of its algorithm and, if it names one, of that name,
    /// then those of none.
    pub(super) fn candidates(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> impl Iterator<Item = &Material> {
        let all = move || self.keys.iter().filter(move |key| key.material.algorithm() == algorithm);
        let named = all().filter(move |key| kid.is_some() && key.kid.as_deref() == kid);
        let others = all().filter(move |key| kid.is_none() || key.kid.is_none());
        named.chain(others).map(|key| &key.material).take(Self::TRIED)
    }
}

impl fmt::Debug for KeySet {
    /// Not what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.len()).finish()
    }
}

/// What a token may be signed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// By its name in JOSE.
    pub(super) fn read(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            // RFC 9864 names the curve instead.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

#[derive(Clone)]
struct Named {
    kid: Option<Box<str>>,
    material: Material,
}

/// A key, and with it the one algorithm that it is for.
#[derive(Clone)]
pub(super) enum Material {
    Hs256 { key: hmac::Key, short: bool },
    Rs256 { n: Box<[u8]>, e: Box<[u8]> },
    Es256(Box<[u8]>),
    EdDsa(Box<[u8]>),
}

impl Material {
    fn hs256(secret: &[u8]) -> Self {
        Self::Hs256 { key: hmac::Key::new(hmac::HMAC_SHA256, secret), short: secret.len() < 32 }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256 { .. } => Algorithm::Hs256,
            Self::Rs256 { .. } => Algorithm::Rs256,
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// Whether this key has signed `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Hs256 { key, .. } => hmac::verify(key, message, signature),
            Self::Rs256 { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::EdDsa(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        };
        verified.is_ok()
    }
}

/// A set of keys, or one alone.
#[derive(Deserialize)]
struct Jwks {
    keys: Option<Vec<Jwk>>,
    #[serde(flatten)]
    single: Jwk,
}

/// A key as RFC 7517 writes it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Jwk {
    kty: Option<String>,
    kid: Option<Box<str>>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key; `None` when it is for something else than we do.
    fn named(self) -> Result<Option<Named>, &'static str> {
        let kty = self.kty.as_deref().ok_or("has no kty")?;
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let algorithm = match (kty, self.crv.as_deref()) {
            ("oct", _) => Algorithm::Hs256,
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            _ => return Ok(None),
        };
        let other = self.alg.as_deref().is_some_and(|alg| Algorithm::read(alg) != Some(algorithm));
        if !signs || !verifies || other {
            return Ok(None);
        }
        let material = self.material(algorithm)?;
        Ok(Some(Named { kid: self.kid, material }))
    }

    fn material(&self, algorithm: Algorithm) -> Result<Material, &'static str> {
        match algorithm {
            Algorithm::Hs256 => match &*bytes(self.k.as_ref(), "has no k in base64url")? {
                [] => Err("has an empty k"),
                secret => Ok(Material::hs256(secret)),
            },
            Algorithm::Rs256 => {
                let n = bytes(self.n.as_ref(), "has no n in base64url")?;
                let e = bytes(self.e.as_ref(), "has no e in base64url")?;
                // Some write a leading zero, which their own libraries read.
                let n: Box<[u8]> = n.iter().skip_while(|byte| **byte == 0).copied().collect();
                if !(256..=1024).contains(&n.len()) || e.first().is_none_or(|byte| *byte == 0) {
                    return Err("is no RSA key of 2048 to 8192 bits");
                }
                Ok(Material::Rs256 { n, e })
            }
            Algorithm::Es256 => {
                let x = bytes(self.x.as_ref(), "has no x in base64url")?;
                let y = bytes(self.y.as_ref(), "has no y in base64url")?;
                if x.len() != 32 || y.len() != 32 {
                    return Err("has an x or y that is not 32 bytes long");
                }
                // Uncompressed, as SEC 1 writes points.
                Ok(Material::Es256([&[4][..], &x, &y].concat().into()))
            }
            Algorithm::EdDsa => match bytes(self.x.as_ref(), "has no x in base64url")? {
                x if x.len() == 32 => Ok(Material::EdDsa(x)),
                _ => Err("has an x that is not 32 bytes long"),
            },
        }
    }
}

fn bytes(text: Option<&String>, missing: &'static str) -> Result<Box<[u8]>, &'static str> {
    text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).map(Into::into).ok_or(missing)
}

/// A file's content that gives no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadKeys {
    /// There is nothing in it.
    #[error("is empty: expected a JWKS or a secret")]
    Empty,
    /// It begins as JSON does, and is none, or no JWKS.
    #[error("is no JWKS: expected {{\"keys\": [...]}}, a JWK, or a secret")]
    Json,
    /// It is PEM, whose text would be no secret.
    #[error("is PEM: expected a JWKS or a secret")]
    Pem,
    /// It is what nobody chose as a secret: a list in JSON, a page, or a text that begins with a byte order mark.
    #[error("is neither a JWKS nor a secret, but a list, a page or a text with a byte order mark")]
    NoSecret,
    /// What was a JWKS is a secret now: whoever wrote it had better be asked.
    #[error("was a JWKS and is a secret now: that takes a restart")]
    NoLongerJwks,
    /// That key, counted from 1, is not what its kind says.
    #[error("key {0} {1}")]
    Key(usize, &'static str),
    /// There are over [`KeySet::MOST`].
    #[error("has {0} keys: expected at most 100")]
    TooMany(usize),
    /// None is for HS256, RS256, ES256 or EdDSA.
    #[error("has no key for HS256, RS256, ES256 or EdDSA signatures")]
    NoneUsable,
}
