//! Which resources a command line means: kinds by any of their words, and the rule for namespaces.

use anyhow::{Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::Key;

/// Kinds that only IPAM itself writes, and that upstream's program does not show either.
const INTERNAL: [Kind; 3] = [Kind::IpamBlock, Kind::IpamHandle, Kind::BlockAffinity];

/// The kind that a word on the command line means.
pub(crate) fn kind(word: &str) -> Result<Kind> {
    match Kind::from_text(word) {
        Ok(kind) => supported(kind).map(|()| kind),
        Err(unknown) => {
            let kinds = || {
                let names = Kind::ALL.iter().filter(|kind| !INTERNAL.contains(kind)).map(|kind| kind.name());
                format!(": expected one of {}", names.collect::<Vec<_>>().join(", "))
            };
            let near = unknown.nearest.map_or_else(kinds, |near| format!("; did you mean {near:?}?"));
            bail!("resource type '{word}' is not supported{near}")
        }
    }
}

/// Whether commands may touch resources of this kind.
pub(crate) fn supported(kind: Kind) -> Result<()> {
    if INTERNAL.contains(&kind) {
        bail!("resource type '{kind}' is not supported: IPAM alone writes it; see calicoctl ipam show --show-blocks");
    }
    Ok(())
}

/// Which namespace is meant on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope<'a> {
    /// None was named.
    Unsaid,
    /// This one.
    Named(&'a str),
    /// All.
    All,
}

impl<'a> Scope<'a> {
    /// Reads the two flags.
    pub(crate) fn of(namespace: Option<&'a str>, all: bool) -> Result<Scope<'a>> {
        match (namespace.filter(|name| !name.is_empty()), all) {
            (Some(_), true) => bail!("cannot use both --namespace and --all-namespaces flags at the same time"),
            (Some(name), false) => Ok(Scope::Named(name)),
            (None, true) => Ok(Scope::All),
            (None, false) => Ok(Scope::Unsaid),
        }
    }

    /// The namespace for a resource that names `own` (empty: none); empty for cluster-wide kinds and for all.
    pub(crate) fn namespace(self, kind: Kind, own: &str) -> Result<String> {
        if !kind.namespaced() {
            return match self {
                Scope::Unsaid if own.is_empty() => Ok(String::new()),
                Scope::Unsaid => bail!(
                    "namespace should not be specified for a non-namespaced resource. {kind} is not a namespaced resource"
                ),
                Scope::Named(_) | Scope::All => bail!("{kind} is not namespaced"),
            };
        }
        match self {
            Scope::All => Ok(String::new()),
            Scope::Unsaid if own.is_empty() => Ok("default".to_owned()),
            Scope::Unsaid => Ok(own.to_owned()),
            Scope::Named(name) if own.is_empty() || own == name => Ok(name.to_owned()),
            Scope::Named(name) => {
                bail!("resource namespace does not match client namespace. {own} != {name}")
            }
        }
    }

    /// Puts every resource into its namespace; as upstream, the flag is an error for a kind without namespaces.
    pub(crate) fn place(self, resources: &mut [Resource]) -> Result<()> {
        for resource in resources {
            let kind = resource.kind();
            supported(kind)?;
            let namespace = self.namespace(kind, &resource.metadata().namespace)?;
            resource.metadata_mut().namespace = namespace;
        }
        Ok(())
    }
}

/// Name and namespace of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; empty for none, or all.
    pub(crate) namespace: String,
    /// Its name; empty for all.
    pub(crate) name: String,
    /// The revision that it must have; empty for any.
    pub(crate) version: String,
}

impl Target {
    /// The resource that another one describes.
    pub(crate) fn of(resource: &Resource) -> Target {
        let metadata = resource.metadata();
        Target {
            kind: resource.kind(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            version: metadata.resource_version.clone(),
        }
    }

    /// The resources of these names, or all of the kind.
    pub(crate) fn named(kind: Kind, names: &[String], scope: Scope<'_>) -> Result<Vec<Target>> {
        let namespace = scope.namespace(kind, "")?;
        if names.iter().any(String::is_empty) {
            bail!("resource name may not be empty");
        }
        if !names.is_empty() && kind.namespaced() && scope == Scope::All {
            bail!("cannot use --all-namespaces flag for getting a single resource");
        }
        let one =
            |name: &str| Target { kind, namespace: namespace.clone(), name: name.to_owned(), version: String::new() };
        if names.is_empty() { Ok(vec![one("")]) } else { Ok(names.iter().map(|name| one(name)).collect()) }
    }

    /// Its key.
    pub(crate) fn key(&self) -> Key {
        Key::resource(self.kind, &self.namespace, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_follow_the_flag_the_resource_and_the_default() {
        let at = |scope: Scope<'_>, own: &str| scope.namespace(Kind::NetworkPolicy, own).map_err(|e| e.to_string());
        assert_eq!(at(Scope::Unsaid, ""), Ok("default".into()));
        assert_eq!(at(Scope::Unsaid, "a"), Ok("a".into()));
        assert_eq!(at(Scope::Named("b"), ""), Ok("b".into()));
        assert_eq!(at(Scope::All, "a"), Ok(String::new()));
        assert_eq!(
            at(Scope::Named("b"), "a"),
            Err("resource namespace does not match client namespace. a != b".into())
        );
        assert_eq!(Scope::Unsaid.namespace(Kind::Node, "").ok(), Some(String::new()));
        let error = Scope::Named("b").namespace(Kind::Node, "").expect_err("nodes have none");
        assert_eq!(error.to_string(), "Node is not namespaced");
        assert!(Scope::of(Some("a"), true).is_err());
    }

    #[test]
    fn unknown_and_internal_kinds_are_refused() {
        let error = kind("netwrkpolicy").expect_err("a typo").to_string();
        assert_eq!(error, "resource type 'netwrkpolicy' is not supported; did you mean \"NetworkPolicy\"?");
        let error = kind("gadget").expect_err("no kind").to_string();
        assert!(
            error.starts_with("resource type 'gadget' is not supported: expected one of NetworkPolicy, "),
            "{error}"
        );
        assert!(error.contains("GlobalNetworkSet") && !error.contains("IPAMBlock"), "{error}");
        assert!(kind("ipamblocks").is_err());
        assert_eq!(kind("pols").expect("good"), Kind::NetworkPolicy);
    }
}
