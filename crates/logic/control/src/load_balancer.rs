//! Load-balancer addresses of services: which a service should have, and what is done next so that it has them.
//!
//! Decided anew from each picture: an address is given out, and only once a picture shows it, the service's status tells
//! it. A process that dies in between leaves nothing that the next does not find.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use tortie_api::kinds::AssignIps;
use tortie_api::{IpPoolAllowedUse, KubernetesService};
use tortie_ipam::{Claimed, Owner, Pool, block};
use tortie_net::Family;

use crate::ledger::{Allocation, Ledger};

/// The class by which a service asks for addresses of ours.
const CLASS: &str = "calico";
const POOLS: [(Family, &str); 2] =
    [(Family::V4, "projectcalico.org/ipv4pools"), (Family::V6, "projectcalico.org/ipv6pools")];
const ADDRESSES: &str = "projectcalico.org/loadBalancerIPs";

/// A service by its namespace and name.
pub type ServiceName = (String, String);

/// What is to be done for a service; one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Addresses that it must not keep.
    Release(Vec<Claimed>),
    /// Exactly this address.
    AssignAt(IpAddr),
    /// Any address of a family, out of these ranges if there are some.
    Assign(Family, Vec<IpNet>),
    /// The addresses that its status is to tell.
    Tell(Vec<IpAddr>),
}

/// The addresses that each handle holds for services, with the service that is recorded.
#[derive(Clone, Debug, Default)]
pub struct Given {
    by_handle: BTreeMap<String, (ServiceName, Vec<Allocation>)>,
}

impl Given {
    /// What the blocks of load-balancer addresses tell.
    pub fn new(ledger: &Ledger) -> Given {
        let mut given = Given::default();
        for (one, attribute) in ledger.allocations() {
            let owner = ledger.blocks.get(&one.block).and_then(|found| block::owner(found));
            let recorded = |name: &str| attribute.secondary.get(name).cloned();
            let (Some(namespace), Some(service)) = (recorded("namespace"), recorded("service")) else { continue };
            if owner == Some(Owner::load_balancer()) {
                let entry = given.by_handle.entry(one.handle.clone());
                entry.or_insert_with(|| ((namespace, service), Vec::new())).1.push(one);
            }
        }
        given
    }

    fn of(&self, handle: &str) -> &[Allocation] {
        self.by_handle.get(handle).map_or(&[], |(_, held)| held)
    }

    /// What is held for services other than these, by handle.
    pub fn abandoned<'a>(
        &self,
        services: impl IntoIterator<Item = &'a KubernetesService>,
    ) -> Vec<(ServiceName, Vec<Claimed>)> {
        let known: BTreeSet<String> = services.into_iter().map(handle).collect();
        let gone = self.by_handle.iter().filter(|(handle, _)| !known.contains(*handle));
        gone.map(|(_, (name, held))| (name.clone(), held.iter().map(claimed).collect())).collect()
    }
}

fn claimed(one: &Allocation) -> Claimed {
    let Allocation { block: _, address, handle, sequence } = one;
    Claimed { address: *address, handle: Some(handle.clone()), sequence: Some(*sequence) }
}

/// The handle of a service's addresses, as upstream makes it of name, namespace and identity.
pub fn handle(service: &KubernetesService) -> String {
    let meta = &service.metadata;
    let text = format!("{}-{}-{}", meta.name, meta.namespace, meta.uid).to_lowercase();
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(text));
    format!("lb-{}", hash.replace(['-', '_', '.'], ""))
}

/// Whether a service gets its load-balancer addresses here.
pub fn is_ours(service: &KubernetesService, which: AssignIps) -> bool {
    let spec = &service.spec;
    let asks = || {
        let named = POOLS.map(|(_, name)| name).into_iter().chain([ADDRESSES]);
        let text = |name: &str| service.metadata.annotations.get(name).is_some_and(|text| !text.is_empty());
        !spec.load_balancer_ip.is_empty() || named.into_iter().any(text)
    };
    spec.service_type == "LoadBalancer"
        && match (spec.load_balancer_class.as_str(), which) {
            (CLASS, _) | ("", AssignIps::AllServices) => true,
            ("", AssignIps::RequestedServicesOnly) => asks(),
            (_, _) => false,
        }
}

/// What a service asks for in annotations.
#[derive(Debug, Default)]
struct Asked {
    addresses: Option<BTreeSet<IpAddr>>,
    pools: BTreeMap<Family, Vec<IpNet>>,
}

fn list(name: &str, text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("annotation {name}: {text:?}: expected a JSON list of texts, such as [\"10.0.0.0/24\"]");
    serde_json::from_str(text).map_err(|_| wrong())
}

impl Asked {
    fn read(service: &KubernetesService, pools: &[Pool]) -> Result<Asked, String> {
        let annotation = |name: &str| service.metadata.annotations.get(name).map(String::as_str);
        let mut asked = Asked::default();
        for (family, name) in POOLS {
            let Some(text) = annotation(name) else { continue };
            let mut nets = Vec::new();
            for one in list(name, text)? {
                let named = pools.iter().find(|pool| pool.name == one).map(|pool| pool.cidr);
                let net = named.or_else(|| one.parse().ok()).filter(|net| Family::of_net(*net) == family);
                let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
                nets.push(net.ok_or_else(|| {
                    format!("annotation {name}: {one:?}: expected a range or one of the pools {}", names.join(", "))
                })?);
            }
            asked.pools.insert(family, nets);
        }
        let fixed = match annotation(ADDRESSES) {
            Some(text) => Some((ADDRESSES, list(ADDRESSES, text)?)),
            None if !service.spec.load_balancer_ip.is_empty() => {
                Some(("spec.loadBalancerIP", vec![service.spec.load_balancer_ip.clone()]))
            }
            None => None,
        };
        if let Some((name, texts)) = fixed {
            let parse =
                |text: &String| text.parse::<IpAddr>().map_err(|_| format!("{name}: {text:?}: expected an IP address"));
            let all = texts.iter().map(parse).collect::<Result<BTreeSet<_>, _>>()?;
            if Family::ALL.iter().any(|family| all.iter().filter(|ip| Family::of(**ip) == *family).count() > 1) {
                return Err(format!("{name}: {texts:?}: expected one address of a family at most"));
            }
            asked.addresses = Some(all);
        }
        Ok(asked)
    }

    /// Whether the service may keep an address.
    fn allows(&self, address: IpAddr, pools: &[Pool]) -> bool {
        if let Some(addresses) = &self.addresses {
            return addresses.contains(&address);
        }
        match self.pools.get(&Family::of(address)) {
            Some(nets) => nets.iter().any(|net| net.contains(&address)),
            None => !pools.iter().any(|pool| pool.manual && pool.cidr.contains(&address)),
        }
    }
}

/// What is next for a service: the first of these that can be done. None when all is as it should be. `pools`: all pools.
///
/// # Errors
/// Why the service gets no address: a sentence that names the annotation, or that there is no pool.
pub fn next(service: &KubernetesService, which: AssignIps, given: &Given, pools: &[Pool]) -> Result<Vec<Task>, String> {
    let handle = handle(service);
    let held = given.of(&handle);
    let usable: Vec<Pool> =
        pools.iter().filter(|pool| pool.uses.contains(&IpPoolAllowedUse::LoadBalancer)).cloned().collect();
    if !is_ours(service, which) || usable.is_empty() {
        if !held.is_empty() {
            return Ok(vec![Task::Release(held.iter().map(claimed).collect())]);
        }
        if is_ours(service, which) {
            return Err("no IPPool has LoadBalancer among its allowedUses".to_owned());
        }
        return Ok(Vec::new());
    }
    let asked = Asked::read(service, &usable)?;
    let wrong: Vec<Claimed> = held.iter().filter(|one| !asked.allows(one.address, &usable)).map(claimed).collect();
    if !wrong.is_empty() {
        return Ok(vec![Task::Release(wrong)]);
    }
    let has: BTreeSet<IpAddr> = held.iter().map(|one| one.address).collect();
    let mut tasks: Vec<Task> = match &asked.addresses {
        Some(addresses) => addresses.difference(&has).map(|address| Task::AssignAt(*address)).collect(),
        None => {
            let missing = |family: &Family| !has.iter().any(|ip| Family::of(*ip) == *family);
            let pools = |family: &Family| asked.pools.get(family).cloned().unwrap_or_default();
            let families = families(service).into_iter().filter(missing);
            families.map(|family| Task::Assign(family, pools(&family))).collect()
        }
    };
    // Where one family has no address, the other's is told all the same.
    tasks.extend(untold(service, &has));
    Ok(tasks)
}

/// The task of telling the addresses, unless the status tells them.
pub fn untold(service: &KubernetesService, has: &BTreeSet<IpAddr>) -> Option<Task> {
    let told: BTreeSet<IpAddr> = service.spec.load_balancer_ingress.iter().filter_map(|ip| ip.parse().ok()).collect();
    (told != *has || told.len() != service.spec.load_balancer_ingress.len())
        .then(|| Task::Tell(has.iter().copied().collect()))
}

/// The addresses that the status of a service tells without these.
pub fn without(service: &KubernetesService, gone: &[Claimed]) -> Vec<IpAddr> {
    let told = service.spec.load_balancer_ingress.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    told.filter(|ip| !gone.iter().any(|one| one.address == *ip)).collect()
}

/// The families of a service: those of its addresses inside the cluster.
fn families(service: &KubernetesService) -> Vec<Family> {
    let inside = service.spec.cluster_ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    inside.map(Family::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::{KubernetesServiceSpec, Metadata};

    fn service(class: &str, annotations: &[(&str, &str)]) -> KubernetesService {
        let mut metadata = Metadata::in_namespace("shop", "web");
        metadata.uid = "30316465-6365-4463-ad63-3564622d3638".into();
        metadata.annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let spec = KubernetesServiceSpec {
            service_type: "LoadBalancer".into(),
            cluster_ips: vec!["10.96.0.7".into(), "fd00:96::7".into()],
            load_balancer_class: class.into(),
            ..KubernetesServiceSpec::default()
        };
        KubernetesService { metadata, spec }
    }

    fn pool(name: &str, cidr: &str, manual: bool) -> Pool {
        Pool {
            name: name.into(),
            cidr: cidr.parse().expect("a prefix"),
            block_size: if cidr.contains(':') { 122 } else { 26 },
            node_selector: String::new(),
            namespace_selector: String::new(),
            uses: vec![IpPoolAllowedUse::LoadBalancer],
            manual,
            closed: None,
        }
    }

    /// The addresses as blocks would tell them.
    fn holding(service: &KubernetesService, addresses: &[&str]) -> Given {
        let handle = handle(service);
        let one = |address: &&str| Allocation {
            block: "10.0.0.0/26".parse().expect("a prefix"),
            address: address.parse().expect("an address"),
            handle: handle.clone(),
            sequence: 7,
        };
        let name = (service.metadata.namespace.clone(), service.metadata.name.clone());
        Given { by_handle: [(handle.clone(), (name, addresses.iter().map(one).collect()))].into() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_handle_is_upstreams() {
        // By coreutils: printf web-shop-… | sha256sum, in base64url, without '-' and '_'.
        assert_eq!(handle(&service("", &[])), "lb-erAmvRVHNNkzGUg1P2GOPB4HAGrcNF2Xhpv45VxUYbk");
    }

    #[test]
    fn services_of_other_classes_are_left_alone() {
        let asks = [(ADDRESSES, "[\"10.0.0.1\"]")];
        for (class, annotations, all, requested) in [
            ("", &[][..], true, false),
            ("", &asks[..], true, true),
            (CLASS, &[][..], true, true),
            ("other", &asks[..], false, false),
        ] {
            let one = service(class, annotations);
            let found = [AssignIps::AllServices, AssignIps::RequestedServicesOnly].map(|which| is_ours(&one, which));
            assert_eq!(found, [all, requested], "{class} {annotations:?}");
        }
        let mut inside = service(CLASS, &[]);
        inside.spec.service_type = "ClusterIP".into();
        assert!(!is_ours(&inside, AssignIps::AllServices));
    }

    #[test]
    fn each_family_gets_an_address_and_then_the_status_tells_them() {
        let pools = [pool("four", "10.0.0.0/24", false), pool("six", "fd00:1::/112", false)];
        let all = AssignIps::AllServices;
        let mut one = service("", &[]);
        let step = |one: &KubernetesService, held: &[&str]| next(one, all, &holding(one, held), &pools);
        let [four, six] = Family::ALL.map(|family| Task::Assign(family, vec![]));
        assert_eq!(step(&one, &[]), Ok(vec![four, six.clone()]));
        assert_eq!(step(&one, &["10.0.0.1"]), Ok(vec![six.clone(), Task::Tell(vec![ip("10.0.0.1")])]));
        one.spec.load_balancer_ingress = vec!["10.0.0.1".to_owned()];
        assert_eq!(step(&one, &["10.0.0.1"]), Ok(vec![six]));
        let both = ["10.0.0.1", "fd00:1::1"];
        assert_eq!(step(&one, &both), Ok(vec![Task::Tell(both.map(ip).to_vec())]));
        one.spec.load_balancer_ingress = both.map(str::to_owned).to_vec();
        assert_eq!(step(&one, &both), Ok(vec![]));
        one.spec.service_type = "ClusterIP".into();
        assert!(matches!(&step(&one, &both).expect("it can be read")[..], [Task::Release(gone)] if gone.len() == 2));
        assert!(next(&service("", &[]), all, &Given::default(), &[]).is_err_and(|text| text.contains("allowedUses")));
    }

    #[test]
    fn annotations_choose_addresses_and_pools() {
        let pools = [pool("four", "10.0.0.0/24", false), pool("more", "10.1.0.0/24", true)];
        let all = AssignIps::AllServices;
        let step = |one: &KubernetesService, held: &[&str]| next(one, all, &holding(one, held), &pools);
        let first =
            |one: &KubernetesService, held: &[&str]| step(one, held).expect("it can be read").into_iter().next();
        let fixed = service("", &[(ADDRESSES, "[\"10.0.0.9\"]")]);
        assert_eq!(first(&fixed, &[]), Some(Task::AssignAt(ip("10.0.0.9"))));
        assert!(matches!(first(&fixed, &["10.0.0.8"]), Some(Task::Release(gone)) if gone[0].sequence == Some(7)));
        let two = service("", &[(ADDRESSES, "[\"10.0.0.9\",\"fd00:1::9\"]")]);
        assert_eq!(step(&two, &[]), Ok(["10.0.0.9", "fd00:1::9"].map(|one| Task::AssignAt(ip(one))).to_vec()));
        let mut chosen = service("", &[(POOLS[0].1, "[\"more\"]")]);
        chosen.spec.cluster_ips.pop();
        assert_eq!(first(&chosen, &[]), Some(Task::Assign(Family::V4, vec![pools[1].cidr])));
        assert!(matches!(first(&chosen, &["10.0.0.8"]), Some(Task::Release(_))), "of another pool");
        assert!(matches!(first(&chosen, &["10.1.0.8"]), Some(Task::Tell(_))));
        let mut plain = service("", &[]);
        plain.spec.cluster_ips.pop();
        assert!(matches!(first(&plain, &["10.1.0.8"]), Some(Task::Release(_))), "a manual pool was not asked for");
        for (name, text) in [
            (ADDRESSES, "[\"x\"]"),
            (ADDRESSES, "[\"10.0.0.1\",\"10.0.0.2\"]"),
            (ADDRESSES, "10.0.0.1"),
            (POOLS[0].1, "[\"none\"]"),
            (POOLS[1].1, "[\"four\"]"),
        ] {
            let error = step(&service("", &[(name, text)]), &[]).expect_err("it can't be read");
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_is_held_for_services_that_are_gone_is_found() {
        let one = service("", &[]);
        let given = holding(&one, &["10.0.0.1"]);
        assert_eq!(given.abandoned([&one]), []);
        let mut other = one.clone();
        other.metadata.uid = "another".into();
        let found = given.abandoned([&other]);
        assert_eq!((found.len(), found[0].1[0].address), (1, ip("10.0.0.1")), "a service made again is another one");
        assert_eq!(
            without(
                &KubernetesService {
                    spec: KubernetesServiceSpec {
                        load_balancer_ingress: vec!["10.0.0.1".into(), "192.0.2.1".into()],
                        ..one.spec.clone()
                    },
                    ..one
                },
                &found[0].1
            ),
            [ip("192.0.2.1")]
        );
    }
}
