//! Where settings come from: the environment, then upstream's Felix variables, then the configuration file.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value;
use tortie_store_etcd::{Options as EtcdOptions, Setting};
use tortie_store_kubernetes::Options as KubernetesOptions;
use tortie_store_sqlite::{Options as SqliteOptions, OptionsError};

use crate::{SettingError, file};

/// What `FELIX_DATASTORETYPE`, `FELIX_ETCDENDPOINTS` and their like mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Felix {
    /// Nothing, as for calicoctl.
    Ignored,
    /// What the other variables leave open, as for a node, whose other parts don't read them.
    Last,
    /// They go first, as for Felix alone.
    First,
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The environment.
    pub env: &'a BTreeMap<String, OsString>,
    /// A configuration file, and whether it may be absent.
    pub file: Option<(&'a str, bool)>,
    /// Whether Felix's own variables count.
    pub felix: Felix,
}

impl<'a> Sources<'a> {
    pub(crate) fn read(self) -> Result<Read<'a>, SettingError> {
        let file = match self.file {
            Some((path, may_be_absent)) => file::read(path, may_be_absent)?.map(|value| (path, value)),
            None => None,
        };
        Ok(Read { env: self.env, file, felix: self.felix })
    }
}

/// Sources that were read.
pub(crate) struct Read<'a> {
    env: &'a BTreeMap<String, OsString>,
    file: Option<(&'a str, Value)>,
    felix: Felix,
}

/// The names of one setting.
struct Names {
    variable: &'static str,
    felix: &'static str,
    field: &'static str,
}

impl Read<'_> {
    fn variable(&self, name: &str) -> Option<Setting> {
        let value = self.env.get(name)?.to_string_lossy().trim().to_owned();
        (!value.is_empty()).then(|| Setting::new(value, format!("environment variable {name}")))
    }

    /// Upstream's Felix reads its variables in any case.
    fn felix(&self, parameter: &str) -> Option<Setting> {
        let wanted = format!("FELIX_{parameter}");
        let name = self.env.keys().find(|name| name.eq_ignore_ascii_case(&wanted) && !parameter.is_empty())?;
        self.variable(name)
    }

    fn field(&self, name: &str) -> Option<Setting> {
        let (path, config) = self.file.as_ref()?;
        let value = config["spec"][name].as_str().filter(|value| !value.is_empty())?;
        Some(Setting::new(value, format!("{path}: spec.{name}")))
    }

    fn setting(&self, names: &Names) -> Option<Setting> {
        let Names { variable, felix, field } = names;
        let general = || self.variable(variable).or_else(|| self.variable(&format!("CALICO_{variable}")));
        let named = match self.felix {
            Felix::Ignored => general(),
            Felix::Last => general().or_else(|| self.felix(felix)),
            Felix::First => self.felix(felix).or_else(general),
        };
        named.or_else(|| self.field(field))
    }

    pub(crate) fn datastore_type(&self) -> Option<(String, String)> {
        let names = Names { variable: "DATASTORE_TYPE", felix: "DatastoreType", field: "datastoreType" };
        self.setting(&names).map(|Setting { value, origin }| (value, origin))
    }

    pub(crate) fn endpoints(&self) -> Option<Setting> {
        let names = Names { variable: "ETCD_ENDPOINTS", felix: "EtcdEndpoints", field: "etcdEndpoints" };
        self.setting(&names).or_else(|| self.authority())
    }

    /// Felix's older way of naming one member.
    fn authority(&self) -> Option<Setting> {
        if self.felix == Felix::Ignored {
            return None;
        }
        let Setting { value, origin } = self.felix("EtcdAddr")?;
        let scheme = self.felix("EtcdScheme").map_or("http".to_owned(), |scheme| scheme.value);
        Some(Setting::new(format!("{scheme}://{value}"), origin))
    }

    pub(crate) fn sqlite(&self) -> Result<SqliteOptions, OptionsError> {
        SqliteOptions::from_lookup(|name| self.env.get(name).cloned())
    }

    pub(crate) fn etcd(&self) -> EtcdOptions {
        let one = |variable, felix, field| self.setting(&Names { variable, felix, field });
        EtcdOptions {
            endpoints: self.endpoints(),
            discovery_srv: one("ETCD_DISCOVERY_SRV", "", "etcdDiscoverySrv"),
            username: one("ETCD_USERNAME", "", "etcdUsername"),
            password: one("ETCD_PASSWORD", "", "etcdPassword"),
            ca_file: one("ETCD_CA_CERT_FILE", "EtcdCaFile", "etcdCACertFile"),
            cert_file: one("ETCD_CERT_FILE", "EtcdCertFile", "etcdCertFile"),
            key_file: one("ETCD_KEY_FILE", "EtcdKeyFile", "etcdKeyFile"),
            // There are no variables for these, so that no key lies about in an environment.
            ca: self.field("etcdCACert"),
            cert: self.field("etcdCert"),
            key: self.field("etcdKey"),
            ..EtcdOptions::default()
        }
    }
}

/// The variables of the Kubernetes API, and the field of each.
const KUBERNETES: [(&str, &str); 12] = [
    ("KUBECONFIG", "kubeconfig"),
    ("K8S_API_ENDPOINT", "k8sAPIEndpoint"),
    ("K8S_KEY_FILE", "k8sKeyFile"),
    ("K8S_CERT_FILE", "k8sCertFile"),
    ("K8S_CA_FILE", "k8sCAFile"),
    ("K8S_API_TOKEN", "k8sAPIToken"),
    ("K8S_INSECURE_SKIP_TLS_VERIFY", "k8sInsecureSkipTLSVerify"),
    ("K8S_CURRENT_CONTEXT", "k8sCurrentContext"),
    ("K8S_CLIENT_QPS", "k8sClientQPS"),
    ("K8S_CLIENT_BURST", "k8sClientBurst"),
    ("USE_POD_CIDR", "usePodCIDR"),
    ("CALICO_API_GROUP", "calicoAPIGroup"),
];

impl Read<'_> {
    pub(crate) fn kubernetes(&self) -> Result<KubernetesOptions, SettingError> {
        let value = |name: &str| {
            if name == "FELIX_INTERFACEPREFIX" {
                return self.felix("InterfacePrefix").map(|setting| setting.value);
            }
            let (variable, field) = KUBERNETES.iter().find(|(variable, _)| *variable == name)?;
            let variable = self.variable(variable).or_else(|| self.variable(&format!("CALICO_{variable}")));
            variable.map(|setting| setting.value).or_else(|| self.scalar(field))
        };
        let mut options = KubernetesOptions::from_variables(value).map_err(SettingError::Kubernetes)?;
        options.kubeconfig_inline = self.scalar("kubeconfigInline").unwrap_or_default();
        Ok(options)
    }

    /// A field as text, also where it is a number or a truth value.
    fn scalar(&self, name: &str) -> Option<String> {
        let (_, config) = self.file.as_ref()?;
        match &config["spec"][name] {
            Value::String(text) => Some(text.clone()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Choice, choose};

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, OsString> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
    }

    fn of(pairs: &[(&str, &str)], felix: Felix) -> Result<Choice, SettingError> {
        choose(&Sources { env: &env(pairs), file: None, felix })
    }

    fn etcd(pairs: &[(&str, &str)], felix: Felix) -> EtcdOptions {
        match of(pairs, felix) {
            Ok(Choice::Etcd(options)) => options,
            other => panic!("{pairs:?}: {other:?}"),
        }
    }

    fn with_file(spec: &str, pairs: &[(&str, &str)]) -> Result<Choice, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("calicoctl.cfg");
        let head = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n";
        std::fs::write(&path, format!("{head}{spec}")).expect("written");
        let path = path.to_str().expect("UTF-8");
        choose(&Sources { env: &env(pairs), file: Some((path, false)), felix: Felix::Ignored })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_any_setting_it_is_the_file_and_members_mean_etcd() {
        assert_eq!(of(&[], Felix::Last), Ok(Choice::Sqlite(SqliteOptions::default())));
        assert!(matches!(of(&[("ETCD_ENDPOINTS", "http://a:1")], Felix::Ignored), Ok(Choice::Etcd(_))));
        let explicit = [("ETCD_ENDPOINTS", "http://a:1"), ("DATASTORE_TYPE", "sqlite")];
        assert!(matches!(of(&explicit, Felix::Ignored), Ok(Choice::Sqlite(_))));
    }

    #[test]
    fn the_kubernetes_api_is_found_by_variables_and_fields() {
        let file = "  datastoreType: kubernetes\n  kubeconfig: /a\n  k8sClientQPS: 12.5\n  usePodCIDR: true\n";
        let Ok(Choice::Kubernetes(options)) = with_file(file, &[("CALICO_K8S_API_ENDPOINT", "https://x")]) else {
            panic!("it is good");
        };
        assert_eq!((&*options.kubeconfig, &*options.endpoint), ("/a", "https://x"));
        assert_eq!((options.qps, options.use_pod_cidr), (Some(12.5), true));
    }

    #[test]
    fn every_variable_is_read_with_its_origin() {
        let names = [
            "ETCD_ENDPOINTS",
            "ETCD_DISCOVERY_SRV",
            "ETCD_USERNAME",
            "ETCD_PASSWORD",
            "ETCD_CA_CERT_FILE",
            "ETCD_CERT_FILE",
            "ETCD_KEY_FILE",
        ];
        for prefix in ["", "CALICO_"] {
            let named: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
            let mut pairs: Vec<(&str, &str)> = named.iter().map(|name| (name.as_str(), name.as_str())).collect();
            pairs.push(("DATASTORE_TYPE", "etcdv3"));
            let options = etcd(&pairs, Felix::Ignored);
            let EtcdOptions { endpoints, discovery_srv, username, password, ca_file, cert_file, key_file, .. } =
                options;
            let found = [endpoints, discovery_srv, username, password, ca_file, cert_file, key_file];
            for (name, setting) in named.iter().zip(found) {
                assert_eq!(setting, Some(Setting::new(name, format!("environment variable {name}"))));
            }
        }
    }

    #[test]
    fn felixs_own_variables_go_first_for_felix_and_last_for_a_node() {
        let both = [("ETCD_ENDPOINTS", "http://a:1"), ("FELIX_ETCDENDPOINTS", "http://b:1")];
        let value = |pairs: &[(&str, &str)], felix| etcd(pairs, felix).endpoints.map(|setting| setting.value);
        assert_eq!(value(&both, Felix::First).as_deref(), Some("http://b:1"));
        assert_eq!(value(&both, Felix::Last).as_deref(), Some("http://a:1"));
        assert_eq!(value(&both, Felix::Ignored).as_deref(), Some("http://a:1"));
        assert_eq!(value(&both[1..], Felix::Last).as_deref(), Some("http://b:1"));
        assert!(matches!(of(&both[1..], Felix::Ignored), Ok(Choice::Sqlite(_))));
        let old = [("FELIX_EtcdAddr", "c:2379"), ("FELIX_ETCDSCHEME", "https"), ("FELIX_ETCDCAFILE", "/ca")];
        assert_eq!(value(&old, Felix::First).as_deref(), Some("https://c:2379"));
        assert_eq!(etcd(&old, Felix::First).ca_file.map(|setting| setting.value).as_deref(), Some("/ca"));
    }

    #[test]
    fn a_file_gives_what_the_environment_does_not() {
        let spec = "  datastoreType: etcdv3\n  etcdEndpoints: http://a:1\n  etcdCACert: PEM\n";
        let Ok(Choice::Etcd(options)) = with_file(spec, &[("ETCD_USERNAME", "u")]) else { panic!("etcd") };
        assert!(options.endpoints.is_some_and(|setting| setting.origin.ends_with("calicoctl.cfg: spec.etcdEndpoints")));
        assert_eq!(options.ca.map(|setting| setting.value).as_deref(), Some("PEM"));
        assert_eq!(options.username.map(|setting| setting.value).as_deref(), Some("u"));
        assert!(matches!(with_file(spec, &[("DATASTORE_TYPE", "sqlite")]), Ok(Choice::Sqlite(_))));
    }

    #[test]
    fn wrong_settings_are_named_with_their_origin_and_without_secrets() {
        for (spec, pairs, parts) in [
            ("  datastoreTyp: sqlite\n", vec![], ["spec.datastoreTyp", "\"datastoreType\""]),
            ("  datastoreType: sqlit\n", vec![], ["calicoctl.cfg: spec.datastoreType", "\"sqlite\""]),
            ("  datastoreType: 3\n", vec![], ["spec.datastoreType: 3", "etcdv3"]),
            ("  etcdPassword: 123456\n", vec![], ["spec.etcdPassword", "quotes"]),
            ("", vec![("DATASTORE_TYPE", "etcd3")], ["variable DATASTORE_TYPE: \"etcd3\"", "\"etcdv3\""]),
            ("  k8sClientQPS: fast\n", vec![("DATASTORE_TYPE", "kubernetes")], ["K8S_CLIENT_QPS", "fast"]),
        ] {
            let error = with_file(spec, &pairs).expect_err(parts[1]);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("123456"), "{error}");
        }
    }
}
