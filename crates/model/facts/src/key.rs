//! The identity of a fact, and its text form: upstream's etcd key.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use tortie_api::Kind;
use tortie_net::Family;

use crate::Foreign;

pub(crate) const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const BLOCKS: &str = "/calico/ipam/v2/assignment/";
const IPAM: &str = "/calico/ipam/v2/";
const HANDLES: &str = "/calico/ipam/v2/handle/";
const IPAM_CONFIG: &str = "/calico/ipam/v2/config";
const STATUS: &str = "/calico/felix/";

/// Who holds an affinity for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    /// A node.
    Host,
    /// Something that is no node, such as the load-balancer addresses.
    Virtual,
}

impl OwnerKind {
    /// The word in keys and in a block's `affinity`.
    pub fn word(self) -> &'static str {
        match self {
            OwnerKind::Host => "host",
            OwnerKind::Virtual => "virtual",
        }
    }
}

/// The identity of a block affinity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// What kind of owner.
    pub kind: OwnerKind,
    /// Name of the owner.
    pub owner: String,
    /// The block.
    pub cidr: IpNet,
}

/// The identity of a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A `projectcalico.org/v3` resource. Blocks, affinities and handles have keys of their own below.
    Resource {
        /// Kind of the resource.
        kind: Kind,
        /// Namespace; empty for cluster-wide kinds.
        namespace: String,
        /// Name.
        name: String,
    },
    /// An IPAM block.
    Block(IpNet),
    /// An affinity of an owner for a block.
    Affinity(AffinityKey),
    /// An IPAM handle.
    Handle(String),
    /// The settings of IPAM.
    IpamConfig,
    /// A status that a node reports, by its path below `/calico/felix/`.
    Status(String),
    /// What another program keeps.
    Foreign(Foreign),
}

/// Text that is no key of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is no key of a known kind: {reason}")]
pub struct KeyError {
    /// The text.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

fn block_text(cidr: IpNet) -> String {
    format!("ipv{}/block/{}-{}", Family::of_net(cidr).version(), cidr.addr(), cidr.prefix_len())
}

fn parse_block(text: &str) -> Option<IpNet> {
    let (version, rest) = text.split_once("/block/")?;
    let (addr, len) = rest.rsplit_once('-')?;
    let cidr = IpNet::new(addr.parse::<IpAddr>().ok()?, len.parse().ok()?).ok()?;
    (version == format!("ipv{}", Family::of_net(cidr).version())).then_some(cidr)
}

impl Key {
    /// The key of a resource.
    pub fn resource(kind: Kind, namespace: &str, name: &str) -> Key {
        Key::Resource { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of a node's affinity for a block.
    pub fn host_affinity(host: &str, cidr: IpNet) -> Key {
        Key::Affinity(AffinityKey { kind: OwnerKind::Host, owner: host.to_owned(), cidr })
    }

    /// Upstream's etcd key (`upstream-contract` 3.1).
    pub fn path(&self) -> String {
        match self {
            Key::Resource { kind, namespace, name } if namespace.is_empty() => {
                format!("{RESOURCES}{}/{name}", kind.plural())
            }
            Key::Resource { kind, namespace, name } => format!("{RESOURCES}{}/{namespace}/{name}", kind.plural()),
            Key::Block(cidr) => format!("{BLOCKS}{}", block_text(*cidr)),
            Key::Affinity(AffinityKey { kind, owner, cidr }) => {
                format!("{IPAM}{}/{owner}/{}", kind.word(), block_text(*cidr))
            }
            Key::Handle(id) => format!("{HANDLES}{id}"),
            Key::IpamConfig => IPAM_CONFIG.to_owned(),
            Key::Status(rest) => format!("{STATUS}{rest}"),
            Key::Foreign(foreign) => foreign.path(),
        }
    }

    /// Reads upstream's etcd key.
    pub fn from_path(path: &str) -> Result<Key, KeyError> {
        let wrong = |reason: &str| KeyError { path: path.to_owned(), reason: reason.to_owned() };
        if let Some(foreign) = Foreign::from_path(path) {
            return Ok(Key::Foreign(foreign));
        }
        if let Some(rest) = path.strip_prefix(RESOURCES) {
            let (plural, rest) = rest.split_once('/').ok_or_else(|| wrong("no name"))?;
            let kind =
                Kind::every().find(|kind| kind.plural() == plural).ok_or_else(|| wrong("unknown plural of a kind"))?;
            let (namespace, name) = if kind.namespaced() {
                rest.split_once('/').ok_or_else(|| wrong("a namespaced kind without a namespace"))?
            } else {
                ("", rest)
            };
            if name.is_empty() || name.contains('/') {
                return Err(wrong("a name that is empty or holds '/'"));
            }
            return Ok(Key::resource(kind, namespace, name));
        }
        if path == IPAM_CONFIG {
            return Ok(Key::IpamConfig);
        }
        if let Some(rest) = path.strip_prefix(STATUS) {
            return Ok(Key::Status(rest.to_owned()));
        }
        if let Some(id) = path.strip_prefix(HANDLES) {
            return if id.is_empty() || id.contains('/') {
                Err(wrong("a handle that is empty or holds '/'"))
            } else {
                Ok(Key::Handle(id.to_owned()))
            };
        }
        if let Some(rest) = path.strip_prefix(BLOCKS) {
            return parse_block(rest).map(Key::Block).ok_or_else(|| wrong("not a block's ADDRESS-LENGTH"));
        }
        for kind in [OwnerKind::Host, OwnerKind::Virtual] {
            let Some(rest) = path.strip_prefix(IPAM).and_then(|r| r.strip_prefix(kind.word())?.strip_prefix('/'))
            else {
                continue;
            };
            let (owner, block) = rest.split_once('/').ok_or_else(|| wrong("no block"))?;
            let cidr = parse_block(block).ok_or_else(|| wrong("not a block's ADDRESS-LENGTH"))?;
            return Ok(Key::Affinity(AffinityKey { kind, owner: owner.to_owned(), cidr }));
        }
        Err(wrong("it lies below none of the known prefixes"))
    }
}

impl fmt::Display for Key {
    /// For messages: `NetworkPolicy(ns/name)`, `block 10.0.0.0/26`, …
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Resource { kind, namespace, name } if namespace.is_empty() => write!(f, "{}({name})", kind.name()),
            Key::Resource { kind, namespace, name } => write!(f, "{}({namespace}/{name})", kind.name()),
            Key::Block(cidr) => write!(f, "block {cidr}"),
            Key::Affinity(AffinityKey { kind, owner, cidr }) => {
                write!(f, "affinity of {} {owner} for {cidr}", kind.word())
            }
            Key::Handle(id) => write!(f, "handle {id}"),
            Key::IpamConfig => f.write_str("IPAM settings"),
            Key::Status(rest) => write!(f, "status {rest}"),
            Key::Foreign(foreign) => foreign.fmt(f),
        }
    }
}

/// Which facts to list or watch: everything whose text key starts with one of the filter's prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every fact.
    All,
    /// Resources of one kind, in all namespaces.
    Kind(Kind),
    /// Resources of one kind in one namespace.
    Namespace(Kind, String),
    /// IPAM blocks.
    Blocks,
    /// Affinities of one owner.
    Affinities(OwnerKind, String),
    /// Affinities of all owners of a kind.
    AllAffinities(OwnerKind),
    /// IPAM handles.
    Handles,
    /// The settings of IPAM.
    IpamConfig,
    /// Statuses whose path below `/calico/felix/` begins so; it is to end with a separator.
    Statuses(String),
    /// What other programs keep.
    Foreign,
    /// What the agent of this node acts on: all resources, blocks, the settings of IPAM, and the node's own affinities. Not
    /// what grows with the cluster's addresses and is nobody's but its writer's: handles, and affinities of others.
    NodeAgent(String),
    /// Several filters at once.
    Any(Vec<Filter>),
}

impl Filter {
    /// The text prefixes that the filter covers. Each ends at a separator, so that it never covers half a name, or is a
    /// whole key.
    pub fn prefixes(&self) -> Vec<String> {
        match self {
            Filter::All => vec!["/calico/".to_owned()],
            Filter::Kind(kind) => vec![format!("{RESOURCES}{}/", kind.plural())],
            Filter::Namespace(kind, namespace) => vec![format!("{RESOURCES}{}/{namespace}/", kind.plural())],
            Filter::Blocks => vec![BLOCKS.to_owned()],
            Filter::Affinities(kind, owner) => vec![format!("{IPAM}{}/{owner}/", kind.word())],
            Filter::AllAffinities(kind) => vec![format!("{IPAM}{}/", kind.word())],
            Filter::Handles => vec![HANDLES.to_owned()],
            Filter::IpamConfig => vec![IPAM_CONFIG.to_owned()],
            Filter::Statuses(below) => vec![format!("{STATUS}{below}")],
            Filter::Foreign => Foreign::prefixes(),
            Filter::NodeAgent(node) => vec![
                RESOURCES.to_owned(),
                BLOCKS.to_owned(),
                format!("{IPAM}{}/{node}/", OwnerKind::Host.word()),
                IPAM_CONFIG.to_owned(),
            ],
            Filter::Any(filters) => filters.iter().flat_map(Filter::prefixes).collect(),
        }
    }

    /// Whether the filter covers this key.
    pub fn covers(&self, key: &Key) -> bool {
        let path = key.path();
        self.prefixes()
            .iter()
            .any(|prefix| if prefix.ends_with('/') { path.starts_with(prefix) } else { path == *prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams_and_round_trip() {
        let cidr4: IpNet = "192.168.84.192/26".parse().expect("a literal");
        let cidr6: IpNet = "fd00:10::40/122".parse().expect("a literal");
        let table = [
            (
                Key::resource(Kind::NetworkPolicy, "prod", "allow"),
                "/calico/resources/v3/projectcalico.org/networkpolicies/prod/allow",
            ),
            (Key::resource(Kind::Node, "", "n1"), "/calico/resources/v3/projectcalico.org/nodes/n1"),
            (
                Key::resource(Kind::KubernetesNetworkPolicy, "prod", "allow"),
                "/calico/resources/v3/projectcalico.org/kubernetesnetworkpolicies/prod/allow",
            ),
            (
                Key::resource(Kind::KubernetesClusterNetworkPolicy, "", "allow"),
                "/calico/resources/v3/projectcalico.org/kubernetesclusternetworkpolicies/allow",
            ),
            (
                Key::resource(Kind::KubernetesEndpointSlice, "prod", "web-x1"),
                "/calico/resources/v3/projectcalico.org/kubernetesendpointslices/prod/web-x1",
            ),
            (
                Key::resource(Kind::KubernetesService, "prod", "web"),
                "/calico/resources/v3/projectcalico.org/kubernetesservice/prod/web",
            ),
            (Key::Block(cidr4), "/calico/ipam/v2/assignment/ipv4/block/192.168.84.192-26"),
            (Key::host_affinity("n1", cidr6), "/calico/ipam/v2/host/n1/ipv6/block/fd00:10::40-122"),
            (Key::Handle("net.abc".into()), "/calico/ipam/v2/handle/net.abc"),
            (Key::IpamConfig, "/calico/ipam/v2/config"),
        ];
        for (key, path) in table {
            assert_eq!(key.path(), path);
            assert_eq!(Key::from_path(path), Ok(key.clone()));
            assert!(Filter::All.covers(&key));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_reason() {
        for path in [
            "",
            "/calico",
            "/calico/resources/v3/projectcalico.org/tigers/x",
            "/calico/resources/v3/projectcalico.org/networkpolicies/x",
            "/calico/resources/v3/projectcalico.org/nodes/",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
            "/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26",
            "/calico/ipam/v2/host/n1",
        ] {
            assert!(Key::from_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_filter_covers_whole_names_only() {
        let filter = Filter::Affinities(OwnerKind::Host, "node-1".into());
        let cidr: IpNet = "10.0.0.0/26".parse().expect("a literal");
        assert!(filter.covers(&Key::host_affinity("node-1", cidr)));
        assert!(!filter.covers(&Key::host_affinity("node-10", cidr)));
        let agent = Filter::NodeAgent("node-1".into());
        let policy = Key::resource(Kind::NetworkPolicy, "prod", "allow");
        for key in [policy, Key::Block(cidr), Key::IpamConfig, Key::host_affinity("node-1", cidr)] {
            assert!(agent.covers(&key), "{key}");
        }
        for key in [Key::Handle("net.abc".into()), Key::host_affinity("node-10", cidr)] {
            assert!(!agent.covers(&key), "{key}");
        }
        assert!(Filter::IpamConfig.covers(&Key::IpamConfig) && !Filter::IpamConfig.covers(&Key::Block(cidr)));
    }
}
