//! Which datastore to use, and opening it: the one place that reads upstream's variables and configuration files.
//!
//! Invariant: a setting that is wrong is refused with its name, its origin and the nearest good choice; an error never
//! holds a password or a key.

mod file;
pub mod ipam;
mod sources;
mod words;

use std::sync::Arc;

use tortie_store::{Store, StoreError};
use tortie_store_etcd::{EtcdStore, Options as EtcdOptions};
use tortie_store_kubernetes::{KubernetesStore, Options as KubernetesOptions};
use tortie_store_sqlite::{Options as SqliteOptions, SqliteStore};

pub use sources::{Felix, Sources};
pub use words::{hint, nearest};

/// The words of `DATASTORE_TYPE`.
pub const TYPES: [&str; 3] = ["sqlite", "etcdv3", "kubernetes"];

/// The variables that say where the datastore is; upstream takes each with `CALICO_` before it too.
pub const VARIABLES: [&str; 10] = [
    "DATASTORE_TYPE",
    "ETCD_ENDPOINTS",
    "ETCD_DISCOVERY_SRV",
    "ETCD_USERNAME",
    "ETCD_PASSWORD",
    "ETCD_KEY_FILE",
    "ETCD_CERT_FILE",
    "ETCD_CA_CERT_FILE",
    "TORTIE_SQLITE",
    "TORTIE_SQLITE_SYNC",
];

/// The datastore to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A file.
    Sqlite(SqliteOptions),
    /// An etcd cluster.
    Etcd(EtcdOptions),
    /// The API of a Kubernetes cluster.
    Kubernetes(Box<KubernetesOptions>),
}

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The type of the datastore.
    #[error("{origin}: {value:?}: {problem}")]
    Type {
        /// Where it came from, such as `environment variable DATASTORE_TYPE`.
        origin: String,
        /// The word.
        value: String,
        /// What was expected.
        problem: String,
    },
    /// A configuration file.
    #[error("{0}")]
    File(String),
    /// The settings of the embedded store.
    #[error(transparent)]
    Sqlite(#[from] tortie_store_sqlite::OptionsError),
    /// A setting of the Kubernetes API, with its name and value.
    #[error("{0}")]
    Kubernetes(String),
}

impl SettingError {
    /// The setting's name or the file, its value, and the problem, for programs that list many settings.
    pub fn parts(self) -> (String, String, String) {
        match self {
            SettingError::Type { origin, value, problem } => {
                let name = origin.strip_prefix("environment variable ").unwrap_or(&origin).to_owned();
                (name, value, problem)
            }
            SettingError::File(problem) => ("configuration file".to_owned(), String::new(), problem),
            SettingError::Kubernetes(problem) => ("Kubernetes API".to_owned(), String::new(), problem),
            SettingError::Sqlite(tortie_store_sqlite::OptionsError { name, value, expected }) => {
                (name.to_owned(), value, format!("expected {expected}"))
            }
        }
    }
}

/// Which datastore the sources name.
///
/// # Errors
/// A source that can't be read, or a type that there is not.
pub fn choose(sources: &Sources<'_>) -> Result<Choice, SettingError> {
    let sources = sources.read()?;
    let (word, origin) = match sources.datastore_type() {
        Some(stated) => stated,
        None => match sources.endpoints() {
            // As upstream: who names members of etcd means etcd.
            Some(setting) => ("etcdv3".to_owned(), setting.origin),
            None => return Ok(Choice::Sqlite(sources.sqlite()?)),
        },
    };
    let wrong = |problem: String| SettingError::Type { origin: origin.clone(), value: word.clone(), problem };
    match TYPES.iter().find(|known| known.eq_ignore_ascii_case(&word)) {
        Some(&"sqlite") => Ok(Choice::Sqlite(sources.sqlite()?)),
        Some(&"etcdv3") => Ok(Choice::Etcd(sources.etcd())),
        Some(_) => Ok(Choice::Kubernetes(Box::new(sources.kubernetes()?))),
        None => Err(wrong(format!("expected one of {}{}", TYPES.join(", "), hint(&word, TYPES)))),
    }
}

impl Choice {
    /// Where the datastore is, for messages; no secret.
    pub fn place(&self) -> String {
        match self {
            Choice::Sqlite(options) => options.path.display().to_string(),
            Choice::Etcd(options) => {
                let named = options.endpoints.as_ref().or(options.discovery_srv.as_ref());
                named.map_or_else(|| "etcd".to_owned(), |setting| format!("{} of {}", setting.value, setting.origin))
            }
            Choice::Kubernetes(options) if !options.endpoint.is_empty() => options.endpoint.clone(),
            Choice::Kubernetes(options) if !options.kubeconfig.is_empty() => {
                format!("the Kubernetes API of {}", options.kubeconfig)
            }
            Choice::Kubernetes(_) => "the Kubernetes API".to_owned(),
        }
    }

    /// Opens the datastore. A remote one is not talked to before the first call.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if a setting, or what it names, can't be used.
    pub fn open(self) -> Result<Arc<dyn Store>, StoreError> {
        Ok(match self {
            Choice::Sqlite(options) => Arc::new(SqliteStore::open(options)?),
            Choice::Etcd(options) => Arc::new(EtcdStore::open(options)?),
            Choice::Kubernetes(options) => Arc::new(
                KubernetesStore::open(*options)
                    .map_err(|error| StoreError::Unavailable(format!("no thread: {error}")))?,
            ),
        })
    }
}
