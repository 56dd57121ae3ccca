//! Every conversion, object by object: `tests/golden/*.txt` holds objects and, below each, the facts that they become.
//!
//! Sections: `=== FUNCTION [ARGUMENT] # what is shown` with the object in JSON, then `--- fact`, `--- none`,
//! `--- error` and `--- problem` lines. `TORTIE_BLESS=1` rewrites what follows the objects.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tortie_api::{Node, StagedKubernetesNetworkPolicySpec, WorkloadEndpoint};
use tortie_kubernetes as k8s;
use tortie_kubernetes::{ConversionError, Converted, PodCidrs};

fn read<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{object}: {error}"))
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("a value with text keys")
}

fn told(result: Result<Option<Converted>, ConversionError>) -> String {
    match result {
        Ok(None) => "--- none\n".to_owned(),
        Err(error) => format!("--- error {error}\n"),
        Ok(Some(Converted { resource, problems })) => {
            let again = tortie_api::Resource::from_json(&resource.to_json()).expect("a fact reads back");
            assert_eq!(again, resource);
            let lines = problems.iter().map(|problem| format!("--- problem {problem}\n"));
            format!("--- fact\n{}\n{}", pretty(&resource), lines.collect::<String>())
        }
    }
}

fn convert(what: &str, object: &Value) -> String {
    match what {
        "pod" => told(k8s::pod(&read(object), "cali")),
        "namespace" => told(k8s::namespace(&read(object)).map(Some)),
        "service_account" => told(k8s::service_account(&read(object)).map(Some)),
        "network_policy" => told(k8s::network_policy(&read(object)).map(Some)),
        "cluster_network_policy" => told(k8s::cluster_network_policy(&read(object)).map(Some)),
        "endpoint_slice" => told(k8s::endpoint_slice(&read(object)).map(Some)),
        "service" => told(k8s::service(&read(object)).map(Some)),
        "node" => told(k8s::node(&read(object), PodCidrs::Unused).map(Some)),
        "node pod-cidrs" => told(k8s::node(&read(object), PodCidrs::Used).map(Some)),
        "staged_network_policy" => {
            let (spec, problems) = k8s::staged_network_policy(&read::<StagedKubernetesNetworkPolicySpec>(object));
            let lines = problems.iter().map(|problem| format!("--- problem {problem}\n"));
            format!("--- fact\n{}\n{}", pretty(&spec), lines.collect::<String>())
        }
        "pod_patch" => match k8s::pod_patch(&read::<WorkloadEndpoint>(object)) {
            Some(patch) => format!("--- patch\n{}\n", pretty(&patch)),
            None => "--- none\n".to_owned(),
        },
        "pod_removal_patch" => {
            let uid = object.as_str().expect("a uid");
            format!("--- patch\n{}\n", pretty(&k8s::pod_removal_patch(uid)))
        }
        "node_patch" => match k8s::node_patch(&read::<Node>(object)) {
            Ok(patch) => format!("--- patch\n{}\n", pretty(&patch)),
            Err(error) => format!("--- error {error}\n"),
        },
        other => panic!("there is no conversion {other:?}"),
    }
}

#[test]
fn every_object_becomes_what_is_written_below_it() {
    let bless = std::env::var_os("TORTIE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(folder).expect("the folder of objects");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    let (mut objects, mut wrong) = (0, Vec::new());
    for path in &files {
        let text = std::fs::read_to_string(path).expect("a readable file");
        let mut parts = text.split("=== ");
        let mut out = parts.next().expect("split yields one part at least").to_owned();
        for part in parts {
            let (head, body) = part.split_once('\n').expect("an object below the head");
            let object = body.split("\n---").next().unwrap_or(body).trim();
            let value = serde_json::from_str(object).unwrap_or_else(|error| panic!("{head}: {error}"));
            let what = head.split('#').next().unwrap_or(head).trim();
            out.push_str(&format!("=== {head}\n{object}\n{}", convert(what, &value)));
            objects += 1;
        }
        if bless {
            std::fs::write(path, &out).expect("a writable file");
        } else if out != text {
            wrong.push(similar_asserts::SimpleDiff::from_str(&text, &out, "expected", "found").to_string());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(objects >= 40, "{objects} objects are left");
}
