//! JSON Web Tokens as bearers of keys: verified here, by keys of a file.
//!
//! [`KeySet`] is what the file holds, [`Verifier`] says whether a token is valid at a time that it is given, and
//! [`KeysFile`] is the file as it is followed.
//!
//! HS256, RS256, ES256 and EdDSA (Ed25519). Each key is for one of them, whatever a token says: an RSA key's public half
//! is never taken for a shared secret, and `alg: none` is nothing.
//!
//! ```
//! use std::time::SystemTime;
//! use ws_routing::key::jwt::{KeySet, Verifier};
//!
//! let verifier = Verifier::new(KeySet::parse(b"a secret of at least 32 bytes, shared").unwrap())
//!     .audiences(["chat".into()]);
//! assert!(verifier.verify("no.such.token", SystemTime::now()).is_err());
//! ```

mod file;
mod keys;
mod verify;

pub use file::{BadKeysFile, KeysFile};
pub use keys::{BadKeys, KeySet};
pub use verify::{Claims, Verifier};

#[cfg(test)]
mod tests;
