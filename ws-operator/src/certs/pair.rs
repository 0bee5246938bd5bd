//! A certificate and its key: made, and read again.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ws_routing::tls;
use x509_parser::{extensions::GeneralName, pem::parse_x509_pem, prelude::X509Certificate};

use crate::names;

/// How long a CA is valid.
const AUTHORITY: Duration = Duration::from_secs(365 * DAY);

/// How long a serving certificate is.
const LEAF: Duration = Duration::from_secs(90 * DAY);

const DAY: u64 = 24 * 3600;

/// From when they are: clocks of a cluster differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
    facts: Facts,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    from: Timestamp,
    until: Timestamp,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    names: Vec<String>,
}

impl Pair {
    /// A new CA.
    pub(super) fn authority(now: Timestamp) -> Result<Self, Unmade> {
        let mut params = CertificateParams::new(Vec::new())?;
        // Of a name of its own: two of them are in the bundle for a while.
        let name = format!("{} CA {:016x}", names::OPERATOR, rand::random::<u64>());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now, later(now, AUTHORITY));
        let key = KeyPair::generate()?;
        Self::made(&params.self_signed(&key)?.pem(), &key)
    }

    /// A new serving certificate of this CA, which it does not outlive.
    pub(super) fn leaf(&self, names: &[String], now: Timestamp) -> Result<Self, Unmade> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, names::OPERATOR);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, later(now, LEAF).min(self.facts.until));
        let issuer = Issuer::from_ca_cert_pem(&self.cert, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate()?;
        Self::made(&params.signed_by(&key, &issuer)?.pem(), &key)
    }

    fn made(cert: &str, key: &KeyPair) -> Result<Self, Unmade> {
        Self::read(cert, &key.serialize_pem()).ok_or(Unmade::Unreadable)
    }

    /// Reads a pair; `None` when it is of no use.
    pub(super) fn read(cert: &str, key: &str) -> Option<Self> {
        tls::check(cert.as_bytes(), key.as_bytes()).ok()?;
        let facts = facts(cert.as_bytes())?;
        Some(Self { cert: cert.into(), key: key.into(), facts })
    }

    /// When it ends.
    pub(super) fn until(&self) -> Timestamp {
        self.facts.until
    }

    /// When two thirds of its time are over.
    pub(super) fn due(&self) -> Timestamp {
        let life = self.facts.until.duration_since(self.facts.from);
        self.facts.from.checked_add(life * 2 / 3).unwrap_or(self.facts.until)
    }

    /// Whether that CA has made it.
    pub(super) fn is_of(&self, authority: &Self) -> bool {
        self.facts.issuer == authority.facts.subject
    }

    /// Whether it stands for all those names.
    pub(super) fn has(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.facts.names.contains(name))
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a certificate until {}", self.facts.until)
    }
}

/// A certificate that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    /// The library refuses.
    #[error("cannot make a certificate")]
    Refused(#[from] rcgen::Error),
    /// What was made cannot be read.
    #[error("cannot read the certificate that was made")]
    Unreadable,
}

/// When the first certificate of a chain ends.
pub(super) fn ends(chain: &[u8]) -> Option<Timestamp> {
    facts(chain).map(|facts| facts.until)
}

fn facts(chain: &[u8]) -> Option<Facts> {
    let (_, pem) = parse_x509_pem(chain).ok()?;
    let cert = pem.parse_x509().ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some(Facts {
        from: at(cert.validity().not_before)?,
        until: at(cert.validity().not_after)?,
        subject: cert.subject().as_raw().to_vec(),
        issuer: cert.issuer().as_raw().to_vec(),
        names: names_of(&cert),
    })
}

fn names_of(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

fn later(now: Timestamp, time: Duration) -> Timestamp {
    // A time that no clock reaches is as good as never.
    now.checked_add(time).unwrap_or(Timestamp::MAX)
}

fn validity(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    let since_1970 = |time: Timestamp| Duration::from_secs(time.as_second().try_into().unwrap_or_default());
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now).saturating_sub(EARLIER);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(until);
}
