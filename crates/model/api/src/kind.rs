//! The kinds: their names, plurals, scopes and the words by which a command line may call them.

use std::fmt;

use crate::error::nearest;

/// Calls `$with!` with one line per kind: variant, name, plural, whether namespaced, other words for it. The kinds
/// behind `@internal` come from Kubernetes alone: no manifest and no command line knows them.
macro_rules! for_each_kind {
    ($with:ident) => {
        $with! {
            NetworkPolicy "NetworkPolicy" "networkpolicies" true ["policy", "np", "policies", "pol", "pols"];
            GlobalNetworkPolicy "GlobalNetworkPolicy" "globalnetworkpolicies" false ["gnp", "gnps"];
            StagedNetworkPolicy "StagedNetworkPolicy" "stagednetworkpolicies" true
                ["stagedpolicy", "snp", "stagedpolicies", "spol", "spols"];
            StagedGlobalNetworkPolicy "StagedGlobalNetworkPolicy" "stagedglobalnetworkpolicies" false
                ["sgnp", "sgnps"];
            StagedKubernetesNetworkPolicy "StagedKubernetesNetworkPolicy" "stagedkubernetesnetworkpolicies" true
                ["stagedkubernetespolicy", "sknp", "stagedkubernetespolicies", "skpol", "skpols"];
            Tier "Tier" "tiers" false [];
            Profile "Profile" "profiles" false ["pro", "pros"];
            NetworkSet "NetworkSet" "networksets" true ["netsets"];
            GlobalNetworkSet "GlobalNetworkSet" "globalnetworksets" false ["gnetsets"];
            HostEndpoint "HostEndpoint" "hostendpoints" false ["hep", "heps"];
            IpPool "IPPool" "ippools" false ["ipp", "ipps", "pool", "pools"];
            IpReservation "IPReservation" "ipreservations" false ["reservation", "reservations"];
            IpamConfiguration "IPAMConfiguration" "ipamconfigurations" false ["ipamconfig", "ipamconfigs"];
            IpamBlock "IPAMBlock" "ipamblocks" false [];
            IpamHandle "IPAMHandle" "ipamhandles" false [];
            BlockAffinity "BlockAffinity" "blockaffinities" false ["affinity", "affinities"];
            BgpConfiguration "BGPConfiguration" "bgpconfigurations" false ["bgpconfig", "bgpconfigs"];
            BgpPeer "BGPPeer" "bgppeers" false ["bgpp", "bgpps", "bp", "bps"];
            BgpFilter "BGPFilter" "bgpfilters" false ["bgpf", "bgpfs", "bf", "bfs"];
            ClusterInformation "ClusterInformation" "clusterinformations" false ["clusterinfo", "clusterinfos"];
            FelixConfiguration "FelixConfiguration" "felixconfigurations" false ["felixconfig", "felixconfigs"];
            KubeControllersConfiguration "KubeControllersConfiguration" "kubecontrollersconfigurations" false
                ["kubecontrollersconfig", "kubecontrollersconfigs"];
            CalicoNodeStatus "CalicoNodeStatus" "caliconodestatuses" false ["nodestatus", "nodestatuses"];
            Node "Node" "nodes" false ["no", "nos"];
            WorkloadEndpoint "WorkloadEndpoint" "workloadendpoints" true ["wep", "weps"];
            @internal
            KubernetesNetworkPolicy "KubernetesNetworkPolicy" "kubernetesnetworkpolicies" true [];
            KubernetesClusterNetworkPolicy "KubernetesClusterNetworkPolicy" "kubernetesclusternetworkpolicies" false
                [];
            KubernetesEndpointSlice "KubernetesEndpointSlice" "kubernetesendpointslices" true [];
            KubernetesService "KubernetesService" "kubernetesservice" true [];
        }
    };
}

pub(crate) use for_each_kind;

macro_rules! declare_kind {
    (
        $($variant:ident $name:literal $plural:literal $namespaced:literal [$($alias:literal),*];)*
        @internal
        $($internal:ident $iname:literal $iplural:literal $inamespaced:literal [];)*
    ) => {
        /// A kind of resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("The kind `", $name, "`.")] $variant,)*
            $(#[doc = concat!("The internal kind `", $iname, "`.")] $internal,)*
        }

        impl Kind {
            /// Every kind that a user may write; see [`Kind::INTERNAL`] for the others.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant),*];

            /// The kinds that only a Kubernetes store yields. A manifest or a command line that names one is refused.
            pub const INTERNAL: &'static [Kind] = &[$(Kind::$internal),*];

            /// The name as it stands in `kind`, such as `IPPool`.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* $(Kind::$internal => $iname,)* }
            }

            /// The plural as it stands in datastore keys, such as `ippools`.
            pub fn plural(self) -> &'static str {
                match self { $(Kind::$variant => $plural,)* $(Kind::$internal => $iplural,)* }
            }

            /// Other words that a command line accepts for it.
            pub fn short_names(self) -> &'static [&'static str] {
                match self { $(Kind::$variant => &[$($alias),*],)* $(Kind::$internal => &[],)* }
            }

            /// Whether its resources live in namespaces.
            pub fn namespaced(self) -> bool {
                match self { $(Kind::$variant => $namespaced,)* $(Kind::$internal => $inamespaced,)* }
            }
        }
    };
}

for_each_kind!(declare_kind);

/// A word that names no kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind {
    /// The word as given.
    pub word: String,
    /// The closest good word, if one is close.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownKind { word, nearest } = self;
        write!(f, "{word:?} is no resource kind")?;
        match nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownKind {}

impl Kind {
    /// The kind that a command-line word means: name, plural or another word for it, in any case.
    pub fn from_text(word: &str) -> Result<Kind, UnknownKind> {
        let lower = word.to_ascii_lowercase();
        let means = |kind: &&Kind| {
            kind.name().eq_ignore_ascii_case(&lower)
                || kind.plural() == lower
                || kind.short_names().contains(&lower.as_str())
        };
        Kind::ALL.iter().find(means).copied().ok_or_else(|| {
            let words =
                Kind::ALL.iter().flat_map(|k| [k.name(), k.plural()].into_iter().chain(k.short_names().to_vec()));
            UnknownKind { word: word.to_owned(), nearest: nearest(word, words) }
        })
    }

    /// Every kind, also the internal ones: what a store may hold.
    pub fn every() -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().chain(Kind::INTERNAL).copied()
    }

    /// Whether a user neither writes nor reads it.
    pub fn internal(self) -> bool {
        Kind::INTERNAL.contains(&self)
    }

    /// The kind of this exact name, as it stands in a manifest.
    pub fn from_name(name: &str) -> Result<Kind, UnknownKind> {
        Kind::ALL.iter().find(|kind| kind.name() == name).copied().ok_or_else(|| UnknownKind {
            word: name.to_owned(),
            nearest: nearest(name, Kind::ALL.iter().map(|kind| kind.name())),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_understood() {
        for word in ["np", "networkpolicy", "networkPolicies", "NetworkPolicy", "pol"] {
            assert_eq!(Kind::from_text(word), Ok(Kind::NetworkPolicy), "{word}");
        }
        assert_eq!(Kind::from_text("nos"), Ok(Kind::Node));
        let wrong = Kind::from_text("netwrkpolicy").expect_err("a typo");
        assert_eq!(wrong.nearest, Some("NetworkPolicy"));
        assert_eq!(Kind::from_text("gadget").expect_err("no kind").nearest, None);
    }

    #[test]
    fn internal_kinds_are_no_words_of_a_user() {
        for kind in Kind::INTERNAL {
            assert!(kind.internal());
            assert!(Kind::from_text(kind.name()).is_err() && Kind::from_text(kind.plural()).is_err(), "{kind}");
            assert!(Kind::from_name(kind.name()).is_err(), "{kind}");
        }
        assert!(Kind::ALL.iter().all(|kind| !kind.internal()));
        let plurals: std::collections::BTreeSet<_> = Kind::every().map(Kind::plural).collect();
        assert_eq!(plurals.len(), Kind::ALL.len() + Kind::INTERNAL.len());
    }

    #[test]
    fn no_word_means_two_kinds() {
        let mut seen = std::collections::BTreeMap::new();
        for kind in Kind::ALL {
            let name = kind.name().to_ascii_lowercase();
            for word in [name.as_str(), kind.plural()].into_iter().chain(kind.short_names().iter().copied()) {
                assert_eq!(seen.insert(word.to_owned(), *kind), None, "{word}");
            }
        }
    }
}
