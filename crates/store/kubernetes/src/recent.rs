//! What watches told of the pods of one node and of namespaces, for calls that would otherwise ask the server for each
//! pod that starts.
//!
//! A pod is here once the watch told of it, and only while the watch is open: what is not here, or not any more, is
//! asked for. It is as old as the watch is late. What this process itself writes to a pod is here when the write
//! returns. An older state never replaces a newer one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tortie_kubernetes::{Namespace, Pod};

use crate::types::Type;

/// What watches told. Copies are the same one.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<State>>);

/// Two are equal if they are the same one.
impl PartialEq for Recent {
    fn eq(&self, other: &Recent) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Default)]
struct State {
    /// The node whose pods are kept; none before it is known.
    node: String,
    /// How many streams of a type are open.
    open: BTreeMap<Type, usize>,
    pods: BTreeMap<(String, String), Seen<Pod>>,
    namespaces: BTreeMap<String, Seen<Namespace>>,
    /// How often namespaces were forgotten or deleted.
    losses: u64,
}

/// An object as it was at a revision.
#[derive(Clone)]
pub(crate) struct Seen<T> {
    pub(crate) object: Arc<T>,
    pub(crate) revision: u64,
}

/// While this is there, a stream is open.
pub(crate) struct Open {
    recent: Recent,
    ty: Type,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(count) = self.recent.state().open.get_mut(&self.ty) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The losses by the time that a namespace was asked for.
pub(crate) struct Mark(u64);

impl Recent {
    /// Keeps the pods of this node from now on.
    pub fn follow(&self, node: &str) {
        node.clone_into(&mut self.state().node);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of this type is open from now on.
    pub(crate) fn opened(&self, ty: Type) -> Open {
        *self.state().open.entry(ty).or_default() += 1;
        Open { recent: self.clone(), ty }
    }

    /// A stream of this type begins at a place of which nobody knows what came before.
    pub(crate) fn forget(&self, ty: Type) {
        let mut state = self.state();
        if ty == Type::Pod {
            state.pods.clear();
        } else if ty == Type::Namespace {
            state.namespaces.clear();
            state.losses += 1;
        }
    }

    /// The watch told of an object.
    pub(crate) fn told(&self, ty: Type, text: &str, revision: u64, deleted: bool) {
        let mut state = self.state();
        if state.node.is_empty() {
            return;
        }
        if ty == Type::Pod {
            // Most pods are those of other nodes: they are not even read.
            if !text.contains(&format!("\"nodeName\":\"{}\"", state.node)) {
                return;
            }
            let Ok(pod) = serde_json::from_str::<Pod>(text) else { return };
            let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
            let ended = matches!(pod.status.phase.as_str(), "Failed" | "Succeeded");
            let ours = pod.spec.node_name == state.node;
            put(&mut state.pods, key, (ours && !ended && !deleted).then_some(pod), revision);
        } else if ty == Type::Namespace {
            let Ok(space) = serde_json::from_str::<Namespace>(text) else { return };
            state.losses += u64::from(deleted);
            put(&mut state.namespaces, space.metadata.name.clone(), (!deleted).then_some(space), revision);
        }
    }

    /// This process changed a pod, and this is what the server answered. The watch may have told of its end before the
    /// answer came: what is not here stays out.
    pub(crate) fn wrote_pod(&self, text: &str, revision: u64) {
        let Ok(pod) = serde_json::from_str::<Pod>(text) else { return };
        let key = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let mut state = self.state();
        if state.pods.get(&key).is_some_and(|seen| seen.object.metadata.uid == pod.metadata.uid) {
            put(&mut state.pods, key, Some(pod), revision);
        }
    }

    /// A pod of the node, if it is known for certain which one is meant: by its uid.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Seen<Pod>> {
        let state = self.state();
        let open = state.open.get(&Type::Pod).is_some_and(|count| *count > 0);
        state.pods.get(&(namespace.to_owned(), name.to_owned())).filter(|_| open).cloned()
    }

    /// A namespace; else the mark with which the answer of the server may be kept.
    pub(crate) fn namespace(&self, name: &str) -> Result<Arc<Namespace>, Mark> {
        let state = self.state();
        let open = state.open.get(&Type::Namespace).is_some_and(|count| *count > 0);
        match state.namespaces.get(name).filter(|_| open) {
            Some(seen) => Ok(seen.object.clone()),
            None => Err(Mark(state.losses)),
        }
    }

    /// Keeps what the server answered, unless the watch told meanwhile that a namespace is gone.
    pub(crate) fn keep_namespace(&self, space: &Namespace, mark: &Mark) {
        let mut state = self.state();
        let Ok(revision) = space.metadata.resource_version.parse() else { return };
        if state.losses == mark.0 && !state.node.is_empty() {
            put(&mut state.namespaces, space.metadata.name.clone(), Some(space.clone()), revision);
        }
    }
}

/// Puts what is newer in its place; nothing if the object is gone.
fn put<K: Ord, T>(all: &mut BTreeMap<K, Seen<T>>, key: K, object: Option<T>, revision: u64) {
    if all.get(&key).is_some_and(|seen| seen.revision > revision) {
        return;
    }
    match object {
        Some(object) => drop(all.insert(key, Seen { object: Arc::new(object), revision })),
        None => drop(all.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, uid: &str, phase: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"p","namespace":"ns","uid":"{uid}"}},"spec":{{"nodeName":"{node}"}},"status":{{"phase":"{phase}"}}}}"#
        )
    }

    fn uid_of(recent: &Recent) -> Option<String> {
        recent.pod("ns", "p").map(|seen| seen.object.metadata.uid.clone())
    }

    #[test]
    fn a_pod_of_the_node_is_there_while_a_stream_is_open() {
        let recent = Recent::default();
        recent.follow("n1");
        let open = recent.opened(Type::Pod);
        recent.told(Type::Pod, &pod("n2", "b", "Pending"), 4, false);
        assert_eq!(uid_of(&recent), None, "another node's");
        recent.told(Type::Pod, &pod("n1", "a", "Pending"), 5, false);
        assert_eq!(uid_of(&recent).as_deref(), Some("a"));
        let second = recent.clone().opened(Type::Pod);
        drop(open);
        assert_eq!(uid_of(&recent).as_deref(), Some("a"));
        drop(second);
        assert_eq!(uid_of(&recent), None, "nobody tells of changes any more");
        let _open = recent.opened(Type::Pod);
        assert_eq!(uid_of(&recent).as_deref(), Some("a"), "a stream goes on where it stood");
        recent.forget(Type::Pod);
        assert_eq!(uid_of(&recent), None);
    }

    #[test]
    fn the_newest_state_counts_in_whatever_order_it_is_told() {
        let recent = Recent::default();
        recent.follow("n1");
        let _open = recent.opened(Type::Pod);
        recent.told(Type::Pod, &pod("n1", "new", "Pending"), 9, false);
        recent.told(Type::Pod, &pod("n1", "old", "Running"), 5, false);
        recent.told(Type::Pod, &pod("n1", "old", "Running"), 6, true);
        assert_eq!(uid_of(&recent).as_deref(), Some("new"));
        recent.told(Type::Pod, &pod("n1", "new", "Succeeded"), 10, false);
        assert_eq!(uid_of(&recent), None, "a pod that ended starts no more");
        recent.told(Type::Pod, &pod("n1", "next", "Pending"), 11, false);
        recent.told(Type::Pod, &pod("n1", "next", "Pending"), 12, true);
        assert_eq!(uid_of(&recent), None);
    }

    #[test]
    fn an_answer_to_a_write_brings_no_pod_back() {
        let recent = Recent::default();
        recent.follow("n1");
        let _open = recent.opened(Type::Pod);
        recent.told(Type::Pod, &pod("n1", "a", "Pending"), 5, false);
        recent.wrote_pod(&pod("n1", "a", "Running"), 6);
        assert_eq!(recent.pod("ns", "p").map(|seen| seen.revision), Some(6));
        recent.told(Type::Pod, &pod("n1", "a", "Running"), 7, true);
        recent.wrote_pod(&pod("n1", "a", "Running"), 6);
        assert_eq!(uid_of(&recent), None, "it is gone");
        recent.told(Type::Pod, &pod("n1", "b", "Pending"), 8, false);
        recent.wrote_pod(&pod("n1", "a", "Running"), 9);
        assert_eq!(uid_of(&recent).as_deref(), Some("b"), "another pod of that name");
    }

    #[test]
    fn an_answer_about_a_namespace_is_kept_unless_one_went_meanwhile() {
        let recent = Recent::default();
        recent.follow("n1");
        let _open = recent.opened(Type::Namespace);
        let text = r#"{"metadata":{"name":"ns","resourceVersion":"7"}}"#;
        let space: Namespace = serde_json::from_str(text).expect("a namespace");
        let mark = recent.namespace("ns").expect_err("not known yet");
        recent.keep_namespace(&space, &mark);
        assert!(recent.namespace("ns").is_ok());
        recent.told(Type::Namespace, text, 8, true);
        let late = recent.namespace("ns").expect_err("it is gone");
        recent.keep_namespace(&space, &mark);
        assert!(recent.namespace("ns").is_err(), "the answer is older than the deletion");
        recent.keep_namespace(&space, &late);
        assert!(recent.namespace("ns").is_ok());
    }

    #[test]
    fn without_a_node_nothing_is_kept() {
        let recent = Recent::default();
        let _open = recent.opened(Type::Pod);
        recent.told(Type::Pod, &pod("", "a", "Pending"), 5, false);
        assert_eq!(uid_of(&recent), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", deleted: bool) {
            let recent = Recent::default();
            recent.follow("n1");
            recent.told(Type::Pod, &format!("{text}\"nodeName\":\"n1\""), 1, deleted);
            recent.told(Type::Namespace, &text, 1, deleted);
        }
    }
}
