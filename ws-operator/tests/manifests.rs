//! What is installed, in three spellings that must not differ: `ws-operator manifests`, `deploy/install.yaml`, and the
//! chart. `MANIFESTS_WRITE=1` brings the files up to date.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Kind and name of an object.
type Id = (String, String);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn printed(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ws-operator"));
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("WS_")) {
        command.env_remove(name);
    }
    output(command.args(args)).unwrap()
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn objects(yaml: &str) -> BTreeMap<Id, Value> {
    let documents = yaml.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let values = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let id = |object: &Value| {
        [&object["kind"], &object["metadata"]["name"]].map(|part| part.as_str().unwrap().to_owned()).into()
    };
    values.filter(|value| !value.is_null()).map(|object| (id(&object), object)).collect()
}

/// Compares a file with what it should be, or makes it so.
fn is_up_to_date(file: &Path, text: &str) {
    if env::var_os("MANIFESTS_WRITE").is_some() {
        fs::write(file, text).unwrap();
    }
    let same = fs::read_to_string(file).is_ok_and(|there| there == text);
    assert!(
        same,
        "{} is out of date: MANIFESTS_WRITE=1 cargo test -p ws-operator --test manifests",
        file.display()
    );
}

#[test]
fn the_rendered_file_and_the_charts_definition_are_up_to_date() {
    let yaml = printed(&["manifests"]);
    is_up_to_date(&deploy().join("install.yaml"), &yaml);
    let definition =
        yaml.split("---\n").find(|document| document.contains("\nkind: CustomResourceDefinition\n")).unwrap();
    is_up_to_date(&deploy().join("chart/crds/websocketapps.yaml"), definition);
}

#[test]
fn the_charts_versions_are_the_programs() {
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(deploy().join("chart/Chart.yaml")).unwrap()).unwrap();
    assert_eq!([&chart["version"], &chart["appVersion"]], [env!("CARGO_PKG_VERSION"); 2]);
}

#[test]
fn the_chart_renders_to_the_same_objects() {
    let helm = env::var("HELM").unwrap_or_else(|_| "helm".into());
    let chart = deploy().join("chart");
    if let Err(why) = output(Command::new(&helm).arg("version")) {
        return eprintln!("skipped: no helm ($HELM): {why}");
    }
    output(Command::new(&helm).args(["lint", "--strict"]).arg(&chart)).unwrap();
    let template = |more: &[&str]| {
        let args = [
            "template",
            "ws-operator",
            "--namespace",
            "ws-system",
            "--include-crds",
            "--kube-version",
            "1.36",
        ];
        output(Command::new(&helm).args(args).args(more).arg(&chart))
    };
    let rendered = objects(&template(&["--set", "namespace.create=true"]).unwrap());
    let expected = objects(&printed(&["manifests"]));
    let names = |objects: &BTreeMap<Id, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&rendered), names(&expected));
    for (id, object) in &expected {
        assert_eq!(rendered[id], *object, "{id:?}");
    }
    let certified = template(&["--set", "certManager.enabled=true"]).unwrap();
    for part in ["kind: Certificate", "--cert-dir=", "cert-manager.io/inject-ca-from: ws-system/ws-operator"]
    {
        assert!(certified.contains(part), "{part}");
    }
    let refused = template(&["--set", "replicas=many"]).unwrap_err();
    assert!(refused.contains("replicas"), "the schema refuses it: {refused}");
}

#[test]
fn images_and_namespace_are_told() {
    let yaml = printed(&[
        "manifests",
        "--proxy-image",
        "a/p:1",
        "--balancer-image",
        "a/b:1",
        "--operator-image",
        "a/o:1",
        "--namespace",
        "here",
    ]);
    for part in ["--proxy-image=a/p:1", "--balancer-image=a/b:1", "image: a/o:1", "--namespace=here"] {
        assert!(yaml.contains(part), "{part}");
    }
    assert!(!yaml.contains("ws-system"));
}
