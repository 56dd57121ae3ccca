//! Which store to use: from the environment, then from the configuration file, then the default.
//!
//! Invariant: a setting that is wrong is refused with its name, its origin and the nearest good choice.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tortie_datastore::{Choice, Felix, Sources, VARIABLES};
use tortie_store::Store;

use crate::cli::DEFAULT_CONFIG;

pub(crate) use tortie_datastore::{hint, nearest};

/// Other programs' variables that are close to one of [`VARIABLES`] and right.
const OTHERS: [&str; 1] = ["TORTIE_STATE_DIR"];

/// Which store to use. The environment goes before the file.
pub(crate) fn choose(config: &str, env: &BTreeMap<String, OsString>) -> Result<Choice> {
    check_names(env)?;
    let file = Some((config, config == DEFAULT_CONFIG));
    Ok(tortie_datastore::choose(&Sources { env, file, felix: Felix::Ignored })?)
}

/// A variable that is nearly one of those that matter here is taken for a typing error.
fn check_names(env: &BTreeMap<String, OsString>) -> Result<()> {
    for name in
        env.keys().filter(|name| name.starts_with("TORTIE_") || name.contains("DATASTORE") || name.contains("ETCD_"))
    {
        let plain = name.strip_prefix("CALICO_").unwrap_or(name);
        let known = VARIABLES.iter().chain(&OTHERS).any(|known| *known == plain);
        let near = VARIABLES.iter().find(|near| strsim::damerau_levenshtein(near, plain) <= 2);
        if let (false, Some(near)) = (known, near) {
            bail!("environment variable {name}: no such setting; did you mean {near:?}?");
        }
    }
    Ok(())
}

/// Opens a store.
pub(crate) fn open(choice: Choice) -> Result<Arc<dyn Store>> {
    choice.open().context("Failed to create Calico API client")
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
        assert!(matches!(choose(DEFAULT_CONFIG, &env(&[])), Ok(Choice::Sqlite(_))));
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let file = format!("{HEAD}  datastoreType: etcdv3\n  etcdEndpoints: http://a:2379\n");
        assert!(with_file(&file, &[("DATASTORE_TYPE", "sqlite")]).is_ok());
        assert!(matches!(with_file(&file, &[]), Ok(Choice::Etcd(_))));
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
            (HEAD.to_owned(), vec![("ETCD_ENDPOINT", "x")], ["variable ETCD_ENDPOINT:", "\"ETCD_ENDPOINTS\""]),
        ] {
            let error = with_file(&text, &pairs).expect_err(parts[1]);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let error = format!("{:#}", choose("/nowhere/x.cfg", &env(&[])).expect_err("no such file"));
        assert!(error.contains("Error reading config file: /nowhere/x.cfg"), "{error}");
    }
}
