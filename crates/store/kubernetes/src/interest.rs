//! What a filter needs of the API: which types, where, and as which facts.

use std::collections::BTreeMap;

use tortie_api::Kind;
use tortie_facts::{Filter, Key};
use tortie_store::{Span, spans};

use crate::names;
use crate::types::Type;

/// Address management has two faces: facts of their own, and resources that a user may look at. Which are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faces {
    /// Blocks, affinities, handles and settings.
    pub(crate) ipam: bool,
    /// Resources.
    pub(crate) resource: bool,
}

/// Which objects of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// In this namespace; empty for all.
    pub(crate) namespace: String,
    /// As what.
    pub(crate) faces: Faces,
}

/// What a filter needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    /// By type.
    pub(crate) types: BTreeMap<Type, Scope>,
    spans: Vec<Span>,
}

const IPAM: Faces = Faces { ipam: true, resource: false };
const RESOURCE: Faces = Faces { ipam: false, resource: true };

impl Interest {
    /// What this filter needs.
    pub(crate) fn of(filter: &Filter) -> Interest {
        let mut interest = Interest { types: BTreeMap::new(), spans: spans(filter) };
        interest.add(filter);
        interest
    }

    /// Whether a fact is one of those that were asked for.
    pub(crate) fn covers(&self, path: &str) -> bool {
        self.spans.iter().any(|span| span.covers(path))
    }

    fn add(&mut self, filter: &Filter) {
        match filter {
            Filter::All => Kind::every().for_each(|kind| self.add_kind(kind, "", faces_of_all(kind))),
            Filter::Kind(kind) => self.add_kind(*kind, "", RESOURCE),
            Filter::Namespace(kind, namespace) if names::usable(namespace) => {
                self.add_kind(*kind, namespace, RESOURCE);
            }
            // No object lives in such a namespace.
            Filter::Namespace(_, _) => {}
            Filter::Blocks => self.add_kind(Kind::IpamBlock, "", IPAM),
            Filter::Affinities(_, _) | Filter::AllAffinities(_) => self.add_kind(Kind::BlockAffinity, "", IPAM),
            Filter::Handles => self.add_kind(Kind::IpamHandle, "", IPAM),
            Filter::IpamConfig => self.add_kind(Kind::IpamConfiguration, "", IPAM),
            // They have no place there.
            Filter::Statuses(_) | Filter::Foreign => {}
            Filter::NodeAgent(_) => {
                let others = [Kind::IpamHandle, Kind::KubeControllersConfiguration];
                let kinds = Kind::every().filter(|kind| !others.contains(kind));
                kinds.for_each(|kind| self.add_kind(kind, "", faces_of_all(kind)));
            }
            Filter::Any(filters) => filters.iter().for_each(|filter| self.add(filter)),
        }
    }

    fn add_kind(&mut self, kind: Kind, namespace: &str, faces: Faces) {
        for ty in Type::of_kind(kind) {
            let new = Scope { namespace: namespace.to_owned(), faces };
            let scope = self.types.entry(*ty).or_insert(new);
            if scope.namespace != namespace {
                scope.namespace.clear();
            }
            scope.faces.ipam |= faces.ipam;
            scope.faces.resource |= faces.resource;
        }
    }
}

/// Blocks, affinities and handles are told once when everything is asked for.
fn faces_of_all(kind: Kind) -> Faces {
    match kind {
        Kind::IpamBlock | Kind::IpamHandle | Kind::BlockAffinity => IPAM,
        _ => Faces { ipam: true, resource: true },
    }
}

/// The type that holds the object of a key, and as which face; `None` for what the API has no place for.
pub(crate) fn type_of(key: &Key) -> Option<(Type, Faces)> {
    match key {
        Key::Resource { kind, namespace: _, name: _ } => Type::of_kind(*kind).first().map(|ty| (*ty, RESOURCE)),
        Key::Block(_) => Some((Type::Custom(Kind::IpamBlock), IPAM)),
        Key::Affinity(_) => Some((Type::Custom(Kind::BlockAffinity), IPAM)),
        Key::Handle(_) => Some((Type::Custom(Kind::IpamHandle), IPAM)),
        Key::IpamConfig => Some((Type::Custom(Kind::IpamConfiguration), IPAM)),
        Key::Status(_) | Key::Foreign(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_facts::OwnerKind;

    #[test]
    fn filters_need_their_types_only() {
        let policies = Interest::of(&Filter::Namespace(Kind::NetworkPolicy, "prod".into()));
        let scope = Scope { namespace: "prod".into(), faces: RESOURCE };
        assert_eq!(policies.types, BTreeMap::from([(Type::Custom(Kind::NetworkPolicy), scope)]));
        let two = Interest::of(&Filter::Any(vec![
            Filter::Namespace(Kind::NetworkPolicy, "prod".into()),
            Filter::Namespace(Kind::NetworkPolicy, "test".into()),
        ]));
        assert_eq!(two.types[&Type::Custom(Kind::NetworkPolicy)].namespace, "");
        assert!(two.covers(&Key::resource(Kind::NetworkPolicy, "test", "x").path()));
        assert!(!two.covers(&Key::resource(Kind::NetworkPolicy, "other", "x").path()));
        let affinities = Interest::of(&Filter::Affinities(OwnerKind::Host, "n".into()));
        assert_eq!(affinities.types[&Type::Custom(Kind::BlockAffinity)].faces, IPAM);
    }

    #[test]
    fn a_node_watches_no_handles() {
        let agent = Interest::of(&Filter::NodeAgent("n".into()));
        assert!(!agent.types.contains_key(&Type::Custom(Kind::IpamHandle)));
        assert!(!agent.types.contains_key(&Type::Custom(Kind::KubeControllersConfiguration)));
        assert_eq!(agent.types[&Type::Custom(Kind::BlockAffinity)].faces, IPAM);
        assert_eq!(agent.types.len() + 2, Interest::of(&Filter::All).types.len());
    }

    #[test]
    fn everything_needs_every_type() {
        let all = Interest::of(&Filter::All);
        for kind in Kind::every() {
            assert!(Type::of_kind(kind).iter().all(|ty| all.types.contains_key(ty)), "{kind}");
        }
        assert_eq!(all.types[&Type::Custom(Kind::IpamBlock)].faces, IPAM);
    }
}
