//! What holds for the metadata of every kind: names, labels, annotations.

use std::collections::BTreeMap;

use crate::check::Findings;
use crate::kind::Kind;
use crate::label_map::LabelMap;
use crate::metadata::Metadata;
use crate::path::Path;
use crate::text;

const ANNOTATIONS_LIMIT: usize = 256 * 1024;

pub(crate) fn check(kind: Kind, metadata: &Metadata, out: &mut Findings) {
    let path = Path::root("metadata");
    name(kind, metadata, &path.field("name"), out);
    let namespace = path.field("namespace");
    if !kind.namespaced() && !metadata.namespace.is_empty() {
        out.wrong(&namespace, format!("{:?}", metadata.namespace), format!("none: {kind} is not namespaced"));
    } else if !metadata.namespace.is_empty() && !text::is_dns_label(&metadata.namespace) {
        out.wrong(&namespace, format!("{:?}", metadata.namespace), text::DNS_LABEL);
    }
    labels(&metadata.labels, &path.field("labels"), out);
    annotations(&metadata.annotations, &path.field("annotations"), out);
}

fn name(kind: Kind, metadata: &Metadata, path: &Path<'_>, out: &mut Findings) {
    let name = metadata.name.as_str();
    let reserved = |prefix: &str| name.strip_prefix(prefix).is_some_and(text::is_dns_subdomain);
    let (good, expected) = match kind {
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => {
            let good = text::is_policy_name(name) || reserved("knp.default.") || reserved("ossg.default.");
            (good && name.len() <= 253, "a DNS-1123 label, or two joined by '.'")
        }
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => {
            (text::is_policy_name(name), "a DNS-1123 label, or two joined by '.'")
        }
        Kind::Tier => (text::is_dns_label(name), text::DNS_LABEL),
        Kind::IpamConfiguration => (name == "default", "\"default\""),
        // Generated endpoint names can be long, and their handles are arbitrary ids.
        Kind::IpamHandle | Kind::IpamBlock => (!name.is_empty(), text::DNS_SUBDOMAIN),
        _ => (text::is_dns_subdomain(name), text::DNS_SUBDOMAIN),
    };
    if name.is_empty() {
        if metadata.generate_name.is_empty() {
            out.wrong(path, "", "a name; it is missing");
        }
    } else if !good {
        out.wrong(path, format!("{name:?}"), expected);
    }
}

pub(crate) fn labels(labels: &LabelMap, path: &Path<'_>, out: &mut Findings) {
    for (key, value) in labels {
        if !text::is_qualified_name(key) {
            out.wrong(path, format!("{key:?}"), "label keys of the form NAME or DOMAIN/NAME, NAME at most 63 bytes");
        }
        if !text::is_label_value(value) {
            out.wrong(&path.field(key), format!("{value:?}"), text::LABEL_VALUE);
        }
    }
}

pub(crate) fn annotations(annotations: &BTreeMap<String, String>, path: &Path<'_>, out: &mut Findings) {
    let mut size = 0;
    for (key, value) in annotations {
        if !text::is_qualified_name(&key.to_ascii_lowercase()) {
            out.wrong(
                path,
                format!("{key:?}"),
                "annotation keys of the form NAME or DOMAIN/NAME, NAME at most 63 bytes",
            );
        }
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_LIMIT {
        out.wrong(path, format!("{size} bytes"), format!("at most {ANNOTATIONS_LIMIT}"));
    }
}

/// Network sets carry their namespace in the metadata; the label is made from it.
pub(crate) fn no_namespace_label(metadata: &Metadata, out: &mut Findings) {
    const LABEL: &str = "projectcalico.org/namespace";
    if metadata.labels.contains_key(LABEL) {
        out.wrong(&Path::root("metadata").field("labels"), format!("{LABEL:?}"), "other labels: this one is reserved");
    }
}
