//! Nodes of the datastore whose node in Kubernetes is gone, where the two are apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tortie_api::Node;

use crate::labels::kubernetes_name;
use crate::leaks::Moment;

/// Since when which nodes are without their node in Kubernetes.
#[derive(Clone, Debug, Default)]
pub struct StaleNodes(BTreeMap<String, Moment>);

impl StaleNodes {
    /// Takes in a look; the nodes that have been without for this long. Nodes that are not of Kubernetes never are.
    pub fn look<'a>(
        &mut self,
        nodes: impl IntoIterator<Item = &'a Node>,
        kubernetes: &BTreeSet<String>,
        at: Moment,
        wait: Duration,
    ) -> Vec<String> {
        let mut old = std::mem::take(&mut self.0);
        for node in nodes {
            if kubernetes_name(node).is_some_and(|name| !kubernetes.contains(name)) {
                let name = node.metadata.name.clone();
                let since = old.remove(&name).unwrap_or(at);
                self.0.insert(name, since);
            }
        }
        let due = self.0.iter().filter(|(_, since)| at.saturating_sub(**since) >= wait);
        due.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaks::NODE_GRACE;
    use tortie_api::Metadata;
    use tortie_api::kinds::{NodeSpec, OrchRef};

    #[test]
    fn a_node_goes_a_minute_after_its_node_in_kubernetes_and_others_stay() {
        let node = |name: &str, kubernetes: Option<&str>| {
            let reference = |name: &str| OrchRef { orchestrator: "k8s".into(), node_name: name.into() };
            let orch_refs = kubernetes.map(reference).into_iter().collect();
            let spec = NodeSpec { orch_refs, ..NodeSpec::default() };
            Node { metadata: Metadata::named(name), spec, ..Node::default() }
        };
        let nodes = [node("a", Some("ka")), node("b", Some("kb")), node("router", None)];
        let (mut stale, at) = (StaleNodes::default(), Moment::from_secs);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert!(stale.look(&nodes, &names(&["ka"]), at(0), NODE_GRACE).is_empty());
        assert!(stale.look(&nodes, &names(&["ka", "kb"]), at(30), NODE_GRACE).is_empty(), "it came back");
        assert!(stale.look(&nodes, &names(&["ka"]), at(60), NODE_GRACE).is_empty());
        assert_eq!(stale.look(&nodes, &names(&["ka"]), at(120), NODE_GRACE), ["b"]);
    }
}
