//! Passwords of sessions: from a directory, one file `SECRET/KEY` for each, or from Secrets of Kubernetes.
//!
//! Invariant: a password that was read once stays until another is read, so that a file or Secret that is just being
//! replaced opens no session without one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;
use tortie_bgp::Password;
use tortie_desired::SecretKey;
use tortie_store_kubernetes::{Cluster, Followed, Secret};

use super::Command;
use super::options::MAX_PASSWORD;

/// Where passwords are.
#[derive(Clone, Default)]
pub enum SecretSource {
    /// Nowhere.
    #[default]
    None,
    /// In a directory.
    Directory(PathBuf),
    /// In Secrets of a namespace.
    Kubernetes(Arc<Cluster>, String),
}

/// What is known of each Secret that is followed; before its first answer nothing.
type Told = Arc<Mutex<BTreeMap<Arc<str>, Result<Option<Secret>, String>>>>;

/// Why there is no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// In words.
    pub(super) problem: String,
    /// The place of secrets has not answered yet.
    pub(super) awaited: bool,
}

/// The source, and what was read.
pub(super) struct Secrets {
    source: SecretSource,
    known: BTreeMap<SecretKey, Password>,
    told: Told,
    followed: BTreeMap<Arc<str>, Followed>,
    own: Sender<Command>,
    waker: Arc<Waker>,
}

impl Secrets {
    /// News of Secrets are told by `own`.
    pub(super) fn new(source: SecretSource, own: Sender<Command>, waker: Arc<Waker>) -> Secrets {
        let (known, followed) = (BTreeMap::new(), BTreeMap::new());
        Secrets { source, known, told: Told::default(), followed, own, waker }
    }

    /// Whether nothing tells of changes, so that one has to look.
    pub(super) fn must_be_looked_at(&self) -> bool {
        match self.source {
            SecretSource::Directory(_) => true,
            SecretSource::None | SecretSource::Kubernetes(..) => false,
        }
    }

    /// The password of a key.
    pub(super) fn read(&mut self, key: &SecretKey) -> Result<Password, Missing> {
        let never = |problem| Missing { problem, awaited: false };
        let read = match &self.source {
            SecretSource::None => {
                Err(never("no place of secrets: set TORTIE_BGP_SECRETS, or run in Kubernetes".to_owned()))
            }
            SecretSource::Directory(directory) => read_file(directory, key).map_err(never),
            SecretSource::Kubernetes(cluster, namespace) => {
                if !self.followed.contains_key(&key.name) {
                    let followed = follow(cluster, namespace, &key.name, &self.told, &self.own, &self.waker);
                    self.followed.insert(key.name.clone(), followed);
                }
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                let told = told.get(&key.name);
                let awaited = told.is_none_or(Result::is_err);
                of_secret(namespace, key, told).map_err(|problem| Missing { problem, awaited })
            }
        };
        match read {
            Ok(password) => {
                self.known.insert(key.clone(), password.clone());
                Ok(password)
            }
            Err(error) => self.known.get(key).cloned().ok_or(error),
        }
    }

    /// Follows none but these Secrets any more.
    pub(super) fn keep(&mut self, used: impl Fn(&str) -> bool) {
        self.followed.retain(|name, _| used(name));
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| used(name));
        self.known.retain(|key, _| used(&key.name));
    }
}

fn follow(
    cluster: &Cluster,
    namespace: &str,
    name: &Arc<str>,
    told: &Told,
    own: &Sender<Command>,
    waker: &Arc<Waker>,
) -> Followed {
    let (told, own, waker, named) = (told.clone(), own.clone(), waker.clone(), name.clone());
    cluster.follow_secret(namespace, name, move |news| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&named) != Some(&news) {
            told.insert(named.clone(), news);
            // The worker may have ended by now.
            let _ = own.send(Command::Secrets);
            let _ = waker.wake();
        }
    })
}

fn of_secret(
    namespace: &str,
    SecretKey { name, key }: &SecretKey,
    told: Option<&Result<Option<Secret>, String>>,
) -> Result<Password, String> {
    match told {
        None => Err(format!("Secret {namespace}/{name} is not known yet")),
        Some(Err(problem)) => Err(problem.clone()),
        Some(Ok(None)) => Err(format!("there is no Secret {namespace}/{name}")),
        Some(Ok(Some(secret))) => {
            let bytes = secret.get(key).ok_or_else(|| format!("Secret {namespace}/{name} has no key {key:?}"))?;
            let text =
                std::str::from_utf8(bytes).map_err(|_| format!("Secret {namespace}/{name}: {key} is no text"))?;
            password(&format!("Secret {namespace}/{name}: {key}"), text)
        }
    }
}

fn read_file(directory: &std::path::Path, SecretKey { name, key }: &SecretKey) -> Result<Password, String> {
    for part in [name, key] {
        if part.is_empty() || part.starts_with('.') || part.contains('/') {
            return Err(format!("{part:?} is no name of a secret or key"));
        }
    }
    let path = directory.join(&**name).join(&**key);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    password(&path.display().to_string(), text.trim_end_matches(['\n', '\r']))
}

fn password(place: &str, text: &str) -> Result<Password, String> {
    if text.is_empty() || text.len() > MAX_PASSWORD {
        return Err(format!("{place}: {} bytes, expected 1 to {MAX_PASSWORD}", text.len()));
    }
    Ok(Password(Arc::from(text)))
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
        let poll = mio::Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).expect("a waker"));
        let source = SecretSource::Directory(directory.clone());
        let mut secrets = Secrets::new(source, std::sync::mpsc::channel().0, waker);
        let key = |name: &str, key: &str| SecretKey { name: name.into(), key: key.into() };
        assert_eq!(secrets.read(&key("bgp", "one")), Ok(Password("word".into())));
        std::fs::remove_file(&file).expect("there");
        assert_eq!(secrets.read(&key("bgp", "one")), Ok(Password("word".into())), "kept");
        for (name, at) in [("..", "x"), ("bgp", "../../etc/passwd"), ("bgp", "two"), ("", "x")] {
            assert!(secrets.read(&key(name, at)).is_err(), "{name}/{at}");
        }
        std::fs::write(directory.join("bgp/two"), "x".repeat(81)).expect("written");
        assert!(secrets.read(&key("bgp", "two")).expect_err("too long").problem.contains("81 bytes"));
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_named() {
        let key = SecretKey { name: "bgp".into(), key: "mesh".into() };
        let problem = |told| of_secret("kube-system", &key, told).expect_err("no password");
        assert!(problem(None).contains("not known yet"));
        let none = Ok(None);
        assert!(problem(Some(&none)).contains("no Secret kube-system/bgp"));
        let (empty, refused) = (Ok(Some(Secret::default())), Err("may not".to_owned()));
        assert!(problem(Some(&empty)).contains("no key \"mesh\""));
        assert_eq!(problem(Some(&refused)), "may not");
    }
}
