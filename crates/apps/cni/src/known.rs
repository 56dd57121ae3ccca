//! Which keys the network configuration may have, and finding those that are nearly one of them.
//!
//! A key that is near to nothing is another program's and stays; so a configuration may carry what we don't read.

use serde_json::{Map, Value};

use crate::spec::{CniError, code};

/// Keys at the top of the configuration: those of the specification, of upstream's plugin, and what runtimes add.
const TOP: &[&str] = &[
    "name",
    "cniVersion",
    "cniVersions",
    "type",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "prevResult",
    "runtimeConfig",
    "capabilities",
    "dns",
    "args",
    "ipMasq",
    "ipam",
    "mode",
    "vxlan_mac_prefix",
    "vxlan_vni",
    "qps",
    "burst",
    "mtu",
    "num_queues",
    "nodename",
    "nodename_file",
    "nodename_file_optional",
    "ipam_lock_file",
    "datastore_type",
    "etcd_endpoints",
    "etcd_discovery_srv",
    "etcd_scheme",
    "etcd_authority",
    "etcd_key_file",
    "etcd_cert_file",
    "etcd_ca_cert_file",
    "hostname",
    "log_level",
    "log_file_path",
    "log_file_max_size",
    "log_file_max_age",
    "log_file_max_count",
    "policy",
    "kubernetes",
    "feature_control",
    "container_settings",
    "include_default_routes",
    "dataplane_options",
    "device_type",
    "readiness_gates",
    "policy_setup_timeout_seconds",
    "endpoint_status_dir",
    "require_mtu_file",
    "calico_api_group",
    "windows_pod_deletion_timestamp_timeout",
    "windows_use_single_network",
    "windows_disable_default_deny_all_policy",
    "windows_loopback_DSR",
];

/// Keys of the objects inside; those of `ipam` only where the IPAM is our own.
const INSIDE: &[(&str, &[&str])] = &[
    ("ipam", &["type", "subnet", "assign_ipv4", "assign_ipv6", "ipv4_pools", "ipv6_pools"]),
    (
        "policy",
        &[
            "type",
            "k8s_api_root",
            "k8s_auth_token",
            "k8s_client_certificate",
            "k8s_client_key",
            "k8s_certificate_authority",
        ],
    ),
    ("kubernetes", &["k8s_api_root", "kubeconfig", "node_name"]),
    ("container_settings", &["allow_ip_forwarding"]),
    ("feature_control", &["ip_addrs_no_ipam", "floating_ips"]),
];

/// Words of keys that name one of a few things, in any case.
const WORDS: &[(&str, &[&str])] = &[
    ("datastore_type", &["sqlite", "etcdv3", "kubernetes"]),
    ("log_level", &["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic", "none"]),
];

/// Refuses a misspelt key, and a misspelt word of a key that takes one of a few.
pub(crate) fn check(conf: &Map<String, Value>) -> Result<(), CniError> {
    misspelt("", conf, TOP)?;
    for (name, keys) in INSIDE {
        let Some(object) = conf.get(*name).and_then(Value::as_object) else { continue };
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        if *name == "ipam" {
            if let Some(known) = near(kind, &["calico-ipam"]) {
                return Err(wrong("ipam.type", kind, known));
            }
            if !matches!(kind, "" | "calico-ipam") {
                continue;
            }
        }
        misspelt(&format!("{name}."), object, keys)?;
    }
    for (name, words) in WORDS {
        let Some(word) = conf.get(*name).and_then(Value::as_str) else { continue };
        if let Some(known) = near(&word.to_ascii_lowercase(), words) {
            return Err(wrong(name, word, known));
        }
    }
    Ok(())
}

fn misspelt(path: &str, object: &Map<String, Value>, keys: &[&str]) -> Result<(), CniError> {
    for key in object.keys().filter(|key| !key.contains('/')) {
        if let Some(known) = near(key, keys) {
            let problem = format!("has the key \"{path}{key}\", which is not known: did you mean {known:?}?");
            return Err(CniError::new(code::INVALID_CONFIG, format!("the network configuration {problem}")));
        }
    }
    Ok(())
}

fn wrong(name: &str, word: &str, known: &str) -> CniError {
    let text = format!("the network configuration has {word:?} for {name}: did you mean {known:?}?");
    CniError::new(code::INVALID_CONFIG, text)
}

/// The known word that this one nearly is; `None` for one that is known, or near to none.
fn near<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if known.contains(&word) {
        return None;
    }
    let scored = known.iter().map(|one| (strsim::damerau_levenshtein(word, one), *one));
    scored.filter(|(distance, one)| one.len() > 3 && *distance <= 2).min().map(|(_, one)| one)
}
