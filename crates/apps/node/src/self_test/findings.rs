//! What the test found: one entry for each node and family, and what follows from all of them.
//!
//! Invariant: a path counts as smaller only once two rounds in a row found so; one round that finds it whole ends that, and
//! silence does not.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tortie_net::Family;

/// Rounds that must agree.
const AGREE: u8 = 2;

/// What is wrong on the way to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Larger packets are lost between the nodes, without a word from whoever drops them.
    SmallPath {
        /// What passes, bytes.
        largest: u32,
        /// What the interface here takes.
        wanted: u32,
    },
    /// Packets pass between the nodes, but not one through the tunnel.
    Shut(Arc<str>),
    /// Small packets pass through the tunnel, those of its full size do not.
    LosesLarge(Arc<str>, u32),
    /// Packets pass through the tunnel only since its checksums are made here.
    Checksums(Arc<str>),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::SmallPath { largest, wanted } => write!(
                f,
                "packets of more than {largest} bytes are lost on the way, {wanted} are sent here: an MTU in the middle \
                 is smaller; tunnels and pods to come get a smaller one until that is mended"
            ),
            Fault::Shut(device) => write!(
                f,
                "packets pass between the nodes, but none through {device}: a firewall on the way drops the \
                 encapsulation, or its packets are changed"
            ),
            Fault::LosesLarge(device, size) => {
                write!(f, "packets of {size} bytes are lost in {device}, small ones pass")
            }
            Fault::Checksums(device) => write!(
                f,
                "packets pass through {device} only since it no longer leaves checksums to the interface below, which \
                 spoils them; that costs some throughput"
            ),
        }
    }
}

/// What one round found on the way to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether it answers at all; if not, nothing else is known.
    pub(super) answers: bool,
    /// What is wrong.
    pub(super) faults: Vec<Fault>,
}

struct Entry {
    node: Arc<str>,
    found: Found,
    /// Rounds in a row that found the path small, and the largest packet that passed in the last one.
    small: (u8, u32),
}

/// All findings.
#[derive(Default)]
pub(super) struct Findings(BTreeMap<IpAddr, Entry>);

impl Findings {
    /// Takes what a round found on the way to a node, known by its own address. Returns faults that are new.
    pub(super) fn put(&mut self, node: &Arc<str>, underlay: IpAddr, found: Found) -> Vec<Fault> {
        let old = self.0.remove(&underlay);
        let (before, (rounds, known)) = old.map_or((Vec::new(), (0, 0)), |old| (old.found.faults, old.small));
        let largest = found.faults.iter().find_map(|fault| match fault {
            Fault::SmallPath { largest, wanted: _ } => Some(*largest),
            Fault::Shut(_) | Fault::LosesLarge(..) | Fault::Checksums(_) => None,
        });
        let small = match largest {
            Some(largest) => (rounds.saturating_add(1), largest),
            None if !found.answers && rounds >= AGREE => (rounds, known),
            None => (0, 0),
        };
        let kind = std::mem::discriminant::<Fault>;
        let new = found.faults.iter().filter(|fault| !before.iter().any(|old| kind(old) == kind(fault)));
        let new = new.cloned().collect();
        self.0.insert(underlay, Entry { node: node.clone(), found, small });
        new
    }

    /// Forgets nodes that are not there any more.
    pub(super) fn keep(&mut self, there: impl Fn(&IpAddr) -> bool) {
        self.0.retain(|underlay, _| there(underlay));
    }

    /// The largest packet that passes to all nodes, of each family; `None`: as large as the interface takes.
    pub(super) fn path_mtu(&self) -> [Option<u32>; 2] {
        Family::ALL.map(|family| {
            let of = self.0.iter().filter(|(underlay, _)| Family::of(**underlay) == family);
            of.filter_map(|(_, entry)| (entry.small.0 >= AGREE).then_some(entry.small.1)).min()
        })
    }

    pub(super) fn faults(&self) -> usize {
        self.0.values().map(|entry| entry.found.faults.len()).sum()
    }

    /// For `calicoctl node status -o json`.
    pub(super) fn state(&self) -> Value {
        let faults = self.0.iter().flat_map(|(underlay, entry)| {
            let Entry { node, found, small: _ } = entry;
            let text = move |fault: &Fault| json!({"node": &**node, "address": underlay, "fault": fault.to_string()});
            found.faults.iter().map(text)
        });
        let [v4, v6] = self.path_mtu();
        json!({
            "nodes": self.0.len(),
            "answer": self.0.values().filter(|entry| entry.found.answers).count(),
            "faults": faults.collect::<Vec<_>>(),
            "pathMtu": {"IPv4": v4, "IPv6": v6},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rounds_must_agree_and_one_good_round_ends_it() {
        let mut findings = Findings::default();
        let (node, at) = (Arc::from("node2"), IpAddr::from([10, 0, 0, 2]));
        let small = |largest| Found { answers: true, faults: vec![Fault::SmallPath { largest, wanted: 1500 }] };
        assert_eq!(findings.put(&node, at, small(1400)).len(), 1, "told of at once");
        assert_eq!(findings.path_mtu(), [None, None], "one round is none");
        assert!(findings.put(&node, at, small(1390)).is_empty(), "told of once");
        assert_eq!(findings.path_mtu(), [Some(1390), None]);
        let other = IpAddr::from([10, 0, 0, 3]);
        for _ in 0..2 {
            findings.put(&Arc::from("node3"), other, small(1300));
        }
        assert_eq!(findings.path_mtu(), [Some(1300), None], "the smallest of all");
        assert_eq!((findings.faults(), findings.state()["nodes"].as_u64()), (2, Some(2)));
        findings.keep(|underlay| *underlay == at);
        assert_eq!(findings.path_mtu(), [Some(1390), None]);
        findings.put(&node, at, Found { answers: true, faults: Vec::new() });
        assert_eq!(findings.path_mtu(), [None, None]);
    }

    #[test]
    fn a_silent_node_says_nothing_of_the_path() {
        let mut findings = Findings::default();
        let (node, at) = (Arc::from("node2"), IpAddr::from([10, 0, 0, 2]));
        let small = Found { answers: true, faults: vec![Fault::SmallPath { largest: 1400, wanted: 1500 }] };
        let mut path_after = |found: &Found| {
            findings.put(&node, at, found.clone());
            (findings.path_mtu()[0], findings.state()["answer"].as_u64(), findings.faults())
        };
        let silent = Found::default();
        assert_eq!(path_after(&small), (None, Some(1), 1));
        assert_eq!(path_after(&silent), (None, Some(0), 0));
        assert_eq!(path_after(&small), (None, Some(1), 1), "not two rounds in a row");
        assert_eq!(path_after(&small), (Some(1400), Some(1), 1));
        assert_eq!(path_after(&silent), (Some(1400), Some(0), 0));
        assert_eq!(path_after(&silent), (Some(1400), Some(0), 0));
        assert_eq!(path_after(&small), (Some(1400), Some(1), 1));
        assert_eq!(path_after(&Found { answers: true, faults: Vec::new() }), (None, Some(1), 0));
    }
}
