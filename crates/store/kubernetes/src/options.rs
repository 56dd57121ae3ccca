//! How to reach the API server: upstream's settings, and what they mean together.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Group, Recent};

/// Where the API server is, as whom to talk to it, and how fast. The names in brackets are upstream's settings.
///
/// The text of a kubeconfig goes before its file, and single settings override what a file says. With neither a
/// kubeconfig nor an endpoint, the pod's own service account is used.
#[derive(Clone, Default, PartialEq)]
pub struct Options {
    /// Kubeconfig files, separated by `:` (`KUBECONFIG`).
    pub kubeconfig: String,
    /// The text of a kubeconfig (`kubeconfigInline`).
    pub kubeconfig_inline: String,
    /// The context to use instead of the current one (`K8S_CURRENT_CONTEXT`).
    pub context: String,
    /// URL of the API server (`K8S_API_ENDPOINT`).
    pub endpoint: String,
    /// File of the client's certificate (`K8S_CERT_FILE`).
    pub cert_file: String,
    /// File of the client's key (`K8S_KEY_FILE`).
    pub key_file: String,
    /// File of the CA that signed the server's certificate (`K8S_CA_FILE`).
    pub ca_file: String,
    /// A bearer token (`K8S_API_TOKEN`).
    pub token: String,
    /// Takes any certificate of the server (`K8S_INSECURE_SKIP_TLS_VERIFY`).
    pub insecure: bool,
    /// Requests per second in the long run (`K8S_CLIENT_QPS`); none means 50, a negative number no limit.
    pub qps: Option<f64>,
    /// Requests at once (`K8S_CLIENT_BURST`); none means 100.
    pub burst: Option<u32>,
    /// Tunnel addresses are the first of each node's own range (`USE_POD_CIDR`).
    pub use_pod_cidr: bool,
    /// What the host's side of a pod's interface is called at the beginning (`FELIX_INTERFACEPREFIX`); empty means
    /// `cali`.
    pub interface_prefix: String,
    /// The group of the custom resources (`CALICO_API_GROUP`); none: found out from the server.
    pub group: Option<Group>,
    /// How long one call may take, with all its repetitions; none means 15 seconds.
    pub deadline: Option<Duration>,
    /// How long a watch tries to go on by itself before it says that the store is away; none means 10 seconds.
    pub patience: Option<Duration>,
    /// Where watches keep what they tell of a node's pods, for who asks for one of them; none: nothing is kept.
    pub recent: Option<Recent>,
}

/// The rate, the one number with a point, is never NaN where it was read.
impl Eq for Options {}

impl fmt::Debug for Options {
    /// Without secrets: a token, or a kubeconfig's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { context, endpoint, group, qps, burst, insecure, .. } = self;
        f.debug_struct("Options")
            .field("origin", &self.origin())
            .field("endpoint", endpoint)
            .field("context", context)
            .field("group", group)
            .field("qps", qps)
            .field("burst", burst)
            .field("insecure", insecure)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Reads upstream's environment variables; `value` gives the value of one. A `CALICO_` before a name is allowed.
    ///
    /// # Errors
    /// For a value that is no number or truth value, with the variable's name.
    pub fn from_variables(value: impl Fn(&str) -> Option<String>) -> Result<Options, String> {
        let text = |name: &str| {
            let filled = |name: &str| value(name).filter(|text| !text.is_empty());
            filled(name).or_else(|| filled(&format!("CALICO_{name}"))).unwrap_or_default()
        };
        let truth = |name: &str| match text(name).to_ascii_lowercase().as_str() {
            "" | "0" | "f" | "false" => Ok(false),
            "1" | "t" | "true" => Ok(true),
            other => Err(format!("{name}={other:?}: expected true or false")),
        };
        // The first of a list: the others are of other orchestrators.
        let prefix = text("FELIX_INTERFACEPREFIX").split(',').next().unwrap_or_default().to_owned();
        Ok(Options {
            kubeconfig: text("KUBECONFIG"),
            context: text("K8S_CURRENT_CONTEXT"),
            endpoint: text("K8S_API_ENDPOINT"),
            cert_file: text("K8S_CERT_FILE"),
            key_file: text("K8S_KEY_FILE"),
            ca_file: text("K8S_CA_FILE"),
            token: text("K8S_API_TOKEN"),
            insecure: truth("K8S_INSECURE_SKIP_TLS_VERIFY")?,
            use_pod_cidr: truth("USE_POD_CIDR")?,
            interface_prefix: prefix,
            qps: rate(&text("K8S_CLIENT_QPS"))?,
            burst: number("K8S_CLIENT_BURST", &text("K8S_CLIENT_BURST"))?.filter(|burst| *burst != 0),
            group: group(&value("CALICO_API_GROUP").unwrap_or_default()),
            ..Options::default()
        })
    }

    /// Where the settings come from, for messages.
    pub(crate) fn origin(&self) -> String {
        if !self.endpoint.is_empty() {
            "K8S_API_ENDPOINT".to_owned()
        } else if !self.kubeconfig_inline.is_empty() {
            "the inline kubeconfig".to_owned()
        } else if !self.kubeconfig.is_empty() {
            format!("KUBECONFIG {}", self.kubeconfig)
        } else {
            "the pod's service account".to_owned()
        }
    }

    /// Whether nothing says where the server is, so that it must be that of the cluster around the process.
    pub(crate) fn in_cluster(&self) -> bool {
        self.endpoint.is_empty() && self.kubeconfig_inline.is_empty() && self.kubeconfig.is_empty()
    }

    /// The kubeconfig files, empty names left out.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        std::env::split_paths(&self.kubeconfig).filter(|path| !path.as_os_str().is_empty()).collect()
    }
}

/// Which group a setting names; as upstream, any word but that of v3 means v1, and no word means to find out.
fn group(word: &str) -> Option<Group> {
    match word {
        "" => None,
        v3 if v3.eq_ignore_ascii_case(Group::V3.api_version()) => Some(Group::V3),
        _ => Some(Group::V1),
    }
}

/// As upstream, zero means the default.
fn rate(text: &str) -> Result<Option<f64>, String> {
    match number::<f64>("K8S_CLIENT_QPS", text)? {
        Some(qps) if !qps.is_finite() => Err(format!("K8S_CLIENT_QPS={text:?}: expected a number")),
        qps => Ok(qps.filter(|qps| *qps != 0.0)),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("{name}={text:?}: expected a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, String> {
        Options::from_variables(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn variables_are_upstreams() {
        let options = read(&[
            ("KUBECONFIG", "/a:/b"),
            ("CALICO_K8S_API_ENDPOINT", "https://x:6443"),
            ("K8S_INSECURE_SKIP_TLS_VERIFY", "true"),
            ("K8S_CLIENT_QPS", "20.5"),
            ("K8S_CLIENT_BURST", "7"),
            ("CALICO_API_GROUP", "projectcalico.org/v3"),
        ])
        .expect("good");
        assert_eq!((options.endpoint.as_str(), options.insecure), ("https://x:6443", true));
        assert_eq!((options.qps, options.burst, options.group), (Some(20.5), Some(7), Some(Group::V3)));
        assert_eq!(options.files(), [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(options.origin(), "K8S_API_ENDPOINT");
    }

    #[test]
    fn wrong_values_name_their_variable() {
        for (name, value) in [
            ("K8S_CLIENT_QPS", "fast"),
            ("K8S_CLIENT_QPS", "nan"),
            ("K8S_CLIENT_BURST", "-1"),
            ("K8S_INSECURE_SKIP_TLS_VERIFY", "maybe"),
        ] {
            let error = read(&[(name, value)]).expect_err("no value of this variable");
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let options = Options { token: "s3cret".into(), kubeconfig_inline: "s3cret".into(), ..Options::default() };
        assert!(!format!("{options:?}").contains("s3cret"));
    }

    #[test]
    fn nothing_set_means_the_cluster_around_the_process() {
        let options = read(&[]).expect("good");
        assert!(options.in_cluster());
        assert_eq!((options.qps, options.group), (None, None));
    }
}
