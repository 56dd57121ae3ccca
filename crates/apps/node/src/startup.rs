//! What a node does before it works: name, address, its Node resource, and the cluster's defaults.
//!
//! Everything is created only if absent and never overwritten, as several nodes start at once.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tortie_api::{
    Action, BgpConfiguration, BgpConfigurationSpec, ClusterInformation, ClusterInformationSpec, FelixConfiguration,
    IpPool, IpPoolSpec, IpamConfiguration, Kind, Metadata, Resource, Tier, TierSpec,
};
use tortie_facts::{Filter, Key, Value};
use tortie_net::{Family, IpNet};
use tortie_store::{Reader, Store, resource};
use tracing::{info, warn};

use crate::environment::{Encapsulation, Environment, PoolSettings};
use crate::register;

/// Name of the pool that is made for IPv4 when there is none.
const POOL4: &str = "default-ipv4-ippool";
/// Name of the pool that is made for IPv6 when there is none.
const POOL6: &str = "default-ipv6-ippool";

/// Which node this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the node, as its resource has it.
    pub name: String,
    /// Its IPv4 address with the prefix length of its subnet.
    pub ipv4: Option<IpNet>,
    /// Its IPv6 address with the prefix length of its subnet.
    pub ipv6: Option<IpNet>,
}

/// The node's name: `NODENAME`, else what was kept, else `HOSTNAME` or the host's name in lower case.
pub fn node_name(environment: &Environment) -> Result<String> {
    let kept = || std::fs::read_to_string(&environment.node_name_file).ok();
    let host = || nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().to_lowercase());
    let said = |name: Option<String>| name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let name = said(environment.node_name.clone())
        .or_else(|| said(kept()))
        .or_else(|| said(environment.host_name.clone()))
        .or_else(|| said(host()))
        .context("this node has no name: set NODENAME")?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-');
    if name.len() > 253 || !name.chars().all(good) || !name.split('.').all(label) {
        bail!(
            "the node's name {name:?} is no DNS name (lower-case letters, digits, '-' and '.'): \
             set NODENAME, for example to {:?}",
            name.to_lowercase().replace(|c: char| !good(c), "-").trim_matches(['-', '.'])
        );
    }
    Ok(name)
}

/// Keeps the node's name for other programs.
pub fn keep_node_name(environment: &Environment, name: &str) {
    let path: &Path = &environment.node_name_file;
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, name)
    };
    if let Err(error) = write() {
        warn!(path = %path.display(), %error, "the node's name can't be kept for other programs");
    }
}

/// Registers the node and makes the cluster's defaults.
pub fn run(store: &dyn Store, environment: &Environment, identity: &Identity) -> Result<()> {
    register::register(store, environment, identity)?;
    cluster(store, environment)?;
    tiers(store)?;
    configurations(store, identity)?;
    pools(store, environment, identity)
}

fn cluster(store: &dyn Store, environment: &Environment) -> Result<()> {
    let key = Key::resource(Kind::ClusterInformation, "", "default");
    let guid = uuid::Uuid::new_v4().simple().to_string();
    resource::update(store, &key, |stored| {
        let mut info = match stored {
            Some(Resource::ClusterInformation(info)) => (**info).clone(),
            _ => ClusterInformation {
                metadata: Metadata::named("default"),
                spec: ClusterInformationSpec { datastore_ready: Some(true), ..ClusterInformationSpec::default() },
            },
        };
        if info.spec.cluster_guid.is_empty() {
            info.spec.cluster_guid.clone_from(&guid);
        }
        // A newer version's nodes may be in the cluster already; upstream's count as newer.
        if !is_newer(&info.spec.calico_version, crate::VERSION) {
            info.spec.calico_version = crate::VERSION.to_owned();
        }
        let mut types: Vec<&str> = info.spec.cluster_type.split(',').filter(|t| !t.is_empty()).collect();
        for word in &environment.cluster_type {
            if !types.contains(&word.as_str()) {
                types.push(word);
            }
        }
        info.spec.cluster_type = types.join(",");
        info.into()
    })
    .context("can't write the ClusterInformation")?;
    Ok(())
}

/// Whether a stored version such as `v3.30.1` is newer than ours; one that can't be read is not.
fn is_newer(stored: &str, ours: &str) -> bool {
    let numbers = |text: &str| -> Option<[u32; 3]> {
        let core = text.strip_prefix('v').unwrap_or(text);
        let core = core.split(['-', '+']).next().unwrap_or_default();
        let mut parts = core.split('.').map(|part| part.parse().ok());
        let all = [parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?];
        parts.next().is_none().then_some(all)
    };
    matches!((numbers(stored), numbers(ours)), (Some(stored), Some(ours)) if stored > ours)
}

fn tiers(store: &dyn Store) -> Result<()> {
    for (name, order, action) in [
        ("default", 1_000_000.0, Action::Deny),
        ("kube-admin", 1_000.0, Action::Pass),
        ("kube-baseline", 10_000_000.0, Action::Pass),
    ] {
        let spec = TierSpec { order: Some(order), default_action: Some(action) };
        let tier = Tier { metadata: Metadata::named(name), spec, ..Tier::default() };
        resource::ensure(store, tier.into()).with_context(|| format!("can't create the tier {name}"))?;
    }
    Ok(())
}

fn configurations(store: &dyn Store, identity: &Identity) -> Result<()> {
    let mut felix = FelixConfiguration { metadata: Metadata::named("default"), ..FelixConfiguration::default() };
    felix.spec.log_severity_screen = "Info".to_owned();
    let own = format!("node.{}", identity.name);
    let mut node = FelixConfiguration { metadata: Metadata::named(own), ..FelixConfiguration::default() };
    node.spec.default_endpoint_to_host_action = "Return".to_owned();
    let bgp = BgpConfiguration { metadata: Metadata::named("default"), spec: BgpConfigurationSpec::default() };
    let mut ipam = IpamConfiguration { metadata: Metadata::named("default"), ..IpamConfiguration::default() };
    ipam.spec.auto_allocate_blocks = true;
    // The settings have two homes, as upstream's: what `calicoctl ipam configure` wrote before is kept.
    if let Some(entry) = Reader::get(store, &Key::IpamConfig)?
        && let Value::IpamConfig(stored) = &entry.value
    {
        ipam.spec.strict_affinity = stored.strict_affinity;
        ipam.spec.auto_allocate_blocks = stored.auto_allocate_blocks;
        ipam.spec.max_blocks_per_host = i32::try_from(stored.max_blocks_per_host).unwrap_or(i32::MAX);
        ipam.spec.ip_cooldown_seconds = i32::try_from(stored.ip_cooldown_seconds).unwrap_or(i32::MAX);
    }
    for resource in [Resource::from(felix), node.into(), bgp.into(), ipam.into()] {
        let what = format!("can't create the default {}", resource.kind().name());
        resource::ensure(store, resource).context(what)?;
    }
    Ok(())
}

fn pools(store: &dyn Store, environment: &Environment, identity: &Identity) -> Result<()> {
    if environment.no_default_pools {
        if environment.pool4.cidr.is_some() || environment.pool6.cidr.is_some() {
            bail!("NO_DEFAULT_POOLS is set, and so is CALICO_IPV4POOL_CIDR or CALICO_IPV6POOL_CIDR: unset one of them");
        }
        return Ok(());
    }
    let listing = store.list(&Filter::Kind(Kind::IpPool))?;
    let present: Vec<IpNet> = listing
        .entries
        .iter()
        .filter_map(|entry| match &**entry.value.as_resource()? {
            Resource::IpPool(pool) => pool.spec.cidr.net(),
            _ => None,
        })
        .collect();
    for pool in &present {
        if let Some(what) = overlap(*pool, identity, environment.service_address) {
            warn!(%pool, "a pool {what}: packets for those go astray");
        }
    }
    let has = |family| present.iter().any(|net| Family::of_net(*net) == family);
    if !environment.pool4.disabled && !has(Family::V4) {
        let cidr = environment.pool4.cidr.unwrap_or_else(|| default_pool4(identity.ipv4));
        free("CALICO_IPV4POOL_CIDR", cidr, identity, environment)?;
        make_pool(store, POOL4, cidr, &environment.pool4)?;
    }
    let wanted6 = environment.pool6.cidr.is_some() || identity.ipv6.is_some();
    if !environment.pool6.disabled && wanted6 && !has(Family::V6) {
        let cidr = environment.pool6.cidr.unwrap_or_else(unique_local_pool);
        free("CALICO_IPV6POOL_CIDR", cidr, identity, environment)?;
        make_pool(store, POOL6, cidr, &environment.pool6)?;
    }
    Ok(())
}

/// Refuses a pool that takes addresses which are in use already.
fn free(variable: &str, cidr: IpNet, identity: &Identity, environment: &Environment) -> Result<()> {
    match overlap(cidr, identity, environment.service_address) {
        None => Ok(()),
        Some(what) => bail!("the environment variable {variable}={cidr}: such a pool {what}; choose another range"),
    }
}

/// What of the cluster's own a pool takes, if it does.
fn overlap(pool: IpNet, identity: &Identity, service: Option<IpAddr>) -> Option<String> {
    for own in identity.ipv4.iter().chain(&identity.ipv6) {
        let net = own.trunc();
        if pool.contains(&net) || net.contains(&pool) {
            return Some(format!("overlaps {net}, the network of this host"));
        }
    }
    let service = service.filter(|service| pool.contains(service))?;
    Some(format!("has {service}, the address of the Kubernetes API (KUBERNETES_SERVICE_HOST), and with it Services"))
}

fn make_pool(store: &dyn Store, name: &str, cidr: IpNet, settings: &PoolSettings) -> Result<()> {
    use tortie_api::EncapMode;
    let mode = |encapsulation: Option<Encapsulation>| match encapsulation.unwrap_or(Encapsulation::Never) {
        Encapsulation::Never => EncapMode::Never,
        Encapsulation::Always => EncapMode::Always,
        Encapsulation::CrossSubnet => EncapMode::CrossSubnet,
    };
    let spec = IpPoolSpec {
        cidr: cidr.into(),
        ipip_mode: Some(mode(settings.ipip)),
        vxlan_mode: Some(mode(settings.vxlan)),
        nat_outgoing: settings.nat_outgoing.unwrap_or(Family::of_net(cidr) == Family::V4),
        block_size: settings.block_size,
        node_selector: settings.node_selector.clone().unwrap_or_else(|| "all()".to_owned()),
        disable_bgp_export: settings.disable_bgp_export,
        ..IpPoolSpec::default()
    };
    let mut pool = Resource::from(IpPool { metadata: Metadata::named(name), spec, ..IpPool::default() });
    pool.apply_defaults();
    if let Err(findings) = pool.validate() {
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        bail!("the default pool {name} can't be made from the environment: {}", text.join("; "));
    }
    if resource::ensure(store, pool).with_context(|| format!("can't create the pool {name}"))? {
        info!(name, %cidr, "created the default pool");
    }
    Ok(())
}

/// Upstream's default, or another private range when the host's own subnet lies inside it.
fn default_pool4(own: Option<IpNet>) -> IpNet {
    let overlaps = |pool: &IpNet| own.is_some_and(|own| pool.contains(&own.addr()) || own.contains(&pool.addr()));
    let candidates = std::iter::once("192.168.0.0/16".to_owned()).chain((16..32).map(|n| format!("172.{n}.0.0/16")));
    let mut nets = candidates.map(|text| text.parse().expect("a literal prefix"));
    nets.find(|net| !overlaps(net)).expect("a host's subnet overlaps one of the ranges at most")
}

/// A random prefix of 48 bits below fd00::/8 (RFC 4193).
fn unique_local_pool() -> IpNet {
    let random = uuid::Uuid::new_v4();
    let [a, b, c, d, e, ..] = *random.as_bytes();
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let addr = std::net::Ipv6Addr::new(word(0xfd, a), word(b, c), word(d, e), 0, 0, 0, 0, 0);
    IpNet::new(addr.into(), 48).expect("48 bits are few enough")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pool_avoids_the_hosts_own_subnet() {
        let pool = |own: &str| default_pool4(Some(own.parse().expect("a literal"))).to_string();
        assert_eq!(pool("10.0.0.1/24"), "192.168.0.0/16");
        assert_eq!(pool("192.168.13.31/24"), "172.16.0.0/16");
        assert_eq!(pool("192.0.0.1/8"), "172.16.0.0/16");
    }

    #[test]
    fn the_version_of_a_newer_cluster_stays() {
        for (stored, after) in [
            ("", crate::VERSION),
            ("v0.0.9", crate::VERSION),
            ("nonsense", crate::VERSION),
            ("v3.34.1-rc2", "v3.34.1-rc2"),
            ("3.30.0", "3.30.0"),
        ] {
            let store = tortie_store::MemoryStore::new();
            let mut info =
                ClusterInformation { metadata: Metadata::named("default"), spec: ClusterInformationSpec::default() };
            info.spec.calico_version = stored.to_owned();
            resource::ensure(&store, info.into()).expect("it is empty");
            cluster(&store, &environment()).expect("it can be written");
            let key = Key::resource(Kind::ClusterInformation, "", "default");
            let entry = Reader::get(&store, &key).expect("readable").expect("there");
            let Some(Resource::ClusterInformation(info)) = entry.value.as_resource().map(|r| &**r) else { panic!() };
            assert_eq!(info.spec.calico_version, after, "{stored}");
        }
    }

    #[test]
    fn a_generated_pool_is_unique_local() {
        let pool = unique_local_pool();
        assert!("fd00::/8".parse::<IpNet>().expect("a literal").contains(&pool));
        assert_ne!(pool, unique_local_pool());
    }

    fn environment() -> Environment {
        Environment::read(&std::collections::BTreeMap::new(), tortie_datastore::Felix::Last).expect("nothing is set")
    }

    #[test]
    fn the_nodes_name_is_the_first_that_is_said() {
        let file = std::env::temp_dir().join(format!("nodename-{}", std::process::id()));
        let name = |kept: Option<&str>, vars: &[(&str, &str)]| {
            let _ = std::fs::remove_file(&file);
            if let Some(kept) = kept {
                std::fs::write(&file, kept).expect("a writable folder");
            }
            let place = ("CALICO_NODENAME_FILE", file.to_str().expect("text"));
            let vars = vars.iter().chain([&place]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let environment = Environment::read(&vars.collect(), tortie_datastore::Felix::Last).expect("good");
            let name = node_name(&environment).expect("it has one");
            let _ = std::fs::remove_file(&file);
            name
        };
        let all = [("NODENAME", "told"), ("HOSTNAME", "HOST.example")];
        assert_eq!(name(Some("kept\n"), &all), "told");
        assert_eq!(name(Some("kept\n"), &all[1..]), "kept", "another HOSTNAME makes no other node of it");
        assert_eq!(name(Some("\n"), &all[1..]), "host.example");
        assert_eq!(name(None, &all[1..]), "host.example");
    }

    fn identity(name: &str, addr: &str) -> Identity {
        Identity { name: name.into(), ipv4: Some(addr.parse().expect("a literal")), ipv6: None }
    }

    #[test]
    fn nodes_that_start_at_the_same_time_on_an_empty_store_agree() {
        let store = tortie_store::MemoryStore::new();
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for number in 1..=8 {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    let identity = identity(&format!("node{number}"), &format!("10.0.0.{number}/24"));
                    barrier.wait();
                    run(store, &environment(), &identity).expect("the store works");
                });
            }
        });
        let count = |kind| store.list(&Filter::Kind(kind)).expect("it works").entries.len();
        assert_eq!((count(Kind::Node), count(Kind::IpPool), count(Kind::Tier)), (8, 1, 3));
        assert_eq!((count(Kind::ClusterInformation), count(Kind::FelixConfiguration)), (1, 9));
        // A second start changes nothing.
        let before = store.list(&Filter::All).expect("it works");
        run(&store, &environment(), &identity("node1", "10.0.0.1/24")).expect("the store works");
        assert_eq!(store.list(&Filter::All).expect("it works").revision, before.revision);
    }

    #[test]
    fn a_pool_takes_neither_the_hosts_network_nor_services() {
        let identity = identity("a", "10.1.2.3/24");
        let service = Some("10.96.0.1".parse().expect("a literal"));
        for (pool, part) in [
            ("10.0.0.0/8", Some("10.1.2.0/24")),
            ("10.1.2.128/25", Some("10.1.2.0/24")),
            ("10.64.0.0/10", Some("10.96.0.1")),
            ("192.168.0.0/16", None),
            ("fd00::/48", None),
        ] {
            let found = overlap(pool.parse().expect("a literal"), &identity, service);
            assert_eq!(found.is_some(), part.is_some(), "{pool}");
            assert!(found.is_none_or(|text| text.contains(part.unwrap_or_default())), "{pool}");
        }
        let mut environment = environment();
        environment.pool4.cidr = Some("10.1.0.0/16".parse().expect("a literal"));
        let store = tortie_store::MemoryStore::new();
        let error = run(&store, &environment, &identity).expect_err("it overlaps").to_string();
        assert!(error.contains("CALICO_IPV4POOL_CIDR") && error.contains("10.1.2.0/24"), "{error}");
    }

    #[test]
    fn a_newer_version_of_the_cluster_stays() {
        for (stored, newer) in [
            ("v3.30.1", true),
            ("v0.1.1", true),
            ("0.2", true),
            ("v0.1.0", false),
            ("v0.1.0-5-gabcdef", false),
            ("v0.0.9", false),
            ("master", false),
            ("", false),
        ] {
            assert_eq!(is_newer(stored, "v0.1.0"), newer, "{stored}");
        }
    }

    #[test]
    fn what_ipam_configure_wrote_is_kept_in_the_other_home() {
        let store = tortie_store::MemoryStore::new();
        let config = tortie_api::ipam::IpamConfig { strict_affinity: true, ..tortie_ipam::default_config() };
        store.put(Key::IpamConfig, Value::IpamConfig(config)).expect("it works");
        run(&store, &environment(), &identity("a", "10.0.0.1/24")).expect("it works");
        let entry = Reader::get(&store, &Key::resource(Kind::IpamConfiguration, "", "default")).expect("it works");
        let Some(Resource::IpamConfiguration(made)) =
            entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| (**r).clone())
        else {
            panic!("it was made")
        };
        assert!(made.spec.strict_affinity);
    }
}
