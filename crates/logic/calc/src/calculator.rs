//! The one place that passes answers from one question to the next.

// Who passes what to whom:
//
// WorkloadEndpoint --+--> local ---------+--> routes <-- IPPool, blocks, affinities
//                    |      |            |
//                    |      v            +--> endpoints of the tables <--+
//                    |   matching <-- policies, tiers --> tiers ---------+
//                    |      |                                            |
//                    |      v active policies     profiles <-- Profile --+
//                    |   rules' sets <----------------+
//                    v      v
// NetworkSet, HEP -> sets (who is in each) <-- labels of profiles
//
// HEP, the node's interfaces --> hosts --> host endpoints of the tables <-- matching, profiles
//
// Node, BGPPeer, BGPFilter, BGPConfiguration --> bgp <-- routes        FelixConfiguration --> config
//
// Node, IPPool, config --> tunnels --> remote (routes to other nodes) <-- blocks, IPPool
//
// Node, config --> wireguard <-- remote (who has which block)

mod flush;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_api::ipam::AffinityState;
use tortie_api::{Kind, Resource, StagedAction};
use tortie_desired::{Batch, EndpointId, Policy, PolicyId, PolicyKind, Profile, SetId, Settings};
use tortie_facts::{AffinityKey, Key, OwnerKind, Update, Value};
use tortie_kubernetes::staged_network_policy;
use tortie_net::IpNet;

use crate::active::Active;
use crate::batch::{Flushed, replace};
use crate::bgp::{self, Bgp, BgpSettings, PeerFacts, ServiceFacts};
use crate::config::{Config, Overrides, WorkloadSettings};
use crate::hosts::Hosts;
use crate::labels::Identity;
use crate::local::{Local, LocalEndpoint};
use crate::matching::Matching;
use crate::places::Places;
use crate::profiles::Profiles;
use crate::read::{self, PolicySource};
use crate::remote::{BlockFacts, Remote};
use crate::routes::Routes;
use crate::selectors::Selectors;
use crate::sets::{IpSets, ItemKey, ItemKind, service_name};
use crate::strings::Strings;
use crate::tunnels::Tunnels;
use crate::wireguard::Wireguard;

/// What one node should hold, worked out from facts as they change.
///
/// Feed it with [`Calculator::apply`] and take changes with [`Calculator::flush`]; nothing comes out before
/// [`Calculator::in_sync`]. Pure: no clock, no task, no error; what can't be used is told by [`Calculator::problems`].
#[derive(Debug)]
pub struct Calculator {
    node: Arc<str>,
    synced: bool,
    strings: Strings,
    selectors: Selectors,
    local: Local,
    hosts: Hosts,
    workload_settings: WorkloadSettings,
    /// The prefixes of services, by the BGPConfiguration for all nodes.
    services: BTreeSet<IpNet>,
    matching: Matching,
    profiles: Profiles,
    sets: IpSets,
    routes: Routes,
    remote: Remote,
    /// There with routes to workloads' addresses.
    places: Option<Places>,
    tunnels: Tunnels,
    wireguard: Wireguard,
    bgp: Bgp,
    config: Config,
    loose_sources: bool,
    active_policies: Active<PolicyId, Policy>,
    active_profiles: Active<Arc<str>, Profile>,
    flushed: Flushed,
    problems: BTreeMap<Key, Vec<String>>,
}

impl Calculator {
    /// A calculator for the node of this name, which knows nothing yet.
    pub fn new(node: &str, started_with: Overrides) -> Calculator {
        Calculator {
            node: Arc::from(node),
            synced: false,
            strings: Strings::default(),
            selectors: Selectors::default(),
            local: Local::default(),
            hosts: Hosts::default(),
            workload_settings: WorkloadSettings::default(),
            services: BTreeSet::new(),
            matching: Matching::default(),
            profiles: Profiles::default(),
            sets: IpSets::default(),
            routes: Routes::default(),
            remote: Remote::default(),
            places: started_with.workload_routes.unwrap_or(false).then(Places::default),
            tunnels: Tunnels::default(),
            wireguard: Wireguard::default(),
            bgp: Bgp::default(),
            config: Config::new(started_with),
            loose_sources: false,
            active_policies: Active::default(),
            active_profiles: Active::default(),
            flushed: Flushed::default(),
            problems: BTreeMap::new(),
        }
    }

    /// Takes one change of the facts. A repeated value changes nothing; a value of another kind than its key counts as
    /// absent.
    pub fn apply(&mut self, update: Update) {
        let Update { key, value, revision: _ } = update;
        let mut problems = Vec::new();
        match &key {
            Key::Resource { kind, namespace, name } => {
                let resource = value.as_ref().and_then(Value::as_resource).map(|resource| &**resource);
                let resource = resource.filter(|resource| resource.kind() == *kind);
                self.apply_resource(*kind, namespace, name, resource, &mut problems);
            }
            Key::Block(cidr) => {
                let cidr = cidr.trunc();
                let block = value.as_ref().and_then(Value::as_block).map(|block| BlockFacts::of(cidr, block));
                self.routes.set_block(cidr, block.as_ref().is_some_and(|block| block.is_of(&self.node)));
                if self.places.is_none() {
                    self.remote.set_block(cidr, block);
                }
            }
            Key::Affinity(AffinityKey { kind: OwnerKind::Host, owner, cidr }) if **owner == *self.node => {
                let confirmed = value
                    .as_ref()
                    .and_then(Value::as_affinity)
                    .is_some_and(|affinity| !affinity.deleted && affinity.state == AffinityState::Confirmed);
                self.routes.set_claim(cidr.trunc(), confirmed);
            }
            Key::Affinity(_) | Key::Handle(_) | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => {}
        }
        if problems.is_empty() {
            self.problems.remove(&key);
        } else {
            self.problems.insert(key, problems);
        }
    }

    /// Whether [`Calculator::set_interfaces`] matters: a host endpoint of this node is found by address.
    pub fn needs_interfaces(&self) -> bool {
        self.hosts.by_address()
    }

    /// Names of the host endpoints of this node, whether or not there is an interface for them.
    pub fn host_endpoints(&self) -> impl Iterator<Item = &Arc<str>> {
        self.hosts.names()
    }

    /// Takes the addresses of the node's own interfaces, by which host endpoints may be found. Interfaces of workloads
    /// are not to be among them.
    pub fn set_interfaces(&mut self, interfaces: BTreeMap<Arc<str>, BTreeSet<IpAddr>>) {
        self.hosts.set_interfaces(interfaces);
    }

    /// Takes whether the kernel's own check of workloads' IPv4 sources can't be relied upon.
    pub fn set_loose_sources(&mut self, loose: bool) {
        self.loose_sources = loose;
    }

    /// Says that the facts are complete for the first time. From here on [`Calculator::flush`] tells.
    pub fn in_sync(&mut self) {
        self.synced = true;
    }

    /// What changed since the last flush; before the first [`Calculator::in_sync`] nothing.
    pub fn flush(&mut self) -> Batch {
        let mut out = Batch::default();
        if !self.synced {
            return out;
        }
        let settings = self.config.settings(self.bgp.labels(&self.node), &self.services);
        let settings = Settings { loose_sources: self.loose_sources, ..settings };
        let workload_settings = self.config.workloads(self.bgp.labels(&self.node));
        if workload_settings != self.workload_settings {
            self.workload_settings = workload_settings;
            self.local.mark_all();
        }
        if settings != self.flushed.settings {
            self.flushed.settings = settings.clone();
            out.settings = Some(settings);
        }
        for (id, body) in self.matching.take_policies(&mut self.selectors) {
            if let Some(told) = self.active_policies.settle(&id, body, &mut self.sets) {
                let table = if id.kind.staged() { &mut out.staged } else { &mut out.policies };
                table.insert(id, told);
            }
        }
        for (name, body) in self.profiles.take_dirty(&self.sets, &mut self.selectors) {
            if let Some(told) = self.active_profiles.settle(&name, body, &mut self.sets) {
                out.profiles.insert(name, told);
            }
        }
        out.sets = self.sets.flush();
        self.flush_all_hosts(&mut out);
        self.flush_endpoints(&mut out);
        let mut news = self.bgp.is_dirty();
        if let Some(now) = self.routes.take(&self.local) {
            out.pools = replace(&mut self.flushed.pools, now.pools);
            out.routes = replace(&mut self.flushed.routes, now.routes);
            self.flushed.workload_announcements = now.announcements;
            news = true;
        }
        self.flush_remote(&mut out);
        if news {
            self.flush_bgp(&mut out);
        }
        self.selectors.forget();
        out
    }

    /// What could not be used as written, by the fact that holds it: unreadable values, parts that are not supported
    /// yet, policies of a tier that is missing. Nothing of this opens a path.
    pub fn problems(&self) -> BTreeMap<Key, Vec<String>> {
        let mut out = self.problems.clone();
        for (id, tier) in self.matching.without_tier() {
            let kind = match id.kind {
                PolicyKind::GlobalNetworkPolicy => Kind::GlobalNetworkPolicy,
                PolicyKind::KubernetesClusterNetworkPolicy => Kind::KubernetesClusterNetworkPolicy,
                PolicyKind::KubernetesNetworkPolicy => Kind::KubernetesNetworkPolicy,
                PolicyKind::NetworkPolicy => Kind::NetworkPolicy,
                PolicyKind::StagedGlobalNetworkPolicy => Kind::StagedGlobalNetworkPolicy,
                PolicyKind::StagedKubernetesNetworkPolicy => Kind::StagedKubernetesNetworkPolicy,
                PolicyKind::StagedNetworkPolicy => Kind::StagedNetworkPolicy,
            };
            let line = format!("spec.tier: there is no tier {tier:?}; the policy applies after all tiers that exist");
            out.entry(Key::resource(kind, &id.namespace, &id.name)).or_default().push(line);
        }
        if !self.workload_settings.source_spoofing {
            let unheeded = self.local.iter().filter(|(_, endpoint)| !endpoint.allowed_sources.is_empty());
            for (id, _) in unheeded {
                let line =
                    "spec.allowSpoofedSourcePrefixes: not heeded, as workloadSourceSpoofing is not Any".to_owned();
                out.entry(Key::resource(Kind::WorkloadEndpoint, &id.namespace, &id.name)).or_default().push(line);
            }
        }
        for (key, line) in self.bgp.problems() {
            out.entry(key).or_default().push(line);
        }
        let blocks = self.config.cluster_routes(self.bgp.labels(&self.node));
        for (pool, line) in self.routes.unrouted(blocks, self.bgp.cluster_routes(&self.node)) {
            out.entry(Key::resource(Kind::IpPool, "", pool)).or_default().push(line);
        }
        out
    }

    /// What an active set holds, for people: its selector, and the port's name if it is a set of ports.
    pub fn describe_set(&self, id: &SetId) -> Option<String> {
        self.sets.describe(id)
    }

    fn apply_resource(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        resource: Option<&Resource>,
        problems: &mut Vec<String>,
    ) {
        /// The resource as its own kind; the caller made sure that it is of this kind.
        macro_rules! this {
            ($variant:ident) => {
                match resource {
                    Some(Resource::$variant(found)) => Some(&**found),
                    _ => None,
                }
            };
        }
        let strings = &mut self.strings;
        match kind {
            Kind::WorkloadEndpoint => self.apply_workload(namespace, name, this!(WorkloadEndpoint), problems),
            Kind::HostEndpoint => self.apply_host(name, this!(HostEndpoint), problems),
            Kind::NetworkSet => {
                let set = this!(NetworkSet).map(|set| (&set.metadata, &set.spec.nets));
                let item = set.map(|(metadata, nets)| read::network_set(metadata, nets, problems));
                self.sets.set_item(&ItemKey { kind: ItemKind::NetworkSet, namespace, name }, item);
            }
            Kind::GlobalNetworkSet => {
                let set = this!(GlobalNetworkSet).map(|set| (&set.metadata, &set.spec.nets));
                let item = set.map(|(metadata, nets)| read::network_set(metadata, nets, problems));
                self.sets.set_item(&ItemKey { kind: ItemKind::GlobalNetworkSet, namespace: "", name }, item);
            }
            Kind::NetworkPolicy => {
                let source = this!(NetworkPolicy).map(|p| PolicySource::namespaced(&p.metadata, &p.spec));
                self.apply_policy(PolicyKind::NetworkPolicy, namespace, name, source, problems);
            }
            Kind::GlobalNetworkPolicy => {
                let source = this!(GlobalNetworkPolicy).map(|p| PolicySource::global(&p.spec));
                self.apply_policy(PolicyKind::GlobalNetworkPolicy, "", name, source, problems);
            }
            Kind::KubernetesNetworkPolicy => {
                let source = this!(KubernetesNetworkPolicy).map(|p| PolicySource::namespaced(&p.metadata, &p.spec));
                self.apply_policy(PolicyKind::KubernetesNetworkPolicy, namespace, name, source, problems);
            }
            Kind::KubernetesClusterNetworkPolicy => {
                let source = this!(KubernetesClusterNetworkPolicy).map(|p| PolicySource::global(&p.spec));
                self.apply_policy(PolicyKind::KubernetesClusterNetworkPolicy, "", name, source, problems);
            }
            Kind::StagedNetworkPolicy => {
                let source = this!(StagedNetworkPolicy).and_then(PolicySource::staged);
                self.apply_policy(PolicyKind::StagedNetworkPolicy, namespace, name, source, problems);
            }
            Kind::StagedGlobalNetworkPolicy => {
                let source = this!(StagedGlobalNetworkPolicy).and_then(|p| PolicySource::staged_global(&p.spec));
                self.apply_policy(PolicyKind::StagedGlobalNetworkPolicy, "", name, source, problems);
            }
            Kind::StagedKubernetesNetworkPolicy => {
                self.apply_staged_kubernetes(namespace, name, this!(StagedKubernetesNetworkPolicy), problems);
            }
            Kind::KubernetesEndpointSlice => {
                let here = self.config.started_with.kubernetes_node.as_ref().unwrap_or(&self.node);
                let slice = this!(KubernetesEndpointSlice).map(|slice| read::slice(slice, here));
                if self.sets.set_slice(&strings.get(namespace), name, slice) {
                    self.bgp.mark_services();
                }
            }
            Kind::Tier => self.matching.set_tier(name, this!(Tier).map(read::tier)),
            Kind::Profile => self.apply_profile(name, this!(Profile), problems),
            Kind::IpPool => {
                let pool = this!(IpPool).and_then(|pool| read::pool(pool, problems));
                if self.routes.set_pool(name, pool) {
                    self.remote.mark_all();
                }
            }
            Kind::Node => {
                let node = this!(Node);
                self.bgp.set_node(name, node.map(|node| read::node(node, problems)));
                self.tunnels.set_node(name, node.map(|node| read::node_ends(node, problems)));
                self.wireguard.set_node(name, node.map(|node| read::wireguard_sides(node, problems)));
            }
            Kind::BgpPeer => {
                self.bgp.set_peer(name, this!(BgpPeer).map(|peer| PeerFacts::of(peer, problems)));
            }
            Kind::BgpConfiguration => {
                if name == "default" {
                    self.services =
                        this!(BgpConfiguration).map(|config| read::service_nets(&config.spec)).unwrap_or_default();
                }
                let settings = this!(BgpConfiguration).map(|config| BgpSettings::of(config, problems));
                self.bgp.set_settings(name, settings);
            }
            Kind::BgpFilter => {
                let filter = this!(BgpFilter).map(|filter| bgp::filter(name, &filter.spec, problems));
                self.bgp.set_filter(name, filter);
            }
            Kind::FelixConfiguration => self.config.set(&self.node, name, this!(FelixConfiguration), problems),
            Kind::KubernetesService => {
                let service = this!(KubernetesService).and_then(ServiceFacts::of);
                self.bgp.set_service(&service_name(namespace, name), service);
            }
            // They concern other processes.
            Kind::IpReservation
            | Kind::IpamConfiguration
            | Kind::IpamBlock
            | Kind::IpamHandle
            | Kind::BlockAffinity
            | Kind::ClusterInformation
            | Kind::KubeControllersConfiguration
            | Kind::CalicoNodeStatus => {}
        }
    }

    fn apply_workload(
        &mut self,
        namespace: &str,
        name: &str,
        wep: Option<&tortie_api::WorkloadEndpoint>,
        problems: &mut Vec<String>,
    ) {
        let item = wep.and_then(|wep| read::workload(&mut self.strings, wep, problems));
        if let Some(places) = &mut self.places {
            let place = wep
                .zip(item.as_ref())
                .map(|(wep, item)| (self.strings.get(&wep.spec.node), item.nets.iter().map(IpNet::addr).collect()));
            for (address, node) in places.set((self.strings.get(namespace), name.into()), place) {
                self.remote.set_block(IpNet::from(address), node.map(BlockFacts::single));
            }
        }
        let mine = wep.filter(|wep| wep.spec.node == *self.node).zip(item.as_ref());
        let endpoint = mine.and_then(|(wep, item)| read::local(&mut self.strings, wep, item, problems));
        if endpoint.is_some() || self.local.may_have(name) {
            let id = EndpointId { namespace: self.strings.get(namespace), name: Arc::from(name) };
            let identity = endpoint.as_ref().and(item.as_ref()).map(|item| &item.identity);
            let old = self.local.get(&id).map(|old| old.profiles.clone()).unwrap_or_default();
            self.select(&id, identity, &old);
            self.set_local(&id, endpoint, &old);
        }
        self.sets.set_item(&ItemKey { kind: ItemKind::Workload, namespace, name }, item);
    }

    fn set_local(&mut self, id: &EndpointId, endpoint: Option<LocalEndpoint>, old: &[Arc<str>]) {
        let new = endpoint.as_ref().map(|endpoint| endpoint.profiles.clone()).unwrap_or_default();
        if self.local.set(id, endpoint) {
            self.routes.mark();
            self.bgp.mark();
            self.profiles.set_user(id, old, &new);
        }
    }

    /// Tells `matching` of a local endpoint. Labels of profiles are told to it while a local endpoint inherits them.
    fn select(&mut self, id: &EndpointId, identity: Option<&Identity<'_>>, old_profiles: &[Arc<str>]) {
        for name in identity.into_iter().flat_map(|identity| &identity.parents) {
            if !self.matching.inherits(name) {
                self.matching.set_parent(name, self.sets.lent(name).as_ref());
            }
        }
        self.matching.set_endpoint(id, identity);
        for name in old_profiles.iter().filter(|name| !self.matching.inherits(name)).cloned().collect::<Vec<_>>() {
            self.matching.set_parent(&name, None);
        }
    }

    fn apply_host(&mut self, name: &str, hep: Option<&tortie_api::HostEndpoint>, problems: &mut Vec<String>) {
        let item = hep.map(|hep| read::host(&mut self.strings, hep, problems));
        let mine = hep.filter(|hep| hep.spec.node == *self.node).zip(item.as_ref());
        let endpoint = mine.and_then(|(hep, item)| read::local_host(&mut self.strings, hep, item, problems));
        let identity = endpoint.as_ref().and(mine).map(|(_, item)| &item.identity);
        let id = EndpointId { namespace: Arc::from(""), name: Arc::from(name) };
        let old = self.hosts.get(name).map(|old| old.profiles.clone()).unwrap_or_default();
        let new = endpoint.as_ref().map(|endpoint| endpoint.profiles.clone()).unwrap_or_default();
        self.hosts.set(&id.name, endpoint);
        self.profiles.set_user(&id, &old, &new);
        self.select(&id, identity, &old);
        self.sets.set_item(&ItemKey { kind: ItemKind::Host, namespace: "", name }, item);
    }

    fn apply_policy(
        &mut self,
        kind: PolicyKind,
        namespace: &str,
        name: &str,
        source: Option<PolicySource<'_>>,
        problems: &mut Vec<String>,
    ) {
        let id = PolicyId { name: Arc::from(name), namespace: self.strings.get(namespace), kind };
        let facts = source.and_then(|source| source.read(&id, &mut self.strings, &mut self.selectors, problems));
        self.matching.set_policy(&id, facts);
    }

    fn apply_staged_kubernetes(
        &mut self,
        namespace: &str,
        name: &str,
        policy: Option<&tortie_api::StagedKubernetesNetworkPolicy>,
        problems: &mut Vec<String>,
    ) {
        let heeded = policy.filter(|policy| policy.spec.staged_action != Some(StagedAction::Delete));
        let converted = heeded.map(|policy| (&policy.metadata, staged_network_policy(&policy.spec)));
        problems.extend(converted.iter().flat_map(|(_, (_, found))| found.iter().cloned()));
        let source = converted.as_ref().map(|(metadata, (spec, _))| PolicySource::namespaced(metadata, spec));
        self.apply_policy(PolicyKind::StagedKubernetesNetworkPolicy, namespace, name, source, problems);
    }

    fn apply_profile(&mut self, name: &str, profile: Option<&tortie_api::Profile>, problems: &mut Vec<String>) {
        let labels = profile.map(read::lent_labels);
        let had = self.sets.profile(name);
        self.sets.set_parent(name, labels.as_ref());
        if self.matching.inherits(name) {
            self.matching.set_parent(name, labels.as_ref());
        }
        let rules = profile.map(|profile| read::profile(profile, &mut self.selectors, problems));
        let uses = |endpoint: &LocalEndpoint| endpoint.profiles.iter().any(|used| **used == *name);
        if self.bgp.selects_workloads() && self.local.iter().any(|(_, endpoint)| uses(endpoint)) {
            self.bgp.mark();
        }
        let number = self.sets.profile(name).or(had);
        let users: BTreeSet<EndpointId> = self.profiles.set(number, name, rules).into_iter().collect();
        self.local.mark(users);
    }
}
