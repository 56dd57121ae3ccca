//! What a Kubernetes pod asks of its network in annotations of its own and of its namespace, as upstream has them.
//!
//! The pod's go before the namespace's. What can't be read or is not allowed fails the call and names the annotation:
//! a pod with another address than it asked for would be worse than none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tortie_api::{LabelMap, Resource, WorkloadEndpoint};
use tortie_cni::conf::Conf;
use tortie_cni::spec::{CniError, code};
use tortie_kubernetes::Pod;
use tortie_net::{Family, Mac};
use tortie_store_kubernetes::PodOf;

use super::workload::Workload;
use super::{Service, store_fault};

const PREFIX: &str = "cni.projectcalico.org/";

/// Where kubelet says in the API which static pod a pod mirrors.
const STATIC: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];

/// What a pod asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    of: PodOf,
    /// Pools by name or range, where the pod or its namespace names some.
    pools: BTreeMap<Family, Vec<String>>,
    /// Families, where they are named.
    families: Option<Vec<Family>>,
    /// Addresses that the pod wants, out of the pools.
    pub(super) fixed: Vec<IpAddr>,
    /// Addresses that the pod has without anybody keeping account of them.
    pub(super) bare: Vec<IpAddr>,
    /// The Ethernet address of its interface.
    pub(super) mac: Option<Mac>,
}

impl Service {
    /// What the pod of a call asks for; `None` where nobody is to be asked: the configuration hands policy to nobody,
    /// or this node knows no Kubernetes.
    pub(super) fn asked(&self, conf: &Conf, workload: &Workload) -> Result<Option<Asked>, CniError> {
        let Some(cluster) = self.cluster.as_ref().filter(|_| conf.policy.kind == "k8s" && !workload.pod.is_empty())
        else {
            return Ok(None);
        };
        let (namespace, name) = (&workload.namespace, &workload.pod);
        let found = cluster.pod(namespace, name, &workload.uid).map_err(store_fault)?;
        let Some(found) = found.filter(|found| is_meant(&found.pod, &workload.uid)) else {
            let uid = if workload.uid.is_empty() { String::new() } else { format!(" (uid {})", workload.uid) };
            return Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                format!("the pod {namespace}/{name}{uid} is not there any more"),
            ));
        };
        Asked::read(found, conf).map(Some)
    }
}

/// Whether a runtime that tells this uid means the pod. Of a static pod it tells the hash of kubelet's file: the API's
/// pod mirrors that one, and has a uid of its own.
fn is_meant(pod: &Pod, told: &str) -> bool {
    let hash_of = |key: &str| pod.metadata.annotations.get(key).map(String::as_str);
    told.is_empty() || pod.metadata.uid == told || STATIC.into_iter().any(|key| hash_of(key) == Some(told))
}

impl Asked {
    fn read(of: PodOf, conf: &Conf) -> Result<Asked, CniError> {
        let own = |key: &str| text(&of.pod.metadata.annotations, key);
        let inherited = |key: &str| own(key).or_else(|| text(&of.namespace_annotations, key));
        let mut asked = Asked::default();
        if conf.own_ipam() {
            for (family, key) in [(Family::V4, "ipv4pools"), (Family::V6, "ipv6pools")] {
                if let Some(found) = inherited(key) {
                    asked.pools.insert(family, list(key, found)?);
                }
            }
            asked.families = inherited("ipFamilies").map(families).transpose()?;
        }
        asked.fixed = own("ipAddrs").map_or(Ok(Vec::new()), |found| addresses("ipAddrs", found))?;
        asked.bare = own("ipAddrsNoIpam").map_or(Ok(Vec::new()), |found| addresses("ipAddrsNoIpam", found))?;
        asked.mac = own("hwAddr").map(mac).transpose()?;
        asked.allowed(conf, own("floatingIPs").is_some())?;
        Ok(Asked { of, ..asked })
    }

    /// Refuses what the configuration does not allow, and what contradicts itself.
    fn allowed(&self, conf: &Conf, floating: bool) -> Result<(), CniError> {
        let refused = |text: String| Err(CniError::new(code::INVALID_CONFIG, text));
        if !self.fixed.is_empty() && !self.bare.is_empty() {
            return refused(format!("the annotations {PREFIX}ipAddrs and {PREFIX}ipAddrsNoIpam exclude each other"));
        }
        for (key, wanted) in [("ipAddrs", &self.fixed), ("ipAddrsNoIpam", &self.bare)] {
            if !wanted.is_empty() && !conf.own_ipam() {
                let kind = &conf.ipam.kind;
                return refused(format!("the annotation {PREFIX}{key} needs ipam.type \"calico-ipam\", not {kind:?}"));
            }
        }
        let feature = &conf.feature_control;
        for (key, used, setting, on) in [
            ("ipAddrsNoIpam", !self.bare.is_empty(), "ip_addrs_no_ipam", feature.ip_addrs_no_ipam),
            ("floatingIPs", floating, "floating_ips", feature.floating_ips),
        ] {
            if used && !on {
                return refused(format!(
                    "the annotation {PREFIX}{key} is not allowed here: feature_control.{setting} of the CNI \
                     configuration is not true"
                ));
            }
        }
        Ok(())
    }

    /// The families and pools of addresses to give; `configured` are those of the configuration.
    pub(super) fn families(&self, configured: Vec<(Family, Vec<String>)>) -> Vec<(Family, Vec<String>)> {
        let mut wanted = match &self.families {
            None => configured,
            Some(families) => {
                let pools = |family| configured.iter().find(|(f, _)| *f == family).map(|(_, pools)| pools.clone());
                families.iter().map(|family| (*family, pools(*family).unwrap_or_default())).collect()
            }
        };
        for (family, pools) in &mut wanted {
            if let Some(named) = self.pools.get(family) {
                pools.clone_from(named);
            }
        }
        wanted
    }

    /// Which pod it is, by the API.
    pub(super) fn uid(&self) -> &str {
        &self.of.pod.metadata.uid
    }

    /// Labels of the pod's namespace, by which pools may be chosen.
    pub(super) fn namespace_labels(&self) -> &LabelMap {
        &self.of.namespace_labels
    }

    /// The pod as an endpoint with these addresses: its labels, ports, limits, allowed sources and floating addresses.
    pub(super) fn endpoint(&self, addresses: &[IpAddr]) -> Result<WorkloadEndpoint, CniError> {
        let mut pod = self.of.pod.clone();
        pod.set_addresses(addresses);
        let wrong = |problem: &dyn std::fmt::Display| CniError::new(code::INVALID_CONFIG, problem.to_string());
        let found = tortie_kubernetes::pod(&pod, "cali").map_err(|error| wrong(&error))?;
        let Some(found) = found else {
            return Err(wrong(&"the pod shares its node's network, or runs on no node"));
        };
        // Limits that can't be read are left out and told of, as upstream does; what is asked of addresses is not.
        let asked = format!("metadata.annotations[{PREFIX}");
        if let Some(problem) = found.problems.iter().find(|problem| problem.field.starts_with(&asked)) {
            return Err(wrong(problem));
        }
        match found.resource {
            Resource::WorkloadEndpoint(endpoint) => Ok(*endpoint),
            other => Err(wrong(&format!("the pod became a {}", other.kind().name()))),
        }
    }
}

fn text<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    annotations.get(&format!("{PREFIX}{key}")).map(String::as_str).filter(|text| !text.is_empty())
}

fn wrong(key: &str, found: &str, expected: &str) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("the annotation {PREFIX}{key} is {found:?}: expected {expected}"))
}

fn list(key: &str, found: &str) -> Result<Vec<String>, CniError> {
    serde_json::from_str(found).map_err(|_| wrong(key, found, "a JSON list of texts, such as [\"a\", \"b\"]"))
}

fn families(found: &str) -> Result<Vec<Family>, CniError> {
    let expected = "a JSON list of \"IPv4\" and \"IPv6\"";
    let words: Vec<String> = serde_json::from_str(found).map_err(|_| wrong("ipFamilies", found, expected))?;
    let family = |word: &String| match word.as_str() {
        "IPv4" => Ok(Family::V4),
        "IPv6" => Ok(Family::V6),
        _ => Err(wrong("ipFamilies", found, expected)),
    };
    let mut families = words.iter().map(family).collect::<Result<Vec<_>, _>>()?;
    families.sort_unstable();
    families.dedup();
    if families.is_empty() { Err(wrong("ipFamilies", found, expected)) } else { Ok(families) }
}

fn addresses(key: &str, found: &str) -> Result<Vec<IpAddr>, CniError> {
    let expected = "a JSON list of addresses, such as [\"10.0.0.1\"]";
    let parsed: Result<Vec<IpAddr>, _> = list(key, found)?.iter().map(|text| text.parse()).collect();
    parsed.ok().filter(|list| !list.is_empty()).ok_or_else(|| wrong(key, found, expected))
}

fn mac(found: &str) -> Result<Mac, CniError> {
    let parsed = found.parse::<Mac>().ok();
    // An interface can't have the address of a group, and none has all zeros.
    parsed
        .filter(|Mac(bytes)| bytes[0] & 1 == 0 && *bytes != [0; 6])
        .ok_or_else(|| wrong("hwAddr", found, "the Ethernet address of one station, such as 02:00:00:00:00:01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"{"name":"n","cniVersion":"1.0.0","policy":{"type":"k8s"},"ipam":{"type":"calico-ipam"},
        "feature_control":{"ip_addrs_no_ipam":true,"floating_ips":true}}"#;

    fn of(pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> PodOf {
        let noted = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect()
        };
        let mut of = PodOf { namespace_annotations: noted(namespace), ..PodOf::default() };
        of.pod.metadata.annotations = noted(pod);
        of.pod.metadata.name = "p".to_owned();
        of.pod.metadata.namespace = "ns".to_owned();
        of.pod.spec.node_name = "n1".to_owned();
        of
    }

    fn read(conf: &str, pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> Result<Asked, CniError> {
        Asked::read(of(pod, namespace), &Conf::read(conf).expect("a good configuration"))
    }

    #[test]
    fn the_pods_annotations_go_before_the_namespaces() {
        let namespace = [("ipv4pools", r#"["a"]"#), ("ipv6pools", r#"["six"]"#), ("ipFamilies", r#"["IPv4","IPv6"]"#)];
        let configured = vec![(Family::V4, vec!["conf".to_owned()])];
        let asked = read(CONF, &[("ipv4pools", r#"["b","10.0.0.0/16"]"#)], &namespace).expect("good");
        let text = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let both = vec![(Family::V4, text(&["b", "10.0.0.0/16"])), (Family::V6, text(&["six"]))];
        assert_eq!(asked.families(configured.clone()), both);
        let asked = read(CONF, &[("ipFamilies", r#"["IPv6"]"#)], &namespace).expect("good");
        assert_eq!(asked.families(configured.clone()), vec![(Family::V6, text(&["six"]))]);
        let asked = read(CONF, &[], &[]).expect("good");
        assert_eq!(asked.families(configured.clone()), configured);
    }

    #[test]
    fn a_static_pod_is_meant_by_the_hash_that_it_mirrors() {
        let told = "0123456789abcdef0123456789abcdef";
        let mut pod = of(&[], &[]).pod;
        pod.metadata.uid = "30316465-6365-4463-ad63-3564622d3638".to_owned();
        assert!(is_meant(&pod, "") && is_meant(&pod, &pod.metadata.uid) && !is_meant(&pod, told));
        for key in STATIC {
            let mut mirror = pod.clone();
            mirror.metadata.annotations.insert(key.to_owned(), told.to_owned());
            assert!(is_meant(&mirror, told), "{key}");
            assert!(!is_meant(&mirror, "fedcba9876543210fedcba9876543210"), "{key}");
            let asked = Asked::read(PodOf { pod: mirror, ..of(&[], &[]) }, &Conf::read(CONF).expect("good"));
            assert_eq!(asked.expect("good").uid(), pod.metadata.uid);
        }
    }

    #[test]
    fn addresses_and_mac_are_read() {
        let asked = read(CONF, &[("ipAddrs", r#"["10.0.0.1","fd00::1"]"#), ("hwAddr", "02:11:22:33:44:55")], &[]);
        let asked = asked.expect("good");
        assert_eq!(asked.fixed.len(), 2);
        assert_eq!(asked.mac, Some(Mac([2, 0x11, 0x22, 0x33, 0x44, 0x55])));
        assert_eq!(read(CONF, &[("ipAddrsNoIpam", r#"["10.9.9.9"]"#)], &[]).expect("good").bare.len(), 1);
    }

    #[test]
    fn what_is_wrong_names_the_annotation() {
        let plain = r#"{"name":"n","cniVersion":"1.0.0","policy":{"type":"k8s"}}"#;
        let foreign = r#"{"name":"n","cniVersion":"1.0.0","policy":{"type":"k8s"},"ipam":{"type":"host-local"}}"#;
        for (conf, key, value, part) in [
            (CONF, "ipv4pools", "a", "JSON list"),
            (CONF, "ipFamilies", r#"["IPv5"]"#, "IPv6"),
            (CONF, "ipFamilies", "[]", "IPv6"),
            (CONF, "ipAddrs", r#"["10.0.0.300"]"#, "addresses"),
            (CONF, "ipAddrs", "[]", "addresses"),
            (CONF, "hwAddr", "01:00:00:00:00:01", "one station"),
            (CONF, "hwAddr", "x", "one station"),
            (plain, "ipAddrsNoIpam", r#"["10.0.0.1"]"#, "ip_addrs_no_ipam"),
            (plain, "floatingIPs", r#"["10.0.0.1"]"#, "floating_ips"),
            (foreign, "ipAddrs", r#"["10.0.0.1"]"#, "host-local"),
        ] {
            let error = read(conf, &[(key, value)], &[]).expect_err(value);
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(key) && error.msg.contains(part), "{error}");
        }
        let both = [("ipAddrs", r#"["10.0.0.1"]"#), ("ipAddrsNoIpam", r#"["10.0.0.2"]"#)];
        assert!(read(CONF, &both, &[]).expect_err("both").msg.contains("exclude each other"));
    }

    #[test]
    fn the_endpoint_has_what_the_pod_says() {
        let notes = [("floatingIPs", r#"["172.16.0.9"]"#), ("allowedSourcePrefixes", r#"["192.0.2.0/24"]"#)];
        let given = ["10.0.0.7".parse().expect("an address")];
        let endpoint = read(CONF, &notes, &[]).and_then(|asked| asked.endpoint(&given)).expect("good");
        assert_eq!(endpoint.spec.ip_nats.len(), 1);
        assert_eq!(endpoint.spec.ip_nats[0].internal_ip, "10.0.0.7");
        assert_eq!(endpoint.spec.allow_spoofed_source_prefixes.len(), 1);
        let asked = read(CONF, &[("allowedSourcePrefixes", r#"["192.0.2.0/244"]"#)], &[]).expect("not read yet");
        assert!(asked.endpoint(&given).expect_err("no prefix").msg.contains("allowedSourcePrefixes"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(key in "ipv4pools|ipFamilies|ipAddrs|ipAddrsNoIpam|hwAddr|floatingIPs", text in ".{0,60}") {
            let _ = read(CONF, &[(key.as_str(), text.as_str())], &[]);
        }
    }
}
