//! What can be set of the embedded store, and from where.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where the store is unless `TORTIE_SQLITE` says otherwise.
pub const DEFAULT_PATH: &str = "/var/lib/tortie/tortie.db";

/// What an acknowledged write survives. Either survives the end of any process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// A power failure too: each commit waits for the disk.
    #[default]
    Full,
    /// After a power failure the last moments may be missing (never a part of a write).
    Normal,
}

/// What can be set of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Whether to make the file's directory. True for the default path alone.
    pub create_directory: bool,
    /// What an acknowledged write survives.
    pub sync: Sync,
    /// How long a call waits for other processes before it fails as unavailable.
    pub patience: Duration,
    /// How many changes the log keeps at most; a watch that is further behind must list again.
    pub keep_changes: u64,
    /// How long the log keeps a change.
    pub keep_for: Duration,
    /// How often watches look for changes that nobody rang for.
    pub poll: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            path: PathBuf::from(DEFAULT_PATH),
            create_directory: true,
            sync: Sync::Full,
            patience: Duration::from_secs(5),
            keep_changes: 10_000,
            keep_for: Duration::from_secs(3600),
            poll: Duration::from_millis(250),
        }
    }
}

/// A setting from the environment that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}={value:?}: expected {expected}")]
pub struct OptionsError {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub expected: String,
}

impl Options {
    /// The defaults for a file at this path, whose directory must exist.
    pub fn at(path: impl Into<PathBuf>) -> Options {
        Options { path: path.into(), create_directory: false, ..Options::default() }
    }

    /// Reads `TORTIE_SQLITE` (the file) and `TORTIE_SQLITE_SYNC` (`full` or `normal`). Unset and empty mean the default.
    pub fn from_env() -> Result<Options, OptionsError> {
        Options::from_lookup(|name| std::env::var_os(name))
    }

    /// As [`Options::from_env`], from any source of variables.
    pub fn from_lookup(get: impl Fn(&str) -> Option<OsString>) -> Result<Options, OptionsError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let mut options = match get("TORTIE_SQLITE") {
            Some(path) if path != DEFAULT_PATH => Options::at(PathBuf::from(path)),
            Some(_) | None => Options::default(),
        };
        if let Some(value) = get("TORTIE_SQLITE_SYNC") {
            options.sync = match value.to_str() {
                Some("full") => Sync::Full,
                Some("normal") => Sync::Normal,
                Some(_) | None => {
                    let value = value.to_string_lossy().into_owned();
                    let nearest = if value.to_lowercase().starts_with('n') { "normal" } else { "full" };
                    let expected = format!("full or normal; did you mean {nearest}?");
                    return Err(OptionsError { name: "TORTIE_SQLITE_SYNC", value, expected });
                }
            };
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Options, OptionsError> {
        Options::from_lookup(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn unset_and_empty_are_the_default() {
        assert_eq!(from(&[]), Ok(Options::default()));
        assert_eq!(from(&[("TORTIE_SQLITE", ""), ("TORTIE_SQLITE_SYNC", "")]), Ok(Options::default()));
        assert_eq!(from(&[("TORTIE_SQLITE", DEFAULT_PATH)]), Ok(Options::default()));
    }

    #[test]
    fn both_can_be_set() {
        let options = from(&[("TORTIE_SQLITE", "/x/y.db"), ("TORTIE_SQLITE_SYNC", "normal")]).expect("both are right");
        assert_eq!(options, Options { sync: Sync::Normal, ..Options::at("/x/y.db") });
        assert!(!options.create_directory);
    }

    #[test]
    fn a_wrong_setting_names_itself_and_the_nearest_choice() {
        let error = from(&[("TORTIE_SQLITE_SYNC", "Norml")]).expect_err("a misspelt word");
        assert_eq!(
            error.to_string(),
            r#"environment variable TORTIE_SQLITE_SYNC="Norml": expected full or normal; did you mean normal?"#
        );
    }
}
