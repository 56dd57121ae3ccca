//! What can be set of the store, each setting with where it came from.

use std::fmt;
use std::time::Duration;

use crate::endpoint::Endpoint;

/// A value and where it came from, such as `environment variable ETCD_ENDPOINTS`.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value; may be a secret.
    pub value: String,
    /// Where it came from, as errors name it.
    pub origin: String,
}

impl Setting {
    /// A value with its origin.
    pub fn new(value: impl Into<String>, origin: impl Into<String>) -> Setting {
        Setting { value: value.into(), origin: origin.into() }
    }
}

impl fmt::Debug for Setting {
    /// The origin alone: the value may be a password or a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

/// What can be set of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `ETCD_ENDPOINTS`: members, with commas between.
    pub endpoints: Option<Setting>,
    /// `ETCD_DISCOVERY_SRV`: the domain whose SRV records name the members.
    pub discovery_srv: Option<Setting>,
    /// `ETCD_USERNAME`.
    pub username: Option<Setting>,
    /// `ETCD_PASSWORD`.
    pub password: Option<Setting>,
    /// `ETCD_CA_CERT_FILE`: who may have signed the members' certificates; without one, whom this host trusts.
    pub ca_file: Option<Setting>,
    /// `ETCD_CERT_FILE`: this client's certificate.
    pub cert_file: Option<Setting>,
    /// `ETCD_KEY_FILE`: its key.
    pub key_file: Option<Setting>,
    /// The same as PEM text instead of a file.
    pub ca: Option<Setting>,
    /// The same as PEM text instead of a file.
    pub cert: Option<Setting>,
    /// The same as PEM text instead of a file.
    pub key: Option<Setting>,
    /// How long a call waits before it fails as unavailable.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            endpoints: None,
            discovery_srv: None,
            username: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            ca: None,
            cert: None,
            key: None,
            patience: Duration::from_secs(5),
        }
    }
}

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct OptionsError {
    /// Where the setting came from.
    pub origin: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

/// How the members are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    /// They are named.
    Named(Vec<Endpoint>),
    /// By SRV records of this domain.
    Srv(String),
}

impl Options {
    /// Settings for named members, as tests and tools have them.
    pub fn at(endpoints: impl Into<String>) -> Options {
        Options { endpoints: Some(Setting::new(endpoints, "the endpoints")), ..Options::default() }
    }

    /// Checks what belongs together; how the members are found, with that setting's origin.
    pub(crate) fn members(&self) -> Result<(Members, String), OptionsError> {
        self.check_pairs()?;
        let wrong = |setting: &Setting, problem: String| OptionsError { origin: setting.origin.clone(), problem };
        match (&self.endpoints, &self.discovery_srv) {
            (Some(endpoints), Some(srv)) => {
                Err(wrong(srv, format!("{} names the members too: expected one of the two", endpoints.origin)))
            }
            (Some(setting), None) => {
                let list = Endpoint::parse_list(&setting.value, self.has_tls()).map_err(|e| wrong(setting, e))?;
                if list.is_empty() {
                    return Err(wrong(setting, "it names no member: expected http://HOST:PORT".to_owned()));
                }
                if self.has_tls() && !list.iter().any(|endpoint| endpoint.tls) {
                    tracing::warn!(origin = setting.origin, "certificates for etcd are set, but no endpoint is https");
                }
                Ok((Members::Named(list), setting.origin.clone()))
            }
            (None, Some(setting)) => Ok((Members::Srv(setting.value.clone()), setting.origin.clone())),
            (None, None) => Err(OptionsError {
                origin: "etcd".to_owned(),
                problem: "no member is known: set ETCD_ENDPOINTS, such as http://127.0.0.1:2379, or ETCD_DISCOVERY_SRV"
                    .to_owned(),
            }),
        }
    }

    /// Whether there is anything for TLS.
    fn has_tls(&self) -> bool {
        [&self.ca_file, &self.cert_file, &self.key_file, &self.ca, &self.cert, &self.key].iter().any(|s| s.is_some())
    }

    fn check_pairs(&self) -> Result<(), OptionsError> {
        let together = |one: &Option<Setting>, other: &Option<Setting>, missing: &str| match (one, other) {
            (Some(set), None) => Err(OptionsError {
                origin: set.origin.clone(),
                problem: format!("it is of no use alone: {missing} is not set"),
            }),
            _ => Ok(()),
        };
        together(&self.username, &self.password, "the password (ETCD_PASSWORD)")?;
        together(&self.password, &self.username, "the user name (ETCD_USERNAME)")?;
        together(&self.cert_file, &self.key_file, "the key (ETCD_KEY_FILE)")?;
        together(&self.key_file, &self.cert_file, "the certificate (ETCD_CERT_FILE)")?;
        together(&self.cert, &self.key, "the key (etcdKey)")?;
        together(&self.key, &self.cert, "the certificate (etcdCert)")?;
        let files = [&self.ca_file, &self.cert_file, &self.key_file].into_iter().flatten().next();
        let texts = [&self.ca, &self.cert, &self.key].into_iter().flatten().next();
        match (files, texts) {
            (Some(file), Some(text)) => Err(OptionsError {
                origin: text.origin.clone(),
                problem: format!(
                    "certificates are given as text here and as files by {}: expected one way",
                    file.origin
                ),
            }),
            (Some(_) | None, None) | (None, Some(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(origin: &str) -> Option<Setting> {
        Some(Setting::new("secret-value", origin))
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let base = || Options::at("http://a:1");
        for (options, parts) in [
            (Options::default(), ["etcd", "ETCD_ENDPOINTS"]),
            (Options::at(","), ["the endpoints", "no member"]),
            (Options::at("htp://a:1"), ["the endpoints", "htp"]),
            (Options { discovery_srv: set("S"), ..base() }, ["S:", "the endpoints"]),
            (Options { username: set("U"), ..base() }, ["U:", "ETCD_PASSWORD"]),
            (Options { password: set("P"), ..base() }, ["P:", "ETCD_USERNAME"]),
            (Options { cert_file: set("C"), ..base() }, ["C:", "ETCD_KEY_FILE"]),
            (Options { key: set("K"), ..base() }, ["K:", "etcdCert"]),
            (Options { ca: set("I"), ca_file: set("F"), ..base() }, ["I:", "F"]),
        ] {
            let error = options.members().expect_err(parts[0]).to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let options = Options { password: set("P"), username: set("U"), key: set("K"), ..Options::at("http://a:1") };
        let shown = format!("{options:?}");
        assert!(shown.contains('P') && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn certificates_make_an_endpoint_without_a_scheme_secure() {
        let options = Options { ca_file: set("F"), ..Options::at("a:1") };
        let (Members::Named(list), _) = options.members().expect("good") else { panic!("named") };
        assert!(list[0].tls);
    }
}
