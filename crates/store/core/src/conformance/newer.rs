//! What another version wrote stays.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tortie_api::{Kind, Resource};
use tortie_facts::{Key, Value};

use super::Subject;
use crate::resource::{replace, resource_key};
use crate::{Expect, Reader, Write};

/// Kinds whose resources are views of what is kept under keys of another form.
const VIEWS: [Kind; 3] = [Kind::IpamBlock, Kind::IpamHandle, Kind::BlockAffinity];

/// A resource with every field that upstream's structure has.
fn golden(kind: Kind) -> Json {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/api/tests/golden");
    let text = std::fs::read_to_string(folder.join(format!("{kind}.json"))).expect("every kind has a golden file");
    serde_json::from_str(&text).expect("JSON")
}

/// The text without what is there for storing alone.
fn without_name(mut object: Json) -> Json {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove("projectcalico.org/metadata");
    }
    object
}

/// A resource of any kind is read and written back with a change: annotations that nobody knows, and fields of a newer
/// version in any part of it, are still there.
pub fn what_newer_versions_wrote_survives_a_change(subject: &dyn Subject) {
    let store = subject.open();
    for kind in Kind::ALL.iter().filter(|kind| !VIEWS.contains(kind)) {
        let mut stored = golden(*kind);
        if let (false, Some(metadata)) = (kind.namespaced(), stored["metadata"].as_object_mut()) {
            metadata.remove("namespace");
        }
        stored["newer"] = json!({ "list": [1, { "a": null }] });
        stored["metadata"]["newer"] = json!("text");
        stored["metadata"]["annotations"]["nobody.example/knows"] = json!("kept");
        stored["spec"]["newer"] = json!({ "order": 100.5 });
        let known = Resource::from_stored_json(&stored.to_string()).expect("all else is known").0;
        let key = resource_key(&known);
        if !subject.plants(*kind) {
            continue;
        }
        subject.plant(&key.path(), &stored.to_string());
        let entry = Reader::get(&*store, &key).expect("it can be read").expect("it is there");
        let Value::Resource(old) = &entry.value else { panic!("{key}") };
        assert_eq!(old.metadata().annotations["nobody.example/knows"], "kept", "{key}");
        let mut new = Resource::clone(old);
        new.metadata_mut().labels.insert("changed", "yes");
        store.write_one(replace(new, &Arc::clone(old), entry.revision)).expect("nobody else writes");
        let mut wanted = stored;
        wanted["metadata"]["labels"]["changed"] = json!("yes");
        if let Some(metadata) = wanted["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let text = subject.text(&key.path());
        let found: Json = serde_json::from_str(&text).expect("JSON");
        assert_eq!(without_name(found), without_name(wanted), "{key}");
    }
}

/// Blocks, affinities and handles keep the members that a newer version gave them, through every write and read.
pub fn what_newer_versions_wrote_of_addresses_survives(subject: &dyn Subject) {
    let store = subject.open();
    let cidr = "10.0.0.0/31".parse().expect("a literal");
    let table = [
        (
            Key::Block(cidr),
            r#"{"cidr":"10.0.0.0/31","affinity":"host:n","allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"h","newer":[1]}],"sequenceNumber":7,"sequenceNumberForAllocation":{"0":6},"deleted":false,"newer":{"a":"b"}}"#,
        ),
        (Key::host_affinity("n", cidr), r#"{"state":"confirmed","deleted":false,"newer":"text"}"#),
        (Key::Handle("h".into()), r#"{"block":{"10.0.0.0/31":1},"deleted":false,"newer":true}"#),
    ];
    for (key, text) in table {
        let write = |expect, value| store.write_one(Write { key: key.clone(), expect, value: Some(value) });
        write(Expect::Absent, Value::from_json(&key, text).expect("good")).expect("it is absent");
        let entry = Reader::get(&*store, &key).expect("it can be read").expect("it is there");
        assert_eq!(entry.value.to_json(), text, "{key}");
        write(Expect::Revision(entry.revision), entry.value).expect("nobody else writes");
        let entry = Reader::get(&*subject.open(), &key).expect("it can be read").expect("it is there");
        assert_eq!(entry.value.to_json(), text, "{key}");
    }
}
