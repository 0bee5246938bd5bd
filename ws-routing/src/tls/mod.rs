//! TLS for whoever listens: the certificate that is shown, exchanged without a pause, and the files that it comes from.
//!
//! [`Serving`] is what is shown and accepts connections with it; [`CertificateFiles`] keep it up to date with two files.

mod files;
mod serving;

pub use files::{BadFiles, CertificateFiles};
pub use serving::{BadCertificate, Serving, TlsStream, check};
