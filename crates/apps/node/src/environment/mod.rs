//! The node's environment: upstream's variables, checked name by name and value by value.
//!
//! A misspelt variable or value is refused with its origin and the nearest valid choice: a setting that silently does
//! nothing is how clusters break.

mod felix;
mod felix_file;
mod known;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tortie_api::FelixConfigurationSpec;
use tortie_datastore::{Choice, Felix, Sources};
use tortie_net::{AsNumber, IpNet};
use tortie_store_kubernetes::Recent;

use felix_file::FelixFile;
pub use values::{AddressChoice, Backend, Encapsulation, PoolSettings, RouterId, WireguardDevice};

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin} {name}={value:?}: {problem}")]
pub struct SettingError {
    /// Where the setting came from, such as `the environment variable`.
    pub origin: String,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

/// What the environment asks of the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// `NODENAME`, if set.
    pub node_name: Option<String>,
    /// `HOSTNAME`, if set, in lower case: the node's name where neither `NODENAME` nor a kept one says it.
    pub host_name: Option<String>,
    /// `CALICO_NODENAME_FILE`: where the node's name is kept for others.
    pub node_name_file: PathBuf,
    /// `DATASTORE_TYPE` and where that datastore is.
    pub datastore: Choice,
    /// How to reach the Kubernetes around the node, which is there beside any datastore; `None`: there is none.
    pub kubernetes: Option<tortie_store_kubernetes::Options>,
    /// `CALICO_K8S_NODE_REF`: the name of the Kubernetes Node, if it is another than the node's.
    pub kubernetes_node: Option<String>,
    /// `KUBERNETES_SERVICE_HOST`, where it is an address: that of the Kubernetes API, mostly out of the range of Services.
    pub service_address: Option<IpAddr>,
    /// `WAIT_FOR_DATASTORE`: whether a datastore that does not answer is waited for, instead of ending.
    pub wait_for_datastore: bool,
    /// `CALICO_NETWORKING_BACKEND`.
    pub backend: Backend,
    /// `CLUSTER_TYPE`, appended to what the cluster says of itself.
    pub cluster_type: Vec<String>,
    /// `IP`.
    pub ipv4: AddressChoice,
    /// `IP6`.
    pub ipv6: AddressChoice,
    /// `IP_AUTODETECTION_METHOD`.
    pub ipv4_method: String,
    /// `IP6_AUTODETECTION_METHOD`.
    pub ipv6_method: String,
    /// `AUTODETECT_POLL_INTERVAL`: how often addresses that are looked for are looked for again.
    pub address_interval: Duration,
    /// Whether a node with an address of another one is refused: not so with `DISABLE_NODE_IP_CHECK`.
    pub check_addresses: bool,
    /// `AS`.
    pub asn: Option<AsNumber>,
    /// `CALICO_ROUTER_ID`.
    pub router_id: Option<RouterId>,
    /// `NO_DEFAULT_POOLS`.
    pub no_default_pools: bool,
    /// `CALICO_IPV4POOL_*`.
    pub pool4: PoolSettings,
    /// `CALICO_IPV6POOL_*`; without a CIDR no IPv6 pool is made unless the node has an IPv6 address.
    pub pool6: PoolSettings,
    /// `FELIX_*`, as a FelixConfiguration that goes before every stored one.
    pub felix: FelixConfigurationSpec,
    /// `TORTIE_STATE_DIR`.
    pub state_dir: PathBuf,
    /// Directory of passwords of BGP sessions, one file `SECRET/KEY` for each.
    pub bgp_secrets: Option<PathBuf>,
    /// `NAMESPACE`: where Secrets with passwords are, if there is no such directory.
    pub namespace: String,
    /// `TORTIE_REVOKE_FLOWS`: whether changed policy stops established flows.
    pub revoke_flows: bool,
    /// `TORTIE_DROP_RECORDS`: whether packets that end are recorded.
    pub drop_records: bool,
    /// `TORTIE_SELF_TEST_SECS`: how often the ways to other nodes are tested; 0: never.
    pub self_test_secs: u16,
    /// `TORTIE_WIREGUARD_DEVICE`.
    pub wireguard_device: WireguardDevice,
    /// `TORTIE_LOG`.
    pub log_filter: Option<String>,
    /// `TORTIE_LOG_FORMAT`: whether each line of the log is a JSON object.
    pub log_json: bool,
    /// Variables that are set and known to nobody, for a warning.
    pub unknown: Vec<String>,
    /// Settings of upstream's that do nothing here, for a warning.
    pub without_effect: Vec<String>,
}

impl Environment {
    /// Reads the process's environment; `felix` says what Felix's own names of the datastore's settings mean.
    pub fn from_process(felix: Felix) -> Result<Environment, Vec<SettingError>> {
        // A variable that is no text is none of ours, or its value is told of as wrong.
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let vars = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Environment::read_with_file(vars, Path::new(felix_file::PATH), felix)
    }

    /// Reads an environment and Felix's configuration file, if it is there.
    fn read_with_file(
        vars: BTreeMap<String, String>,
        file: &Path,
        felix: Felix,
    ) -> Result<Environment, Vec<SettingError>> {
        let file = FelixFile::read(file).map_err(|fault| vec![fault])?;
        match Environment::read(&file.below(vars.clone()), felix) {
            Ok(mut environment) => {
                file.locate_datastore(&vars, &mut environment.datastore);
                Ok(environment)
            }
            Err(mut faults) => {
                faults.iter_mut().for_each(|fault| file.locate(fault));
                Err(faults)
            }
        }
    }

    /// Reads an environment; every fault at once.
    pub fn read(vars: &BTreeMap<String, String>, felix: Felix) -> Result<Environment, Vec<SettingError>> {
        let mut faults = Vec::new();
        let unknown = known::check_names(vars, &mut faults);
        let mut reader = values::Reader { vars, faults: &mut faults };
        let mut datastore = datastore(vars, felix, reader.faults);
        if let Choice::Kubernetes(options) = &mut datastore {
            // What the store's watches tell of this node's pods is for CNI calls, too.
            options.recent = Some(Recent::default());
        }
        let environment = Environment {
            node_name: reader.text("NODENAME"),
            host_name: reader.text("HOSTNAME").map(|name| name.to_lowercase()),
            node_name_file: reader.text("CALICO_NODENAME_FILE").unwrap_or("/var/lib/calico/nodename".into()).into(),
            kubernetes: kubernetes(vars, &datastore),
            kubernetes_node: reader.text("CALICO_K8S_NODE_REF").filter(|name| !name.is_empty()),
            service_address: vars.get("KUBERNETES_SERVICE_HOST").and_then(|text| text.parse().ok()),
            wait_for_datastore: reader.flag("WAIT_FOR_DATASTORE", false),
            datastore,
            backend: reader.choice("CALICO_NETWORKING_BACKEND", Backend::CHOICES, Backend::Bird),
            cluster_type: reader.list("CLUSTER_TYPE"),
            ipv4: reader.address("IP"),
            ipv6: reader.address("IP6"),
            ipv4_method: reader.method("IP_AUTODETECTION_METHOD"),
            ipv6_method: reader.method("IP6_AUTODETECTION_METHOD"),
            address_interval: reader.interval("AUTODETECT_POLL_INTERVAL", Duration::from_secs(60)),
            check_addresses: !reader.flag("DISABLE_NODE_IP_CHECK", false),
            asn: reader.parsed("AS", "an AS number, 0 to 4294967295"),
            router_id: reader.parsed("CALICO_ROUTER_ID", "\"hash\" or an IPv4 address"),
            no_default_pools: reader.flag("NO_DEFAULT_POOLS", false),
            pool4: reader.pool("CALICO_IPV4POOL", 26, 20..=32),
            pool6: reader.pool("CALICO_IPV6POOL", 122, 116..=128),
            namespace: reader
                .text("NAMESPACE")
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "kube-system".to_owned()),
            bgp_secrets: reader.text("TORTIE_BGP_SECRETS").filter(|path| !path.is_empty()).map(PathBuf::from),
            state_dir: reader.text("TORTIE_STATE_DIR").unwrap_or("/run/tortie".into()).into(),
            revoke_flows: reader.choice("TORTIE_REVOKE_FLOWS", &[("on", true), ("off", false)], true),
            drop_records: reader.choice("TORTIE_DROP_RECORDS", &[("on", true), ("off", false)], true),
            self_test_secs: reader.parsed("TORTIE_SELF_TEST_SECS", "seconds, 0 to 65535").unwrap_or(30),
            wireguard_device: reader.choice("TORTIE_WIREGUARD_DEVICE", WireguardDevice::CHOICES, WireguardDevice::Auto),
            log_filter: reader.log_filter("TORTIE_LOG"),
            log_json: reader.choice("TORTIE_LOG_FORMAT", &[("text", false), ("json", true)], false),
            felix: felix::read(vars, reader.faults),
            unknown,
            without_effect: known::without_effect(vars),
        };
        if faults.is_empty() { Ok(environment) } else { Err(faults) }
    }
}

/// Where the facts are; the embedded store after a fault, which is told.
fn datastore(vars: &BTreeMap<String, String>, felix: Felix, faults: &mut Vec<SettingError>) -> Choice {
    let env = vars.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    tortie_datastore::choose(&Sources { env: &env, file: None, felix }).unwrap_or_else(|fault| {
        let (name, value, problem) = fault.parts();
        faults.push(SettingError { origin: "the environment variable".to_owned(), name, value, problem });
        Choice::Sqlite(Default::default())
    })
}

/// The settings of the Kubernetes API that is the datastore; else those of the API that the process is told of or lives
/// in.
fn kubernetes(vars: &BTreeMap<String, String>, datastore: &Choice) -> Option<tortie_store_kubernetes::Options> {
    if let Choice::Kubernetes(options) = datastore {
        return Some((**options).clone());
    }
    let told = ["KUBECONFIG", "K8S_API_ENDPOINT", "KUBERNETES_SERVICE_HOST"];
    if !told.iter().any(|name| vars.get(*name).is_some_and(|text| !text.is_empty())) {
        return None;
    }
    // Where the API is not the datastore, its settings are checked when it is first asked.
    tortie_store_kubernetes::Options::from_variables(|name| vars.get(name).cloned()).ok()
}

/// The address and, if given, the prefix length of a text such as `10.0.0.1` or `10.0.0.1/24`.
pub fn parse_address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    match text.split_once('/') {
        None => text.parse().ok().map(|addr| (addr, None)),
        Some(_) => text.parse::<IpNet>().ok().map(|net| (net.addr(), Some(net.prefix_len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, Vec<SettingError>> {
        Environment::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), Felix::Last)
    }

    #[test]
    fn an_empty_environment_is_a_good_one() {
        let environment = read(&[]).expect("nothing is wrong");
        assert_eq!(environment.backend, Backend::Bird);
        assert_eq!((environment.ipv4, environment.ipv6), (AddressChoice::Unset, AddressChoice::Unset));
        assert_eq!(environment.state_dir, PathBuf::from("/run/tortie"));
        assert_eq!(environment.address_interval, Duration::from_secs(60));
        let often = read(&[("AUTODETECT_POLL_INTERVAL", "1m30s")]).expect("a duration of Go's");
        assert_eq!(often.address_interval, Duration::from_secs(90));
    }

    #[test]
    fn the_seeds_misspelt_backend_is_refused_with_the_nearest() {
        let faults = read(&[("CALICO_NETWORKING_BACKEND", "brid")]).expect_err("brid is no backend");
        let text = faults[0].to_string();
        for part in ["environment variable", "CALICO_NETWORKING_BACKEND", "brid", "did you mean \"bird\""] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn misspelt_names_are_refused_with_the_nearest() {
        for (typo, right) in [
            ("FELIX_NFTABLESMOD", "FELIX_NFTABLESMODE"),
            ("CALICO_IPV4POOL_CIRD", "CALICO_IPV4POOL_CIDR"),
            ("IP_AUTODETECTION_METOD", "IP_AUTODETECTION_METHOD"),
            ("DATASTORE_TYP", "DATASTORE_TYPE"),
            ("TORTIE_STATE_DIRR", "TORTIE_STATE_DIR"),
        ] {
            let faults = read(&[(typo, "x")]).expect_err(typo);
            assert!(faults[0].to_string().contains(right), "{}", faults[0]);
        }
    }

    #[test]
    fn a_misspelt_level_of_the_log_is_refused() {
        for good in ["debug", "INFO", "info,tortie_node=debug", "tortie_node::agent", "warn,[span{a=1}]=debug"] {
            assert_eq!(read(&[("TORTIE_LOG", good)]).expect(good).log_filter.as_deref(), Some(good));
        }
        for (wrong, right) in [("debgu", "debug"), ("info,tortie_node=wran", "warn")] {
            let faults = read(&[("TORTIE_LOG", wrong)]).expect_err(wrong);
            assert!(faults[0].to_string().contains(&format!("did you mean {right:?}")), "{}", faults[0]);
        }
        assert!(read(&[("TORTIE_LOG_FORMAT", "josn")]).is_err());
    }

    #[test]
    fn what_kubernetes_sets_by_itself_is_left_alone() {
        let environment = read(&[
            ("CALICO_TYPHA_PORT_5473_TCP_ADDR", "10.0.0.1"),
            ("CALICO_TYPHA_SERVICE_HOST", "10.0.0.1"),
            ("FELIX_SOMETHING_OF_A_LATER_VERSION", "1"),
        ]);
        assert_eq!(environment.expect("only unknown").unknown.len(), 1);
    }

    #[test]
    fn every_wrong_value_is_told_at_once() {
        let faults = read(&[
            ("AS", "many"),
            ("IP", "10.0.0.300"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "33"),
            ("CALICO_IPV4POOL_CIDR", "fd00::/48"),
            ("CALICO_IPV4POOL_IPIP", "Alway"),
            ("NO_DEFAULT_POOLS", "maybe"),
            ("AUTODETECT_POLL_INTERVAL", "0s"),
            ("IP_AUTODETECTION_METHOD", "first-fuond"),
            ("DATASTORE_TYPE", "sqlit"),
        ])
        .expect_err("all are wrong");
        assert_eq!(faults.len(), 9, "{faults:?}");
        assert!(faults.iter().any(|fault| fault.to_string().contains("did you mean \"first-found\"")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.to_string().contains("did you mean \"sqlite\"")), "{faults:?}");
    }

    #[test]
    fn felix_values_are_read_by_their_type() {
        let environment = read(&[
            ("FELIX_HEALTHPORT", "9199"),
            ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
            ("FELIX_nftablesMode", "enabled"),
            ("FELIX_ROUTEREFRESHINTERVAL", "30"),
            ("FELIX_INTERFACEPREFIX", "cali,tap"),
        ])
        .expect("all are good");
        assert_eq!(environment.felix.health_port, Some(9199));
        assert_eq!(environment.felix.interface_prefix, "cali,tap");
        for (name, value, part) in [
            ("FELIX_HEALTHPORT", "many", "HealthPort"),
            ("FELIX_NFTABLESMODE", "Enabeld", "Enabled"),
            ("FELIX_HEALTHENABLED", "ture", "true"),
        ] {
            let faults = read(&[(name, value)]).expect_err(name);
            let text = faults[0].to_string();
            assert!(text.contains(name) && text.contains(value) && text.contains(part), "{text}");
        }
    }

    #[test]
    fn felixs_file_comes_after_the_variables_and_its_faults_name_it() {
        let path = std::env::temp_dir().join(format!("felix-{}.cfg", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a writable folder");
            let vars = [("FELIX_HEALTHPORT".to_owned(), "9199".to_owned())].into();
            Environment::read_with_file(vars, &path, Felix::Last)
        };
        let good = read("[global]\nHealthPort = 9200\nInterfacePrefix = tap\n").expect("all are good");
        let wrong = read("[global]\nNFTablesMode = Enabeld\n").expect_err("misspelt");
        let unknown = read("HealthPrt = 1\n").expect_err("no such name");
        let store = read("DatastoreType = etcdv4\n").expect_err("no such type");
        let etcd = read("DatastoreType = etcdv3\nEtcdAddr = no-such-host.invalid:1\nEtcdCaFile = /ca\n").expect("good");
        std::fs::remove_file(&path).expect("it is ours");
        assert_eq!((good.felix.health_port, &*good.felix.interface_prefix), (Some(9199), "tap"));
        let place = path.display().to_string();
        let (problem, of_file) = (etcd.datastore.open().err(), format!("{place}: EtcdCaFile"));
        assert!(problem.as_ref().is_some_and(|error| error.to_string().contains(&of_file)), "{problem:?}");
        for (faults, parts) in [
            (wrong, ["NFTablesMode=\"Enabeld\"", "Enabled"]),
            (unknown, ["HealthPrt", "HEALTHPORT"]),
            (store, ["DatastoreType=\"etcdv4\"", "etcdv3"]),
        ] {
            let text = faults[0].to_string();
            assert!(text.starts_with(&place) && parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn the_router_id_is_an_address_or_the_names_hash() {
        let of =
            |text| read(&[("CALICO_ROUTER_ID", text)]).map(|environment| environment.router_id.expect("it is set"));
        assert_eq!(of("192.0.2.1").expect("an address").of("nodeTest").to_string(), "192.0.2.1");
        assert_eq!(of("hash").expect("upstream's word").of("nodeTest").to_string(), "109.174.215.226");
        let faults = of("hsah").expect_err("neither");
        assert!(faults[0].to_string().contains("expected \"hash\" or an IPv4 address"), "{}", faults[0]);
    }

    #[test]
    fn the_seeds_settings_are_read() {
        let environment = read(&[
            ("CLUSTER_TYPE", "k8s,bgp"),
            ("IP", "autodetect"),
            ("CALICO_IPV4POOL_CIDR", "10.244.0.0/16"),
            ("CALICO_IPV4POOL_IPIP", "Always"),
            ("IP_AUTODETECTION_METHOD", "interface=ens33"),
            ("WAIT_FOR_DATASTORE", "true"),
            ("FELIX_HEALTHENABLED", "true"),
        ])
        .expect("upstream's own settings");
        assert_eq!(environment.pool4.cidr, Some("10.244.0.0/16".parse().expect("a literal")));
        assert_eq!(environment.pool4.ipip, Some(Encapsulation::Always));
        assert_eq!(environment.felix.health_enabled, Some(true));
        assert!(environment.without_effect.is_empty());
    }
}
