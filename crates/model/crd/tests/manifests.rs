//! The files in `manifests` are what the types say, and have the form that Kubernetes wants.

use std::path::PathBuf;

use serde_json::Value;
use tortie_api::Kind;
use tortie_crd::{Group, definitions, manifest};

#[test]
fn the_files_are_current() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../manifests");
    let node = std::fs::read_to_string(folder.join("node.yaml")).expect("it is there");
    // One file to apply: the kinds first, as the rest needs them.
    let whole = (folder.join("tortie.yaml"), manifest(Group::CrdV1) + "---\n" + &node);
    let kinds = Group::ALL.map(|group| (folder.join(group.file()), manifest(group)));
    for (file, made) in kinds.into_iter().chain([whole]) {
        if std::env::var_os("TORTIE_BLESS").is_some() {
            std::fs::write(&file, &made).expect("it can be written");
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == made, "{} is not current: run `cargo xtask manifests`", file.display());
    }
}

#[test]
fn every_kind_that_is_kept_in_kubernetes_has_a_definition() {
    for group in Group::ALL {
        let all = definitions(group);
        assert_eq!(all.len(), 22);
        for definition in &all {
            let name = definition["metadata"]["name"].as_str().expect("a name");
            let spec = &definition["spec"];
            let version = &spec["versions"][0];
            assert_eq!(name, format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"])));
            structural(name, "", &version["schema"]["openAPIV3Schema"]);
        }
    }
    let scope = |plural: &str| {
        let all = definitions(Group::CrdV1);
        let found = all.iter().find(|d| d["spec"]["names"]["plural"] == plural).expect("it is there");
        text(&found["spec"]["scope"]).to_owned()
    };
    assert_eq!((scope("networkpolicies"), scope("ippools")), ("Namespaced".to_owned(), "Cluster".to_owned()));
    assert_eq!(scope("ipamconfigs"), "Cluster");
}

#[test]
fn what_the_types_know_is_said() {
    let schema = |kind: Kind| {
        let all = definitions(Group::V3);
        let found = all.into_iter().find(|d| d["spec"]["names"]["kind"] == kind.name()).expect("it is there");
        found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].clone()
    };
    let pool = schema(Kind::IpPool);
    assert_eq!(pool["vxlanMode"]["enum"], serde_json::json!(["Never", "Always", "CrossSubnet"]));
    assert_eq!(pool["nodeSelector"]["default"], "all()");
    assert_eq!(pool["blockSize"]["default"], Value::Null);
    let policy = schema(Kind::NetworkPolicy);
    assert_eq!(policy["tier"]["default"], "default");
    assert_eq!(policy["types"]["default"], Value::Null);
    let ports = &policy["ingress"]["items"]["properties"]["destination"]["properties"]["ports"]["items"];
    assert_eq!(ports["x-kubernetes-int-or-string"], true);
    let felix = schema(Kind::FelixConfiguration);
    assert!(felix.as_object().expect("fields").len() > 180);
    assert_eq!(schema(Kind::IpamBlock)["allocations"]["items"]["nullable"], true);
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Each value has a type, and no word stands in it that Kubernetes refuses.
fn structural(name: &str, path: &str, schema: &Value) {
    let fields = schema.as_object().unwrap_or_else(|| panic!("{name}{path}: no object"));
    for word in ["$ref", "oneOf", "allOf", "not", "definitions", "$defs", "const", "title"] {
        assert!(!fields.contains_key(word), "{name}{path}: {word}");
    }
    let free = fields.contains_key("x-kubernetes-int-or-string")
        || fields.contains_key("x-kubernetes-preserve-unknown-fields");
    assert!(free || schema["type"].is_string(), "{name}{path}: no type in {schema}");
    assert!(!(fields.contains_key("properties") && fields.contains_key("additionalProperties")), "{name}{path}");
    for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
        structural(name, &format!("{path}.{field}"), inner);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner_schema) = fields.get(inner) {
            structural(name, &format!("{path}.{inner}"), inner_schema);
        }
    }
}
