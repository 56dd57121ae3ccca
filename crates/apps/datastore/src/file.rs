//! Upstream's `CalicoAPIConfig`, by default `/etc/calico/calicoctl.cfg`.

use serde_json::Value;

use crate::{SettingError, TYPES, hint};

const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

const SPEC_FIELDS: [&str; 25] = [
    "datastoreType",
    "etcdEndpoints",
    "etcdDiscoverySrv",
    "etcdUsername",
    "etcdPassword",
    "etcdKeyFile",
    "etcdCertFile",
    "etcdCACertFile",
    "etcdKey",
    "etcdCert",
    "etcdCACert",
    "kubeconfig",
    "k8sAPIEndpoint",
    "k8sKeyFile",
    "k8sCertFile",
    "k8sCAFile",
    "k8sAPIToken",
    "k8sInsecureSkipTLSVerify",
    "k8sDisableNodePoll",
    "usePodCIDR",
    "kubeconfigInline",
    "k8sClientQPS",
    "k8sClientBurst",
    "k8sCurrentContext",
    "calicoAPIGroup",
];

/// Reads and checks a file; `None` if it is not there and need not be.
pub(crate) fn read(path: &str, may_be_absent: bool) -> Result<Option<Value>, SettingError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if may_be_absent && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SettingError::File(format!("Error reading config file: {path}: {error}"))),
    };
    let config: Value = serde_saphyr::from_str(&text)
        .map_err(|error| SettingError::File(format!("{path}: expected valid YAML or JSON: {error}")))?;
    check(&config).map_err(|problem| SettingError::File(format!("{path}: {problem}")))?;
    Ok(Some(config))
}

fn check(config: &Value) -> Result<(), String> {
    let Value::Object(members) = config else {
        return Err("expected a CalicoAPIConfig".to_owned());
    };
    unknown("", members.keys(), &FIELDS)?;
    for (field, expected) in [("apiVersion", tortie_api::API_VERSION), ("kind", "CalicoAPIConfig")] {
        let found = &config[field];
        if found.as_str() != Some(expected) {
            let near = found.as_str().map(|word| hint(word, [expected])).unwrap_or_default();
            return Err(format!("{field}: {found}: expected {expected:?}{near}"));
        }
    }
    match &config["spec"] {
        Value::Null => Ok(()),
        Value::Object(spec) => {
            unknown("spec.", spec.keys(), &SPEC_FIELDS)?;
            texts(spec)
        }
        other => Err(format!("spec: {other}: expected a mapping")),
    }
}

/// Fields that must be texts are; their values may be secrets and are not told.
fn texts(spec: &serde_json::Map<String, Value>) -> Result<(), String> {
    for (field, value) in spec.iter().filter(|(field, _)| field.starts_with("etcd") || *field == "datastoreType") {
        match value {
            Value::Null | Value::String(_) => {}
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) if field == "datastoreType" => {
                return Err(format!("spec.{field}: {value}: expected one of {}", TYPES.join(", ")));
            }
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return Err(format!("spec.{field}: expected a text: put it in quotes"));
            }
        }
    }
    Ok(())
}

fn unknown<'a>(prefix: &str, names: impl Iterator<Item = &'a String>, known: &[&'static str]) -> Result<(), String> {
    for name in names {
        if !known.contains(&name.as_str()) {
            let near = hint(name, known.iter().copied());
            return Err(format!(
                "{prefix}{name}: unknown field: expected one of the fields {}{near}",
                known.join(", ")
            ));
        }
    }
    Ok(())
}
