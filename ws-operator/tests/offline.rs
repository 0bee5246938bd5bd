//! Manifests in, manifests out, as `ws-operator inject -f -` does it. `GOLDEN_WRITE=1` writes what is expected anew.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use serde_json::Value;
use ws_operator::{Command, InjectArgs, Settings, offline::inject_all};
use ws_routing::cli::BadConfig;

fn settings() -> Settings {
    Settings { proxy_image: "ws-proxy:golden".into(), ..Settings::default() }
}

fn injected(text: &str) -> (String, Vec<String>) {
    let given = inject_all(text, "default", &settings()).unwrap();
    (given.manifests, given.warnings)
}

#[test]
fn golden() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(case) = name.strip_suffix(".in.yaml") else { continue };
        let (given, _) = injected(&fs::read_to_string(&file).unwrap());
        let expected = folder.join(format!("{case}.out.yaml"));
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            fs::write(&expected, &given).unwrap();
        }
        assert_eq!(given, fs::read_to_string(&expected).unwrap_or_default(), "{case}");
        assert_eq!(injected(&given).0, given, "{case}: twice is once");
        cases += 1;
    }
    assert_eq!(cases, 4);
}

#[test]
fn what_needs_nothing_is_as_it_was_byte_for_byte() {
    let text = "# first\n---\n\n---   \napiVersion: v1 # a comment\nkind:   ConfigMap\ndata: {a: b}\r\n---\n";
    assert_eq!(injected(text), (text.into(), Vec::new()));
    assert_eq!(injected(""), (String::new(), Vec::new()));
}

#[test]
fn warnings_name_their_object() {
    let text = "kind: Deployment\nmetadata: {name: chat, labels: {ws.operator/enabled: 'true'}}\n\
                spec: {template: {spec: {hostNetwork: true, containers: [{name: app}]}}}\n";
    let (_, warnings) = injected(text);
    assert_eq!(
        warnings,
        [
            "Deployment chat: the label is ws.operator/enable; ws.operator/enabled works too",
            "Deployment chat: no sidecar is put into this pod: it has hostNetwork, where the sidecar's ports would \
             clash",
        ]
    );
}

#[test]
fn faults_name_their_document() {
    let told = |text: &str| {
        let fault = inject_all(text, "default", &settings()).unwrap_err();
        let causes = std::iter::successors(Some(&fault as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    };
    let fault = told("kind: Service\n---\nkind: [\n");
    assert!(fault.starts_with("document 2: it cannot be read: "), "{fault}");
    let fault = told(
        "kind: Pod\nmetadata: {labels: {ws.operator/enable: 'true'}, annotations: {ws.operator/weight: '0'}}\n\
         spec: {containers: []}\n",
    );
    assert_eq!(
        fault,
        "document 1: its annotations cannot be followed: ws.operator/weight \"0\": expected a whole number from 1 to \
         1000"
    );
}

#[test]
fn modes_of_files_are_octal_as_kubectl_reads_them() {
    let text = "kind: Pod\nmetadata: {name: a, labels: {ws.operator/enable: 'true'}}\n\
                spec:\n  containers: [{name: app, env: [{name: A, value: '0400'}]}]\n  \
                volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]\n";
    let (given, _) = injected(text);
    let pod: Value = serde_saphyr::from_str(&given).unwrap();
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "ws-proxy");
    assert_eq!(pod["spec"]["volumes"][0]["secret"]["defaultMode"], 0o400);
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["value"], "0400", "a text stays one");
}

#[test]
fn what_does_not_ask_is_not_looked_into() {
    let unlike =
        "spec: {template: {metadata: {annotations: {a: 1}}, spec: {containers: {of: another kind}}}}";
    for kind in ["Deployment", "Job"] {
        let text = format!("kind: {kind}   # of somebody else\nmetadata: {{labels: {{a: 1}}}}\n{unlike}\n");
        assert_eq!(injected(&text), (text, Vec::new()));
    }
}

#[test]
fn nothing_is_put_into_namespaces_that_are_left_alone() {
    let text = "kind: Deployment\nmetadata: {name: dns, namespace: NAME, labels: {ws.operator/enable: 'true'}}\n\
                spec: {template: {spec: {containers: [{name: app}]}}}\n";
    for namespace in ["kube-system", "ws-system"] {
        let text = text.replace("NAME", namespace);
        let warning = "Deployment dns: no sidecar is put into this pod: its namespace is left alone";
        assert_eq!(injected(&text), (text, vec![warning.into()]));
    }
    let unnamed = text.replace(" namespace: NAME,", "");
    assert_eq!(inject_all(&unnamed, "kube-system", &settings()).unwrap().manifests, unnamed);
    assert_ne!(injected(&unnamed).0, unnamed);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_bad_configuration() {
    let args =
        InjectArgs { filename: "/no/such".into(), default_namespace: "default".into(), settings: settings() };
    let error = ws_operator::run(ws_operator::Args { command: Command::Inject(args) }).await.unwrap_err();
    let told = error.downcast_ref::<BadConfig>().unwrap().to_string();
    assert!(told.starts_with("--filename (WS_FILENAME) \"/no/such\": expected a file"), "{told}");
}
