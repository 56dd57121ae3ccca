//! Which kinds are CustomResourceDefinitions, and the words by which kubectl knows them.

use tortie_api::Kind;

/// A kind that has a definition of its own. Profiles, Nodes and WorkloadEndpoints come from Kubernetes' own objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// The kind.
    pub(crate) kind: Kind,
    /// Short names for kubectl in the group `projectcalico.org`; the other group has none, so that no word is
    /// ambiguous where both are installed.
    pub(crate) short: &'static [&'static str],
    /// Whether the status is a subresource, which a write of the object leaves alone.
    pub(crate) status: bool,
    /// Whether `spec.tier` can be selected by.
    pub(crate) tiered: bool,
}

const fn plain(kind: Kind, short: &'static [&'static str]) -> Served {
    Served { kind, short, status: false, tiered: false }
}

const fn observed(kind: Kind, short: &'static [&'static str]) -> Served {
    Served { kind, short, status: true, tiered: false }
}

const fn tiered(kind: Kind, short: &'static [&'static str]) -> Served {
    Served { kind, short, status: false, tiered: true }
}

/// Every kind with a definition, in the order of their plurals.
pub(crate) const SERVED: [Served; 22] = [
    plain(Kind::BgpConfiguration, &["bgpconfig", "bgpconfigs"]),
    plain(Kind::BgpFilter, &[]),
    plain(Kind::BgpPeer, &[]),
    plain(Kind::BlockAffinity, &["affinity", "affinities"]),
    observed(Kind::CalicoNodeStatus, &[]),
    plain(Kind::ClusterInformation, &["clusterinfo", "clusterinfos"]),
    plain(Kind::FelixConfiguration, &["felixconfig", "felixconfigs"]),
    tiered(Kind::GlobalNetworkPolicy, &["gnp", "cgnp"]),
    plain(Kind::GlobalNetworkSet, &["gns"]),
    plain(Kind::HostEndpoint, &["hep", "heps"]),
    plain(Kind::IpamBlock, &[]),
    plain(Kind::IpamConfiguration, &["ipamconfig", "ipamconfigs"]),
    plain(Kind::IpamHandle, &[]),
    observed(Kind::IpPool, &[]),
    plain(Kind::IpReservation, &[]),
    observed(Kind::KubeControllersConfiguration, &["kcc", "kccs"]),
    tiered(Kind::NetworkPolicy, &["cnp", "caliconetworkpolicy"]),
    plain(Kind::NetworkSet, &["netset"]),
    tiered(Kind::StagedGlobalNetworkPolicy, &["sgnp"]),
    plain(Kind::StagedKubernetesNetworkPolicy, &["sknp"]),
    tiered(Kind::StagedNetworkPolicy, &["scnp", "snp"]),
    observed(Kind::Tier, &[]),
];

/// The name and plural of a kind in the group `crd.projectcalico.org`, which keeps an older word for one.
pub(crate) fn older(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::IpamConfiguration => ("IPAMConfig", "ipamconfigs"),
        other => (other.name(), other.plural()),
    }
}
