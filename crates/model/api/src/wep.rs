//! Names of workload endpoints and of their interfaces on the host.
//!
//! A name is node, orchestrator, workload and endpoint joined by `-`, with every `-` inside a part doubled, so that
//! the parts can be read back.

use sha1::{Digest as _, Sha1};

/// The parts of a workload endpoint's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    /// The node on which the workload runs.
    pub node: String,
    /// Who runs it, such as `k8s`.
    pub orchestrator: String,
    /// The pod for `k8s`, the container for `cni`, `libnetwork` for `libnetwork`, else the workload.
    pub workload: String,
    /// The interface inside the workload, such as `eth0`.
    pub endpoint: String,
}

/// A part that cannot stand in a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {value:?} of a workload endpoint: expected {}", Self::EXPECTED)]
pub struct EndpointNameError {
    /// Which part.
    pub part: &'static str,
    /// The part as given.
    pub value: String,
}

impl EndpointNameError {
    pub(crate) const EXPECTED: &str = "text that is not empty and neither begins nor ends with '-'";
}

impl EndpointName {
    /// The name of a Kubernetes pod's endpoint.
    pub fn of_pod(node: &str, pod: &str, endpoint: &str) -> EndpointName {
        EndpointName {
            node: node.to_owned(),
            orchestrator: "k8s".to_owned(),
            workload: pod.to_owned(),
            endpoint: endpoint.to_owned(),
        }
    }

    /// The joined name.
    pub fn join(&self) -> Result<String, EndpointNameError> {
        let EndpointName { node, orchestrator, workload, endpoint } = self;
        let parts = [("node", node), ("orchestrator", orchestrator), ("workload", workload), ("endpoint", endpoint)];
        let mut out = Vec::with_capacity(parts.len());
        for (part, value) in parts {
            if value.is_empty() || value.starts_with('-') || value.ends_with('-') {
                return Err(EndpointNameError { part, value: value.clone() });
            }
            out.push(value.replace('-', "--"));
        }
        Ok(out.join("-"))
    }

    /// Reads a joined name; None unless it has exactly four parts.
    pub fn split(name: &str) -> Option<EndpointName> {
        let mut parts = vec![String::new()];
        let mut chars = name.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '-' && chars.next_if_eq(&'-').is_none() {
                parts.push(String::new());
            } else {
                parts.last_mut()?.push(c);
            }
        }
        let [node, orchestrator, workload, endpoint] = parts.try_into().ok()?;
        Some(EndpointName { node, orchestrator, workload, endpoint })
    }
}

/// The host side's interface of a workload: `prefix` and 11 hexadecimal digits of SHA-1 over `NAMESPACE.WORKLOAD`.
pub fn interface_name(prefix: &str, namespace: &str, workload: &str) -> String {
    let hash = Sha1::digest(format!("{namespace}.{workload}").as_bytes());
    let mut hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(11);
    format!("{prefix}{hex}")
}

/// Whether an interface can have this name: 1 to 15 letters, digits, `_`, `.` and `-`.
pub fn is_interface_name(name: &str) -> bool {
    crate::text::is_interface(name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_inside_parts_are_doubled_and_read_back() {
        let name = EndpointName::of_pod("node-1", "web-5f-x", "eth0");
        let text = name.join().expect("good parts");
        assert_eq!(text, "node--1-k8s-web--5f--x-eth0");
        assert_eq!(EndpointName::split(&text), Some(name));
        for wrong in ["", "a-b-c", "a-b-c-d-e", "a--b-c-d"] {
            assert_eq!(EndpointName::split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parts_that_would_be_ambiguous_are_refused() {
        for (node, pod) in [("-n", "p"), ("n", "p-"), ("", "p"), ("n", "")] {
            assert!(EndpointName::of_pod(node, pod, "eth0").join().is_err(), "{node} {pod}");
        }
    }

    #[test]
    fn interfaces_are_named_by_a_hash_and_fit_the_kernel() {
        // echo -n default.nginx | sha1sum
        assert_eq!(interface_name("cali", "default", "nginx"), "calic440f455693");
        assert_eq!(interface_name("cali", "ns", "pod").len(), 15);
    }
}
