//! The network configuration: every key that upstream's plugin knows, checked for misspellings.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::known;
use crate::spec::{CniError, VERSIONS, code};

/// The part of the configuration that decides what is done.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conf {
    /// Name of the network; first part of every handle id.
    pub name: String,
    /// Version of the specification.
    #[serde(rename = "cniVersion")]
    pub cni_version: String,
    /// MTU of the pod's interface; 0: the node decides.
    pub mtu: u32,
    /// Name of the node; empty: the node's own.
    pub nodename: String,
    /// Deprecated form of `nodename`.
    pub hostname: String,
    /// Which IPAM plugin, and its settings.
    pub ipam: Ipam,
    /// Who handles policy: `k8s`, or empty for a profile of the network's name.
    pub policy: Policy,
    /// Settings for Kubernetes.
    pub kubernetes: Kubernetes,
    /// Settings inside the pod.
    pub container_settings: ContainerSettings,
    /// Which annotations of pods are allowed.
    pub feature_control: FeatureControl,
    /// With routes of `host-local`: whether the pod has default routes beside them.
    pub include_default_routes: bool,
    /// URLs that must answer well before ADD does anything.
    pub readiness_gates: Vec<String>,
    /// Whether ADD is refused before the node has written the file of its MTU.
    pub require_mtu_file: bool,
    /// `veth`, or empty for it.
    pub device_type: String,
    /// How long to wait for the kernel to hold the policy, seconds; 0: the default.
    pub policy_setup_timeout_seconds: u64,
    /// Arguments of orchestrators.
    pub args: Args,
    /// Result of ADD, given to CHECK.
    #[serde(rename = "prevResult")]
    pub prev_result: Option<Value>,
    /// What may stay, given to GC.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Vec<Attachment>,
}

/// The `ipam` object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// The IPAM plugin's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// `"true"` or `"false"`: whether an IPv4 address is wanted (default true).
    pub assign_ipv4: Option<TextBool>,
    /// Whether an IPv6 address is wanted (default false).
    pub assign_ipv6: Option<TextBool>,
    /// Pools to take IPv4 addresses from, by CIDR or name; empty: any.
    pub ipv4_pools: Vec<String>,
    /// Pools to take IPv6 addresses from.
    pub ipv6_pools: Vec<String>,
    /// With `host-local`: where the pod's routes lead; none for the default routes.
    #[serde(deserialize_with = "destinations")]
    pub routes: Vec<IpNet>,
}

/// The destinations of `host-local`'s routes. What belongs to other plugins is not looked at.
fn destinations<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let Value::Array(routes) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    let texts = routes.iter().filter_map(|route| route.get("dst")?.as_str());
    let net = |text: &str| {
        text.parse()
            .map(|net: IpNet| net.trunc())
            .map_err(|_| serde::de::Error::custom(format!("the route's dst {text:?} is no prefix such as 10.0.0.0/8")))
    };
    texts.map(net).collect()
}

/// The `feature_control` object.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FeatureControl {
    /// Whether pods may name addresses that nobody keeps account of.
    pub ip_addrs_no_ipam: bool,
    /// Whether pods may name floating addresses.
    pub floating_ips: bool,
}

/// A bool that may be written as text, as upstream's configuration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextBool(pub bool);

impl<'de> Deserialize<'de> for TextBool {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(value) => Ok(TextBool(value)),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(TextBool(true)),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(TextBool(false)),
            other => Err(serde::de::Error::custom(format!("{other} is neither \"true\" nor \"false\""))),
        }
    }
}

/// The `policy` object; credentials in it are not used, since the node holds the store.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// `k8s` or empty.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The `kubernetes` object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    /// Name of the node.
    pub node_name: String,
}

/// The `container_settings` object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerSettings {
    /// Whether the pod may forward packets.
    pub allow_ip_forwarding: bool,
}

/// The `args` object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Args {
    /// What Mesos tells.
    #[serde(rename = "org.apache.mesos")]
    pub mesos: Mesos,
}

/// What Mesos tells.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mesos {
    /// The network.
    pub network_info: NetworkInfo,
}

/// The network as Mesos describes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetworkInfo {
    /// Name.
    pub name: String,
    /// Labels of the task.
    pub labels: Labels,
}

/// A wrapper of labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// The labels.
    pub labels: Vec<Label>,
}

/// A label.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Label {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// An attachment that GC must leave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface.
    pub ifname: String,
}

impl Conf {
    /// Reads the configuration. An error has the code that the specification gives it.
    pub fn read(text: &str) -> Result<Conf, CniError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| CniError::new(code::DECODE, format!("the network configuration is no JSON: {error}")))?;
        Conf::from_value(&value)
    }

    /// The same from JSON that is read already.
    pub fn from_value(value: &Value) -> Result<Conf, CniError> {
        let object = value.as_object().ok_or_else(|| {
            CniError::new(code::INVALID_CONFIG, "the network configuration is no JSON object".to_owned())
        })?;
        known::check(object)?;
        let conf: Conf = serde_path_to_error::deserialize(value).map_err(|error| {
            CniError::new(code::INVALID_CONFIG, format!("the network configuration is wrong: {error}"))
        })?;
        conf.check()?;
        Ok(conf)
    }

    fn check(&self) -> Result<(), CniError> {
        if !VERSIONS.contains(&self.cni_version.as_str()) {
            return Err(CniError::new(
                code::INCOMPATIBLE_VERSION,
                format!("cniVersion is {:?}: supported are {}", self.cni_version, VERSIONS.join(", ")),
            ));
        }
        let name_ok = self.name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !name_ok {
            return Err(CniError::new(
                code::INVALID_CONFIG,
                format!("name is {:?}: expected a letter or digit, then letters, digits, '.', '_' or '-'", self.name),
            ));
        }
        match self.device_type.as_str() {
            "" | "veth" => {}
            other => {
                return Err(CniError::new(
                    code::UNSUPPORTED_FIELD,
                    format!("device_type is {other:?}: this node supports \"veth\""),
                ));
            }
        }
        match self.policy.kind.as_str() {
            "" | "k8s" => Ok(()),
            other => Err(CniError::new(
                code::INVALID_CONFIG,
                format!("policy.type is {other:?}: expected \"k8s\" or nothing"),
            )),
        }
    }

    /// Labels that the orchestrator gave, with Mesos's free text made fit for labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let Args { mesos: Mesos { network_info: NetworkInfo { name: _, labels } } } = &self.args;
        labels.labels.iter().map(|Label { key, value }| (label_text(key), label_text(value))).collect()
    }

    /// Where the pod's routes lead; none means the default routes.
    pub fn routes(&self) -> Vec<IpNet> {
        if self.ipam.kind != "host-local" || self.ipam.routes.is_empty() {
            return Vec::new();
        }
        let default = ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("a literal prefix"));
        let more = default.into_iter().filter(|_| self.include_default_routes);
        more.chain(self.ipam.routes.iter().copied()).collect()
    }

    /// Whether this plugin's own IPAM gives the addresses.
    pub fn own_ipam(&self) -> bool {
        self.ipam.kind.is_empty() || self.ipam.kind == "calico-ipam"
    }
}

/// Mesos labels hold any text; what a label can't hold becomes '-', and ends are cut to letters and digits.
fn label_text(text: &str) -> String {
    let replaced: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_./".contains(c) { c } else { '-' }).collect();
    replaced.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = r#"{ "type": "calico", "name": "k8s-pod-network", "cniVersion": "0.3.1", "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log", "etcd_endpoints": "https://192.168.13.31:2379",
        "etcd_key_file": "/etc/calico/ssl/calico-key.pem", "etcd_cert_file": "/etc/calico/ssl/calico.pem",
        "etcd_ca_cert_file": "/etc/kubernetes/ssl/ca.pem", "mtu": 1500, "ipam": { "type": "calico-ipam" },
        "policy": { "type": "k8s" }, "kubernetes": { "kubeconfig": "/root/.kube/config" } }"#;

    #[test]
    fn the_seeds_configuration_is_accepted() {
        let conf = Conf::read(SEED).expect("it is upstream's");
        assert_eq!((conf.mtu, conf.policy.kind.as_str(), conf.own_ipam()), (1500, "k8s", true));
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_nearest() {
        for (typo, right) in [("ipmm", "ipam"), ("etcd_endpoint", "etcd_endpoints"), ("polciy", "policy")] {
            let text = format!(r#"{{"name":"n","cniVersion":"1.0.0","{typo}":{{}}}}"#);
            let error = Conf::read(&text).expect_err(typo);
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(typo) && error.msg.contains(right), "{error}");
        }
        for (inside, parts) in [
            (r#""ipam":{"assign_ipv5":"true"}"#, ["ipam.assign_ipv5", "assign_ipv"]),
            (r#""ipam":{"type":"calico-ipm"}"#, ["ipam.type", "\"calico-ipam\""]),
            (r#""policy":{"tpye":"k8s"}"#, ["policy.tpye", "\"type\""]),
            (r#""kubernetes":{"kubconfig":""}"#, ["kubernetes.kubconfig", "\"kubeconfig\""]),
            (r#""datastore_type":"sqlit""#, ["datastore_type", "\"sqlite\""]),
            (r#""log_level":"infoo""#, ["log_level", "\"info\""]),
            (r#""mtu":"big""#, ["mtu", "\"big\""]),
            (r#""ipam":{"assign_ipv4":"ture"}"#, ["ipam.assign_ipv4", "\"true\""]),
        ] {
            let error = Conf::read(&format!(r#"{{"name":"n","cniVersion":"1.0.0",{inside}}}"#)).expect_err(inside);
            assert!(error.code == code::INVALID_CONFIG && parts.iter().all(|p| error.msg.contains(p)), "{error}");
        }
        assert!(Conf::read(r#"{"name":"n","cniVersion":"1.0.0","ipam":{"type":"host-local","rangs":[]}}"#).is_ok());
        assert!(Conf::read(r#"{"name":"n","cniVersion":"1.0.0","somebody_elses_key":1}"#).is_ok());
    }

    #[test]
    fn what_is_wrong_has_the_specifications_code() {
        for (text, expected) in [
            ("{", code::DECODE),
            ("[]", code::INVALID_CONFIG),
            (r#"{"name":"n","cniVersion":"9.9.9"}"#, code::INCOMPATIBLE_VERSION),
            (r#"{"name":"","cniVersion":"1.0.0"}"#, code::INVALID_CONFIG),
            (r#"{"name":"n","cniVersion":"1.0.0","mtu":"x"}"#, code::INVALID_CONFIG),
            (r#"{"name":"n","cniVersion":"1.0.0","device_type":"netkit"}"#, code::UNSUPPORTED_FIELD),
            (r#"{"name":"n","cniVersion":"1.0.0","policy":{"type":"k8"}}"#, code::INVALID_CONFIG),
        ] {
            assert_eq!(Conf::read(text).expect_err(text).code, expected, "{text}");
        }
    }

    #[test]
    fn labels_of_mesos_become_labels() {
        let text = r#"{"name":"n","cniVersion":"1.0.0","args":{"org.apache.mesos":{"network_info":
            {"labels":{"labels":[{"key":"role","value":"a b!"}]}}}}}"#;
        assert_eq!(Conf::read(text).expect("good").labels()["role"], "a-b");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = Conf::read(&text);
        }
    }
}
