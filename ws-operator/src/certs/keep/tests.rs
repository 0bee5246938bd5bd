use k8s_openapi::ByteString;

use super::*;
use crate::fake_api::FakeApi;

const SECRET: &str = "/api/v1/namespaces/ws-system/secrets/ws-operator-tls";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ws-operator";

fn keeper(api: &FakeApi) -> Keeper {
    Keeper::new(api.client(), "ws-system".into(), Metrics::new())
}

fn install(api: &FakeApi) {
    let hook = |name: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"name": "ws-operator", "namespace": "ws-system"}},
        })
    };
    api.put(
        HOOKS,
        json!({"metadata": {"name": "ws-operator"}, "webhooks": [hook("pods"), hook("workloads")]}),
    );
}

fn bundles(api: &FakeApi) -> Vec<String> {
    let hooks = api.get(HOOKS).unwrap()["webhooks"].as_array().unwrap().clone();
    let text = |hook: &Value| hook["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned();
    hooks.iter().map(|hook| String::from_utf8(STANDARD.decode(text(hook)).unwrap()).unwrap()).collect()
}

fn data(api: &FakeApi, name: &str) -> Option<String> {
    let secret: Secret = serde_json::from_value(api.get(SECRET)?).unwrap();
    let ByteString(text) = secret.data?.get(name)?.clone();
    Some(String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_new_installation_gets_a_certificate_and_trust_for_it() {
    let api = FakeApi::default();
    let keeper = keeper(&api);
    keeper.settle().await.unwrap();
    assert_eq!(api.writes(), [SECRET], "without webhooks, too");
    install(&api);
    keeper.settle().await.unwrap();
    assert_eq!(api.writes(), [HOOKS]);
    let ca = data(&api, "ca.crt").unwrap();
    assert_eq!(bundles(&api), [ca.clone(), ca]);
    keeper.settle().await.unwrap();
    assert_eq!(api.writes(), Vec::<String>::new(), "all is as it should be");
}

#[tokio::test]
async fn trust_that_somebody_takes_away_is_given_again() {
    let api = FakeApi::default();
    let keeper = keeper(&api);
    install(&api);
    keeper.settle().await.unwrap();
    let trusted = bundles(&api);
    install(&api);
    assert_eq!(bundles(&api), ["", ""]);
    keeper.settle().await.unwrap();
    assert_eq!(bundles(&api), trusted);
}

#[tokio::test]
async fn a_next_ca_is_noted_as_announced_only_when_it_is_trusted() {
    let api = FakeApi::default();
    let keeper = keeper(&api);
    keeper.settle().await.unwrap();
    let held = keeper.read(Some(&serde_json::from_value(api.get(SECRET).unwrap()).unwrap()));
    let prepared =
        held.0.unwrap().take(super::super::Step::Prepare, &keeper.names, Timestamp::now()).unwrap();
    keeper.write(&prepared, held.1).await.unwrap();
    keeper.settle().await.unwrap();
    assert_eq!(
        api.get(SECRET).unwrap()["metadata"]["annotations"],
        Value::Null,
        "there is nobody to trust it"
    );
    install(&api);
    keeper.settle().await.unwrap();
    let both = data(&api, "ca.crt").unwrap() + &data(&api, "next-ca.crt").unwrap();
    assert_eq!(bundles(&api), [both.clone(), both]);
    let note = api.get(SECRET).unwrap()["metadata"]["annotations"][NOTE].as_str().unwrap().to_owned();
    assert!(note.starts_with("announced "), "{note}");
}

#[tokio::test]
async fn a_secret_that_changed_meanwhile_is_not_written() {
    let api = FakeApi::default();
    let keeper = keeper(&api);
    keeper.settle().await.unwrap();
    let (held, version) = keeper.read(Some(&serde_json::from_value(api.get(SECRET).unwrap()).unwrap()));
    api.put(SECRET, api.get(SECRET).unwrap());
    assert!(keeper.write(&held.unwrap(), version).await.is_err());
}
