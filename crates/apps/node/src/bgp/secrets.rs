//! Passwords of sessions, from a directory: one file `SECRET/KEY` for each.
//!
//! Invariant: a password that was read once stays until another is read, so that a file that is just being replaced
//! opens no session without one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tortie_bgp::Password;
use tortie_desired::SecretKey;

use super::options::MAX_PASSWORD;

/// The directory, and what was read.
#[derive(Default)]
pub(super) struct Secrets {
    directory: Option<PathBuf>,
    known: BTreeMap<SecretKey, Password>,
}

impl Secrets {
    pub(super) fn new(directory: Option<PathBuf>) -> Secrets {
        Secrets { directory, known: BTreeMap::new() }
    }

    /// The password of a key; the error says why there is none.
    pub(super) fn read(&mut self, key: &SecretKey) -> Result<Password, String> {
        match self.read_file(key) {
            Ok(password) => {
                self.known.insert(key.clone(), password.clone());
                Ok(password)
            }
            Err(error) => self.known.get(key).cloned().ok_or(error),
        }
    }

    fn read_file(&self, SecretKey { name, key }: &SecretKey) -> Result<Password, String> {
        let directory = self.directory.as_ref().ok_or("no directory of secrets: set TORTIE_BGP_SECRETS")?;
        for part in [name, key] {
            if part.is_empty() || part.starts_with('.') || part.contains('/') {
                return Err(format!("{part:?} is no name of a secret or key"));
            }
        }
        let path = directory.join(&**name).join(&**key);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() || text.len() > MAX_PASSWORD {
            return Err(format!("{}: {} bytes, expected 1 to {MAX_PASSWORD}", path.display(), text.len()));
        }
        Ok(Password(Arc::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_kept_and_confined() {
        let directory = std::env::temp_dir().join(format!("tortie-secrets-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("bgp")).expect("a directory");
        let file = directory.join("bgp/one");
        std::fs::write(&file, "word\n").expect("written");
        let mut secrets = Secrets::new(Some(directory.clone()));
        let key = |name: &str, key: &str| SecretKey { name: name.into(), key: key.into() };
        assert_eq!(secrets.read(&key("bgp", "one")), Ok(Password("word".into())));
        std::fs::remove_file(&file).expect("there");
        assert_eq!(secrets.read(&key("bgp", "one")), Ok(Password("word".into())), "kept");
        for (name, at) in [("..", "x"), ("bgp", "../../etc/passwd"), ("bgp", "two"), ("", "x")] {
            assert!(secrets.read(&key(name, at)).is_err(), "{name}/{at}");
        }
        std::fs::write(directory.join("bgp/two"), "x".repeat(81)).expect("written");
        assert!(secrets.read(&key("bgp", "two")).expect_err("too long").contains("81 bytes"));
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
