//! The types of objects that facts come from, and where the API serves them.

use tortie_api::Kind;

/// Which group the custom resources belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `crd.projectcalico.org/v1`, with a resource's own metadata in an annotation.
    V1,
    /// `projectcalico.org/v3`, with resources as they are.
    V3,
}

impl Group {
    /// The name of the group.
    pub fn name(self) -> &'static str {
        match self {
            Group::V1 => "crd.projectcalico.org",
            Group::V3 => "projectcalico.org",
        }
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(self) -> &'static str {
        match self {
            Group::V1 => "crd.projectcalico.org/v1",
            Group::V3 => "projectcalico.org/v3",
        }
    }
}

/// A type of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Type {
    /// The custom resource of a kind.
    Custom(Kind),
    /// Namespaces of `v1`: profiles.
    Namespace,
    /// ServiceAccounts of `v1`: profiles.
    ServiceAccount,
    /// Pods of `v1`: workload endpoints.
    Pod,
    /// Nodes of `v1`.
    Node,
    /// NetworkPolicies of `networking.k8s.io/v1`.
    NetworkPolicy,
    /// ClusterNetworkPolicies of `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// Services of `v1`.
    Service,
    /// EndpointSlices of `discovery.k8s.io/v1`.
    EndpointSlice,
}

impl Type {
    /// The types that facts of a kind come from.
    pub(crate) fn of_kind(kind: Kind) -> &'static [Type] {
        match kind {
            Kind::Profile => &[Type::Namespace, Type::ServiceAccount],
            Kind::WorkloadEndpoint => &[Type::Pod],
            Kind::Node => &[Type::Node],
            Kind::KubernetesNetworkPolicy => &[Type::NetworkPolicy],
            Kind::KubernetesClusterNetworkPolicy => &[Type::ClusterNetworkPolicy],
            Kind::KubernetesService => &[Type::Service],
            Kind::KubernetesEndpointSlice => &[Type::EndpointSlice],
            Kind::NetworkPolicy => &[Type::Custom(Kind::NetworkPolicy)],
            Kind::GlobalNetworkPolicy => &[Type::Custom(Kind::GlobalNetworkPolicy)],
            Kind::StagedNetworkPolicy => &[Type::Custom(Kind::StagedNetworkPolicy)],
            Kind::StagedGlobalNetworkPolicy => &[Type::Custom(Kind::StagedGlobalNetworkPolicy)],
            Kind::StagedKubernetesNetworkPolicy => &[Type::Custom(Kind::StagedKubernetesNetworkPolicy)],
            Kind::Tier => &[Type::Custom(Kind::Tier)],
            Kind::NetworkSet => &[Type::Custom(Kind::NetworkSet)],
            Kind::GlobalNetworkSet => &[Type::Custom(Kind::GlobalNetworkSet)],
            Kind::HostEndpoint => &[Type::Custom(Kind::HostEndpoint)],
            Kind::IpPool => &[Type::Custom(Kind::IpPool)],
            Kind::IpReservation => &[Type::Custom(Kind::IpReservation)],
            Kind::IpamConfiguration => &[Type::Custom(Kind::IpamConfiguration)],
            Kind::IpamBlock => &[Type::Custom(Kind::IpamBlock)],
            Kind::IpamHandle => &[Type::Custom(Kind::IpamHandle)],
            Kind::BlockAffinity => &[Type::Custom(Kind::BlockAffinity)],
            Kind::BgpConfiguration => &[Type::Custom(Kind::BgpConfiguration)],
            Kind::BgpPeer => &[Type::Custom(Kind::BgpPeer)],
            Kind::BgpFilter => &[Type::Custom(Kind::BgpFilter)],
            Kind::ClusterInformation => &[Type::Custom(Kind::ClusterInformation)],
            Kind::FelixConfiguration => &[Type::Custom(Kind::FelixConfiguration)],
            Kind::KubeControllersConfiguration => &[Type::Custom(Kind::KubeControllersConfiguration)],
            Kind::CalicoNodeStatus => &[Type::Custom(Kind::CalicoNodeStatus)],
        }
    }

    /// The group and version of the API; no group for the core.
    fn api_version(self, group: Group) -> &'static str {
        match self {
            Type::Custom(_) => group.api_version(),
            Type::Namespace | Type::ServiceAccount | Type::Pod | Type::Node | Type::Service => "v1",
            Type::NetworkPolicy => "networking.k8s.io/v1",
            Type::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Type::EndpointSlice => "discovery.k8s.io/v1",
        }
    }

    /// The plural as it stands in paths and in roles.
    pub(crate) fn plural(self, group: Group) -> &'static str {
        match self {
            Type::Custom(Kind::IpamConfiguration) if group == Group::V1 => "ipamconfigs",
            Type::Custom(kind) => kind.plural(),
            Type::Namespace => "namespaces",
            Type::ServiceAccount => "serviceaccounts",
            Type::Pod => "pods",
            Type::Node => "nodes",
            Type::NetworkPolicy => "networkpolicies",
            Type::ClusterNetworkPolicy => "clusternetworkpolicies",
            Type::Service => "services",
            Type::EndpointSlice => "endpointslices",
        }
    }

    /// The name for messages and roles, such as `ippools.crd.projectcalico.org`.
    pub(crate) fn full_name(self, group: Group) -> String {
        match self.api_version(group).split_once('/') {
            None => self.plural(group).to_owned(),
            Some((name, _)) => format!("{}.{name}", self.plural(group)),
        }
    }

    /// The `kind` of its objects, where this store writes them.
    pub(crate) fn object_kind(kind: Kind, group: Group) -> &'static str {
        match (kind, group) {
            (Kind::IpamConfiguration, Group::V1) => "IPAMConfig",
            (kind, _) => kind.name(),
        }
    }

    fn namespaced(self) -> bool {
        match self {
            Type::Custom(kind) => kind.namespaced(),
            Type::ServiceAccount | Type::Pod | Type::NetworkPolicy | Type::Service | Type::EndpointSlice => true,
            Type::Namespace | Type::Node | Type::ClusterNetworkPolicy => false,
        }
    }

    /// How many objects one page of a list holds: a page is in memory at once, and pods are large.
    pub(crate) fn page(self) -> u32 {
        match self {
            Type::Pod | Type::Node | Type::EndpointSlice => 200,
            Type::Custom(_)
            | Type::Namespace
            | Type::ServiceAccount
            | Type::NetworkPolicy
            | Type::ClusterNetworkPolicy
            | Type::Service => 500,
        }
    }

    /// Whether the status of an object of this kind is written apart from the rest: its definition makes it a
    /// subresource, which a write of the object leaves alone. Pools and tiers of the older group have none.
    pub(crate) fn status_apart(kind: Kind, group: Group) -> bool {
        let conditions = [Kind::IpPool, Kind::Tier].contains(&kind) && group == Group::V3;
        conditions || [Kind::CalicoNodeStatus, Kind::KubeControllersConfiguration].contains(&kind)
    }

    /// The path at which the server tells which types this one's group has; its types lie below.
    pub(crate) fn root(self, group: Group) -> String {
        let version = self.api_version(group);
        if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
    }

    /// The path of the whole type, or of its objects in a namespace.
    pub(crate) fn path(self, group: Group, namespace: &str) -> String {
        let root = self.root(group);
        let plural = self.plural(group);
        if namespace.is_empty() || !self.namespaced() {
            format!("{root}/{plural}")
        } else {
            format!("{root}/namespaces/{namespace}/{plural}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let pool = Type::Custom(Kind::IpPool);
        assert_eq!(pool.path(Group::V1, ""), "/apis/crd.projectcalico.org/v1/ippools");
        assert_eq!(pool.path(Group::V3, "ignored"), "/apis/projectcalico.org/v3/ippools");
        let config = Type::Custom(Kind::IpamConfiguration);
        assert_eq!(config.full_name(Group::V1), "ipamconfigs.crd.projectcalico.org");
        assert_eq!(config.full_name(Group::V3), "ipamconfigurations.projectcalico.org");
        assert_eq!(Type::Pod.path(Group::V1, "prod"), "/api/v1/namespaces/prod/pods");
        assert_eq!(Type::Pod.full_name(Group::V1), "pods");
        assert_eq!(Type::EndpointSlice.full_name(Group::V1), "endpointslices.discovery.k8s.io");
        assert_eq!(Type::NetworkPolicy.path(Group::V3, "a"), "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies");
    }

    #[test]
    fn every_kind_comes_from_somewhere() {
        for kind in Kind::every() {
            assert!(!Type::of_kind(kind).is_empty(), "{kind}");
        }
    }
}
