//! Felix's configuration file, `/etc/calico/felix.cfg`: its settings count where no variable says otherwise, and before every
//! stored one.
//!
//! It is an INI file. As in upstream, the names of sections mean nothing; a line is `Name = value` or `Name: value`, and
//! `#` and `;` begin comments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tortie_datastore::Choice;

use super::SettingError;

/// Where upstream's Felix has it.
pub(super) const PATH: &str = "/etc/calico/felix.cfg";

/// The settings of a file that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FelixFile {
    path: String,
    /// By the variable that would say the same: the name as it stands in the file, and the value.
    settings: BTreeMap<String, (String, String)>,
}

impl FelixFile {
    /// Reads a file; one that is not there says nothing.
    pub(super) fn read(path: &Path) -> Result<FelixFile, SettingError> {
        match std::fs::read_to_string(path) {
            Ok(text) => FelixFile::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(FelixFile::default()),
            Err(error) => Err(SettingError {
                origin: "Felix's".to_owned(),
                name: "configuration file".to_owned(),
                value: path.display().to_string(),
                problem: format!("it can't be read: {error}"),
            }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<FelixFile, SettingError> {
        let mut file = FelixFile { path: path.display().to_string(), settings: BTreeMap::new() };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) || (line.starts_with('[') && line.ends_with(']')) {
                continue;
            }
            let Some((name, value)) = line.split_once(['=', ':']) else {
                return Err(SettingError {
                    origin: format!("{}:", file.path),
                    name: format!("line {}", number + 1),
                    value: line.to_owned(),
                    problem: "expected Name = value, [section] or a comment".to_owned(),
                });
            };
            let variable = format!("FELIX_{}", name.trim().to_ascii_uppercase());
            // Of several lines for one setting the last counts.
            file.settings.insert(variable, (name.trim().to_owned(), plain(value).to_owned()));
        }
        Ok(file)
    }

    /// The variables, and what the file says where they say nothing.
    pub(super) fn below(&self, mut vars: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let set: BTreeSet<String> = vars.keys().map(|name| name.to_ascii_uppercase()).collect();
        let unset = self.settings.iter().filter(|(variable, _)| !set.contains(*variable));
        vars.extend(unset.map(|(variable, (_, value))| (variable.clone(), value.clone())));
        vars
    }

    /// Says of a fault in a setting that came from the file that it stands there.
    pub(super) fn locate(&self, fault: &mut SettingError) {
        if let Some((name, value)) = self.settings.get(&fault.name).filter(|(_, value)| *value == fault.value) {
            (fault.origin, fault.name, fault.value) = (format!("{}:", self.path), name.clone(), value.clone());
        }
    }

    /// Says of the datastore's settings that came from the file that they stand there; `vars` are the variables alone.
    pub(super) fn locate_datastore(&self, vars: &BTreeMap<String, String>, datastore: &mut Choice) {
        let Choice::Etcd(etcd) = datastore else { return };
        for setting in [&mut etcd.endpoints, &mut etcd.ca_file, &mut etcd.cert_file, &mut etcd.key_file] {
            let Some(setting) = setting else { continue };
            let variable = setting.origin.strip_prefix("environment variable ").unwrap_or_default();
            let set = vars.keys().any(|name| name.eq_ignore_ascii_case(variable));
            if let Some((name, _)) = self.settings.get(variable).filter(|_| !set) {
                setting.origin = format!("{}: {name}", self.path);
            }
        }
    }
}

/// The value without quotes, or without what follows it on the line.
fn plain(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\'', '`'] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inner;
        }
    }
    let comment = value.find(" #").into_iter().chain(value.find(" ;")).min();
    value[..comment.unwrap_or(value.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, vars: &[(&str, &str)]) -> Result<BTreeMap<String, String>, SettingError> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(FelixFile::parse(Path::new(PATH), text)?.below(vars))
    }

    #[test]
    fn settings_count_where_no_variable_says_otherwise() {
        let text = "# Felix\n[global]\nHealthPort = 9199 ; a port\nlogSeverityScreen: \"Debug # all\"\n\n[other]\n\
                    ; nothing\nPrometheusMetricsEnabled=true\nhealthport=9200\nInterfacePrefix = cali\n";
        let vars = merged(text, &[("FELIX_interfaceprefix", "tap"), ("IP", "none")]).expect("good");
        let wanted = [
            ("FELIX_HEALTHPORT", "9200"),
            ("FELIX_LOGSEVERITYSCREEN", "Debug # all"),
            ("FELIX_PROMETHEUSMETRICSENABLED", "true"),
            ("FELIX_interfaceprefix", "tap"),
            ("IP", "none"),
        ];
        assert_eq!(vars.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn what_is_no_setting_is_named_by_its_line() {
        let text = merged("[global]\nnonsense\n", &[]).expect_err("no value").to_string();
        assert!(text.contains("line 2") && text.contains("nonsense") && text.contains("Name = value"), "{text}");
    }

    #[test]
    fn without_the_file_nothing_is_said() {
        assert_eq!(FelixFile::read(Path::new("/no/such/felix.cfg")), Ok(FelixFile::default()));
        let text = FelixFile::read(Path::new("/")).expect_err("a folder").to_string();
        assert!(text.contains("Felix's configuration file=\"/\"") && text.contains("can't be read"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(text in "[ -~\n]{0,200}") {
            let _ = merged(&text, &[]);
        }
    }
}
