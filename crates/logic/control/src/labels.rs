//! Labels of Kubernetes' nodes on the nodes of the datastore, where those are apart.

use tortie_api::{LabelMap, Node};

/// Where the labels that came from Kubernetes are noted, as JSON, so that those that go can be told from others.
const NOTE: &str = "projectcalico.org/kube-labels";

/// The name that Kubernetes has for a node; `None` for a node that is not of Kubernetes.
pub fn kubernetes_name(node: &Node) -> Option<&str> {
    let of_kubernetes = node.spec.orch_refs.iter().find(|reference| reference.orchestrator == "k8s");
    of_kubernetes.map(|reference| reference.node_name.as_str()).filter(|name| !name.is_empty())
}

/// The node with the labels that Kubernetes has for it; `None` if it has them, or if the note can't be read.
pub fn with_labels(node: &Node, labels: &LabelMap) -> Option<Node> {
    let noted: LabelMap = match node.metadata.annotations.get(NOTE).map(String::as_str) {
        None | Some("" | "null") => LabelMap::new(),
        Some(text) => serde_json::from_str(text).ok()?,
    };
    let mut next = node.metadata.labels.clone();
    next.retain(|key, _| labels.contains_key(key) || !noted.contains_key(key));
    next.extend(labels);
    if next == node.metadata.labels {
        return None;
    }
    let mut wanted = node.clone();
    wanted.metadata.labels = next;
    let note = serde_json::to_string(labels).expect("a map of texts always serialises");
    wanted.metadata.annotations.insert(NOTE.to_owned(), note);
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::Metadata;

    fn map(pairs: &[(&str, &str)]) -> LabelMap {
        pairs.iter().copied().collect()
    }

    #[test]
    fn labels_come_change_and_go_and_others_stay() {
        let mut metadata = Metadata::named("n1");
        metadata.labels = map(&[("own", "1")]);
        let node = Node { metadata, ..Node::default() };
        let first = with_labels(&node, &map(&[("zone", "a"), ("disk", "ssd")])).expect("it has none of them");
        assert_eq!(first.metadata.labels, map(&[("own", "1"), ("zone", "a"), ("disk", "ssd")]));
        assert_eq!(with_labels(&first, &map(&[("zone", "a"), ("disk", "ssd")])), None, "a second pass writes nothing");
        let second = with_labels(&first, &map(&[("zone", "b")])).expect("one changed, one went");
        assert_eq!(second.metadata.labels, map(&[("own", "1"), ("zone", "b")]));
        let mut damaged = second;
        damaged.metadata.annotations.insert(NOTE.into(), "{".into());
        assert_eq!(with_labels(&damaged, &map(&[])), None, "nothing is taken away on a note that can't be read");
    }
}
