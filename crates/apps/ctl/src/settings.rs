//! Which store to use: from the environment, then from the configuration file, then the default.
//!
//! Invariant: a setting that is wrong is refused with its name, its origin and the nearest good choice.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tortie_store::Store;
use tortie_store_sqlite::{Options, SqliteStore};

use crate::cli::DEFAULT_CONFIG;

const TYPES: [&str; 3] = ["sqlite", "etcdv3", "kubernetes"];

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

/// Variables that matter here. One that is nearly one of these is taken for a typing error.
const VARIABLES: [&str; 4] = ["DATASTORE_TYPE", "CALICO_DATASTORE_TYPE", "TORTIE_SQLITE", "TORTIE_SQLITE_SYNC"];

/// Other programs' variables that are close to one of [`VARIABLES`] and right.
const OTHERS: [&str; 1] = ["TORTIE_STATE_DIR"];

/// The store to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A file.
    Sqlite(Options),
}

/// The candidate that a misspelt word most likely means.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let limit = 1 + word.chars().count() / 4;
    let scored = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c));
    scored.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
}

/// `; did you mean "X"?`, or nothing.
pub(crate) fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// Which store to use. The environment goes before the file.
pub(crate) fn choose(config: &str, env: &BTreeMap<String, OsString>) -> Result<Choice> {
    check_names(env)?;
    let file = read_file(config)?;
    let variable = |name: &str| {
        let value = env.get(name).map(|value| value.to_string_lossy().into_owned());
        value.filter(|value| !value.is_empty())
    };
    let named = |name: &str| variable(name).map(|value| (value, format!("environment variable {name}")));
    let from_file = |field: &str| {
        let value = file.as_ref().and_then(|file| file["spec"][field].as_str());
        value.filter(|value| !value.is_empty()).map(|value| (value.to_owned(), format!("{config}: spec.{field}")))
    };
    let stated =
        named("DATASTORE_TYPE").or_else(|| named("CALICO_DATASTORE_TYPE")).or_else(|| from_file("datastoreType"));
    if let Some((word, origin)) = stated {
        return by_name(&word, &origin, env);
    }
    let etcd =
        named("ETCD_ENDPOINTS").or_else(|| named("CALICO_ETCD_ENDPOINTS")).or_else(|| from_file("etcdEndpoints"));
    if let Some((_, origin)) = etcd {
        return by_name("etcdv3", &format!("{origin} is set, so the datastore type"), env);
    }
    sqlite(env)
}

fn by_name(word: &str, origin: &str, env: &BTreeMap<String, OsString>) -> Result<Choice> {
    match TYPES.iter().find(|known| known.eq_ignore_ascii_case(word)) {
        Some(&"sqlite") => sqlite(env),
        Some(other) => bail!("{origin}: {other:?} is not in this version: expected \"sqlite\""),
        None => bail!("{origin}: {word:?}: expected one of {}{}", TYPES.join(", "), hint(word, TYPES)),
    }
}

fn sqlite(env: &BTreeMap<String, OsString>) -> Result<Choice> {
    Ok(Choice::Sqlite(Options::from_lookup(|name| env.get(name).cloned())?))
}

fn check_names(env: &BTreeMap<String, OsString>) -> Result<()> {
    for name in env.keys().filter(|name| name.starts_with("TORTIE_") || name.contains("DATASTORE")) {
        let known = VARIABLES.iter().chain(&OTHERS).any(|known| known == name);
        let near = VARIABLES.iter().find(|near| strsim::damerau_levenshtein(near, name) <= 2);
        if let (false, Some(near)) = (known, near) {
            bail!("environment variable {name}: no such setting; did you mean {near:?}?");
        }
    }
    Ok(())
}

fn read_file(path: &str) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if path == DEFAULT_CONFIG && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("Error reading config file: {path}")),
    };
    let config: Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{path}: expected valid YAML or JSON"))?;
    check_file(path, &config)?;
    Ok(Some(config))
}

fn check_file(path: &str, config: &Value) -> Result<()> {
    let Value::Object(members) = config else {
        bail!("{path}: expected a CalicoAPIConfig");
    };
    unknown(path, "", members.keys(), &FIELDS)?;
    for (field, expected) in [("apiVersion", tortie_api::API_VERSION), ("kind", "CalicoAPIConfig")] {
        let found = &config[field];
        if found.as_str() != Some(expected) {
            let near = found.as_str().map(|word| hint(word, [expected])).unwrap_or_default();
            bail!("{path}: {field}: {found}: expected {expected:?}{near}");
        }
    }
    match &config["spec"] {
        Value::Null => Ok(()),
        Value::Object(spec) => {
            unknown(path, "spec.", spec.keys(), &SPEC_FIELDS)?;
            match &spec.get("datastoreType") {
                None | Some(Value::Null | Value::String(_)) => Ok(()),
                Some(other) => bail!("{path}: spec.datastoreType: {other}: expected one of {}", TYPES.join(", ")),
            }
        }
        other => bail!("{path}: spec: {other}: expected a mapping"),
    }
}

fn unknown<'a>(
    path: &str,
    prefix: &str,
    names: impl Iterator<Item = &'a String>,
    known: &[&'static str],
) -> Result<()> {
    for name in names {
        if !known.contains(&name.as_str()) {
            let near = hint(name, known.iter().copied());
            bail!("{path}: {prefix}{name}: unknown field: expected one of the fields {}{near}", known.join(", "));
        }
    }
    Ok(())
}

/// Opens a store.
pub(crate) fn open(choice: Choice) -> Result<Box<dyn Store>> {
    match choice {
        Choice::Sqlite(options) => {
            let store = SqliteStore::open(options).context("Failed to create Calico API client")?;
            Ok(Box::new(store))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, OsString> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
    }

    fn with_file(text: &str, pairs: &[(&str, &str)]) -> Result<Choice, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("calicoctl.cfg");
        std::fs::write(&path, text).expect("written");
        choose(path.to_str().expect("UTF-8"), &env(pairs)).map_err(|error| format!("{error:#}"))
    }

    const HEAD: &str = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n";

    #[test]
    fn without_any_setting_it_is_the_default_file() {
        assert_eq!(choose(DEFAULT_CONFIG, &env(&[])).expect("good"), Choice::Sqlite(Options::default()));
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let file = format!("{HEAD}  datastoreType: etcdv3\n  etcdEndpoints: http://a:2379\n");
        assert!(with_file(&file, &[("DATASTORE_TYPE", "sqlite")]).is_ok());
        let error = with_file(&file, &[]).expect_err("etcd is not there yet");
        assert!(error.contains("spec.datastoreType") && error.contains("sqlite"), "{error}");
    }

    #[test]
    fn wrong_settings_are_named_with_their_origin() {
        for (text, pairs, parts) in [
            (
                format!("{HEAD}  datastoreTyp: sqlite\n"),
                vec![],
                ["calicoctl.cfg: spec.datastoreTyp", "\"datastoreType\""],
            ),
            (format!("{HEAD}  datastoreType: sqlit\n"), vec![], ["calicoctl.cfg: spec.datastoreType", "\"sqlite\""]),
            ("kind: CalicoAPIConfig\n".to_owned(), vec![], ["apiVersion", "projectcalico.org/v3"]),
            (HEAD.replace("APIC", "ApiC"), vec![], ["kind: \"CalicoApiConfig\"", "\"CalicoAPIConfig\""]),
            ("a: [".to_owned(), vec![], ["calicoctl.cfg", "valid YAML"]),
            (HEAD.to_owned(), vec![("DATASTORE_TYPE", "etcd3")], ["variable DATASTORE_TYPE: \"etcd3\"", "\"etcdv3\""]),
            (HEAD.to_owned(), vec![("DATASTORE_TYP", "etcdv3")], ["variable DATASTORE_TYP:", "\"DATASTORE_TYPE\""]),
            (HEAD.to_owned(), vec![("TORTIE_SQLIT", "x")], ["TORTIE_SQLIT:", "\"TORTIE_SQLITE\""]),
            (HEAD.to_owned(), vec![("ETCD_ENDPOINTS", "x")], ["variable ETCD_ENDPOINTS", "\"etcdv3\""]),
        ] {
            let error = with_file(&text, &pairs).expect_err(parts[1]);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let error = format!("{:#}", choose("/nowhere/x.cfg", &env(&[])).expect_err("no such file"));
        assert!(error.contains("Error reading config file: /nowhere/x.cfg"), "{error}");
    }
}
