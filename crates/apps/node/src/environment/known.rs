//! Names of variables: which are known, which are nearly so.

use std::collections::BTreeMap;

use tortie_api::FelixConfigurationSpec;

use super::SettingError;

/// Variables that the node reads or that upstream's node reads; those of the latter that do nothing are told of.
const KNOWN: &[&str] = &[
    "AS",
    "AUTODETECT_POLL_INTERVAL",
    "BGP_LOGSEVERITYSCREEN",
    "CALICO_ADVERTISE_CLUSTER_IPS",
    "CALICO_API_GROUP",
    "CALICO_CNI_SERVICE_ACCOUNT",
    "CALICO_DISABLE_FELIX",
    "CALICO_DISABLE_FILE_LOGGING",
    "CALICO_ENDPOINT_STATUS_PATH_PREFIX",
    "CALICO_IPV4POOL_BLOCK_SIZE",
    "CALICO_IPV4POOL_CIDR",
    "CALICO_IPV4POOL_DISABLE_BGP_EXPORT",
    "CALICO_IPV4POOL_IPIP",
    "CALICO_IPV4POOL_NAT_OUTGOING",
    "CALICO_IPV4POOL_NODE_SELECTOR",
    "CALICO_IPV4POOL_VXLAN",
    "CALICO_IPV6POOL_BLOCK_SIZE",
    "CALICO_IPV6POOL_CIDR",
    "CALICO_IPV6POOL_DISABLE_BGP_EXPORT",
    "CALICO_IPV6POOL_NAT_OUTGOING",
    "CALICO_IPV6POOL_NODE_SELECTOR",
    "CALICO_IPV6POOL_VXLAN",
    "CALICO_K8S_NODE_REF",
    "CALICO_MANAGE_CNI",
    "CALICO_NETWORKING_BACKEND",
    "CALICO_NODENAME_FILE",
    "CALICO_ROUTER_ID",
    "CALICO_SHUTDOWN_TIMESTAMP_FILE",
    "CALICO_STARTUP_LOGLEVEL",
    "CALICO_UNKNOWN_NODE_REF",
    "CLUSTER_TYPE",
    "CNI_TOKEN_REFRESH_INTERVAL",
    "DATASTORE_TYPE",
    "DISABLE_NODE_IP_CHECK",
    "ETCD_CA_CERT_FILE",
    "ETCD_CERT_FILE",
    "ETCD_DISCOVERY_SRV",
    "ETCD_ENDPOINTS",
    "ETCD_KEY_FILE",
    "ETCD_PASSWORD",
    "ETCD_USERNAME",
    "HOSTNAME",
    "IP",
    "IP6",
    "IP6_AUTODETECTION_METHOD",
    "IP_AUTODETECTION_METHOD",
    "K8S_API_ENDPOINT",
    "K8S_API_TOKEN",
    "K8S_CA_FILE",
    "K8S_CERT_FILE",
    "K8S_CLIENT_BURST",
    "K8S_CLIENT_QPS",
    "K8S_CURRENT_CONTEXT",
    "K8S_INSECURE_SKIP_TLS_VERIFY",
    "K8S_KEY_FILE",
    "KUBECONFIG",
    "NODENAME",
    "NO_DEFAULT_POOLS",
    "TORTIE_BGP_SECRETS",
    "TORTIE_BIN",
    "TORTIE_DROP_RECORDS",
    "TORTIE_REVOKE_FLOWS",
    "TORTIE_LOG",
    "TORTIE_LOG_FORMAT",
    "TORTIE_SELF_TEST_SECS",
    "TORTIE_SQLITE",
    "TORTIE_SQLITE_SYNC",
    "TORTIE_STATE_DIR",
    "TORTIE_WIREGUARD_DEVICE",
    "USE_POD_CIDR",
    "VXLAN_VNI",
    "WAIT_FOR_DATASTORE",
];

/// Upstream's variables that are accepted and change nothing here, each with the values that ask for nothing.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    ("BGP_LOGSEVERITYSCREEN", &["info"]),
    ("CALICO_ADVERTISE_CLUSTER_IPS", &[]),
    ("CALICO_DISABLE_FELIX", &[]),
    ("CALICO_DISABLE_FILE_LOGGING", &["true"]),
    ("CALICO_ENDPOINT_STATUS_PATH_PREFIX", &["/var/run/calico"]),
    ("CALICO_SHUTDOWN_TIMESTAMP_FILE", &["/var/lib/calico/shutdownTS"]),
    ("CALICO_STARTUP_LOGLEVEL", &["info"]),
    ("CALICO_UNKNOWN_NODE_REF", &[]),
    ("VXLAN_VNI", &["4096"]),
];

/// Settings of [`WITHOUT_EFFECT`] that ask for something, each as it would be written.
pub(super) fn without_effect(vars: &BTreeMap<String, String>) -> Vec<String> {
    let asks = |(name, nothing): &(&str, &[&str])| {
        let value = vars.get(*name)?.trim();
        let asks = !value.is_empty() && !nothing.iter().any(|word| word.eq_ignore_ascii_case(value));
        asks.then(|| format!("{name}={value}"))
    };
    WITHOUT_EFFECT.iter().filter_map(asks).collect()
}

/// How the names of the datastore's settings start.
const DATASTORE: [&str; 4] = ["DATASTORE_", "ETCD_", "K8S_", "KUBECONFIG"];

/// Parameters of upstream's Felix that are set by file or environment only and so are no field of the resource.
const LOCAL_FELIX: &[&str] = &[
    "DatastoreType",
    "FelixHostname",
    "EtcdAddr",
    "EtcdScheme",
    "EtcdKeyFile",
    "EtcdCertFile",
    "EtcdCaFile",
    "EtcdEndpoints",
    "TyphaAddr",
    "TyphaK8sServiceName",
    "TyphaK8sNamespace",
    "TyphaReadTimeout",
    "TyphaWriteTimeout",
    "TyphaKeyFile",
    "TyphaCertFile",
    "TyphaCAFile",
    "TyphaCN",
    "TyphaURISAN",
    "Ipv6Support",
    "MetadataAddr",
    "MetadataPort",
    "LoadClientConfigFromEnvironment",
    "UseInternalDataplaneDriver",
    "DataplaneDriver",
    "DebugMemoryProfilePath",
    "DebugDisableLogDropping",
    "DebugSimulateCalcGraphHangAfter",
    "DebugSimulateDataplaneHangAfter",
    "StartupCleanupDelay",
    "OpenstackRegion",
    "ServiceLoopPrevention",
    "GoGCThreshold",
];

/// Finds misspelt names; returns what is of our prefixes, unknown, and near to nothing.
pub(super) fn check_names(vars: &BTreeMap<String, String>, faults: &mut Vec<SettingError>) -> Vec<String> {
    let felix: Vec<String> = FelixConfigurationSpec::PARAMETERS
        .iter()
        .map(|parameter| parameter.name)
        .chain(LOCAL_FELIX.iter().copied())
        .filter(|name| !name.is_empty())
        .map(|name| format!("FELIX_{}", name.to_ascii_uppercase()))
        .collect();
    let mut unknown = Vec::new();
    for (name, value) in vars {
        let upper = name.to_ascii_uppercase();
        // Upstream takes the datastore's settings with its own prefix too.
        let plain = name.strip_prefix("CALICO_").filter(|plain| DATASTORE.iter().any(|stem| plain.starts_with(stem)));
        if KNOWN.contains(&plain.unwrap_or(name)) || felix.contains(&upper) || is_service_variable(name) {
            continue;
        }
        // The prefixes are long and shared, so only what follows them says how near two names are.
        let nearest = if upper.starts_with("FELIX_") {
            nearest(&upper, felix.iter().map(String::as_str))
        } else {
            nearest(name, KNOWN.iter().copied().filter(|known| known.len() >= 8))
        };
        if let Some(known) = nearest {
            faults.push(SettingError {
                origin: "the environment variable".to_owned(),
                name: name.clone(),
                value: value.clone(),
                problem: format!("there is no such setting: did you mean {known:?}?"),
            });
        } else if ["FELIX_", "CALICO_", "TORTIE_"].iter().any(|prefix| name.starts_with(prefix)) {
            unknown.push(name.clone());
        }
    }
    unknown
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
}

/// Kubernetes sets variables for every service of the pod's namespace, such as `CALICO_TYPHA_SERVICE_HOST`.
fn is_service_variable(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, value: &str) -> Vec<String> {
        without_effect(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn each_variable_without_effect_is_told_of_when_it_asks_for_something() {
        for (name, nothing) in WITHOUT_EFFECT {
            assert!(KNOWN.contains(name), "{name} would be refused");
            assert_eq!(told(name, "something"), [format!("{name}=something")]);
            for value in nothing.iter().chain(&["", " "]) {
                assert!(told(name, value).is_empty(), "{name}={value}");
            }
        }
        assert!(told("CALICO_DISABLE_FILE_LOGGING", "True").is_empty());
        assert!(told("NODENAME", "something").is_empty());
    }
}
