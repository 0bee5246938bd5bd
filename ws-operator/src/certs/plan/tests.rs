use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::*;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn names() -> Vec<String> {
    super::super::names("ws-system")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Whether an API server that trusts that bundle would ask a webhook that shows that certificate.
fn is_asked(bundle: &str, held: &Held, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let leaf = CertificateDer::from_pem_slice(held.leaf.as_ref().unwrap().cert.as_bytes()).unwrap();
    let name = ServerName::try_from("ws-operator.ws-system.svc").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap()));
    verifier.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
}

/// All steps that are due, as the leader takes them, with the Secret read anew between them.
fn settle(mut held: Option<Held>, now: Timestamp) -> (Held, Vec<Step>) {
    let mut steps = Vec::new();
    while let Some(step) = plan(now, held.as_ref()) {
        let next = match held {
            Some(held) => held.take(step, &names(), now).unwrap(),
            None => Held::found(&names(), now).unwrap(),
        };
        held = Some(reread(&next));
        steps.push(step);
        assert!(steps.len() < 5, "it does not end: {steps:?}");
    }
    (held.unwrap(), steps)
}

fn reread(held: &Held) -> Held {
    let read = Held::read(&held.data(), held.note().as_deref(), &names()).unwrap();
    assert_eq!(read, *held);
    read
}

#[test]
fn a_year_and_a_half_is_walked_and_every_admission_is_answered() {
    let mut held = None;
    // What an API server has that learns of everything five minutes late, and what a replica shows that does.
    let (mut trusted, mut shown): (Option<String>, Option<Held>) = (None, None);
    let mut taken = Vec::new();
    let mut second = 0;
    while second < 550 * DAY {
        let now = at(second);
        let (mut next, steps) = settle(held.take(), now);
        taken.extend(steps.into_iter().map(|step| (second / DAY, step)));
        if let (Some(bundle), Some(late)) = (&trusted, &shown) {
            assert!(is_asked(bundle, &next, now), "a replica that is ahead of the API server, {now}");
            assert!(is_asked(&next.bundle(), late, now), "a replica that is behind, {now}");
            assert!(is_asked(bundle, late, now), "both are behind, {now}");
        }
        trusted = Some(next.bundle());
        shown = Some(next.clone());
        if next.is_to_announce() {
            next = next.announced(now);
        }
        // Fine steps where something goes on, coarse ones where all is quiet.
        second += if next.next.is_some() || next.old.is_some() { 300 } else { 6 * HOUR };
        held = Some(reread(&next));
    }
    let days: Vec<i64> = taken.iter().map(|(day, _)| *day).collect();
    let steps: Vec<Step> = taken.iter().map(|(_, step)| *step).collect();
    use Step::{Drop, Found, Prepare, Renew, Switch};
    let first = [Found, Renew, Renew, Renew, Renew, Prepare, Switch, Drop];
    assert_eq!(steps[..8], first, "{taken:?}");
    assert_eq!(days[..8], [0, 60, 120, 180, 240, 243, 243, 243]);
    assert_eq!(steps.iter().filter(|step| **step == Switch).count(), 2, "{taken:?}");
}

#[test]
fn a_next_ca_signs_only_after_it_was_announced_for_ten_minutes() {
    let (held, _) = settle(None, at(0));
    let (held, steps) = settle(Some(held), at(244 * DAY));
    assert_eq!(steps, [Step::Renew, Step::Prepare]);
    assert!(held.is_to_announce() && plan(at(250 * DAY), Some(&held)).is_none(), "nobody has heard of it");
    let held = held.announced(at(250 * DAY));
    assert_eq!(plan(at(250 * DAY + 599), Some(&held)), None);
    assert_eq!(plan(at(250 * DAY + 600), Some(&held)), Some(Step::Switch));
    let (held, _) = settle(Some(held), at(250 * DAY + 600));
    assert_eq!(plan(at(250 * DAY + 600 + HOUR - 1), Some(&held)), None);
    assert_eq!(plan(at(250 * DAY + 600 + HOUR), Some(&held)), Some(Step::Drop));
}

#[test]
fn what_is_of_no_use_is_made_anew() {
    let (held, _) = settle(None, at(0));
    assert_eq!(Held::read(&std::collections::BTreeMap::new(), None, &names()), None);
    let mut data = held.data();
    data.insert("tls.crt".into(), data["ca.crt"].clone());
    let broken = Held::read(&data, None, &names()).unwrap();
    assert_eq!(plan(at(0), Some(&broken)), Some(Step::Renew));
    let elsewhere = Held::read(&held.data(), None, &super::super::names("elsewhere")).unwrap();
    assert_eq!(plan(at(0), Some(&elsewhere)), Some(Step::Renew));
    data.insert("ca.key".into(), data["tls.key"].clone());
    assert_eq!(Held::read(&data, None, &names()), None, "not its key");
    assert_eq!(plan(at(366 * DAY), Some(&held)), Some(Step::Found), "the operator slept for a year");
}

#[test]
fn an_old_ca_without_a_note_is_kept_for_an_hour() {
    let (held, _) = settle(None, at(0));
    let held = Held { old: Some(held.ca.cert.clone()), note: None, ..held };
    let (held, steps) = settle(Some(held), at(5));
    assert_eq!(steps, [Step::Keep]);
    assert_eq!(plan(at(4 + HOUR), Some(&held)), None);
    assert_eq!(plan(at(5 + HOUR), Some(&held)), Some(Step::Drop));
}

#[test]
fn no_log_line_shows_a_key() {
    let (held, _) = settle(None, at(0));
    assert!(!format!("{held:?}").contains("PRIVATE"));
}
