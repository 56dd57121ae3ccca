//! The files that upstream's `calicoctl` was measured with: one YAML document a resource.

use std::fmt::Write as _;

/// Network sets of ten addresses and two labels each.
pub fn global_network_sets(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let head = format!("  name: gns-{n:06}\n  labels:\n    set: s{n}\n    group: g{}\n", n % 100);
        push(&mut text, "GlobalNetworkSet", &head, "  nets:\n");
        for address in n * 10..n * 10 + 10 {
            let _ = writeln!(text, "  - 10.{}.{}.{}/32", address >> 16 & 255, address >> 8 & 255, address & 255);
        }
        text.push_str("---\n");
    }
    text
}

/// Policies with a rule by selector and ports, and a rule by range.
pub fn network_policies(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let head = format!("  name: np-{n:06}\n  namespace: default\n");
        let spec = format!(
            "  order: {}\n  selector: app == 'a{}'\n  types: [Ingress, Egress]\n  ingress:\n  - action: Allow\n    \
             protocol: TCP\n    source:\n      selector: role == 'r{}'\n    destination:\n      ports: [{}, \
             \"8000:8100\"]\n  egress:\n  - action: Allow\n    destination:\n      nets: [10.{}.{}.0/24]\n---\n",
            n % 1000,
            n % 500,
            n % 100,
            1 + n % 60_000,
            n >> 8 & 255,
            n & 255
        );
        push(&mut text, "NetworkPolicy", &head, &spec);
    }
    text
}

fn push(text: &mut String, kind: &str, head: &str, spec: &str) {
    let _ = write!(text, "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata:\n{head}spec:\n{spec}");
}

#[cfg(test)]
mod tests {
    use tortie_api::manifest;

    use super::*;

    #[test]
    fn every_document_is_a_valid_resource() {
        for text in [global_network_sets(3000), network_policies(300)] {
            let count = manifest::parse("text", &text).unwrap_or_else(|error| panic!("{error}")).len();
            assert_eq!(count, text.matches("---\n").count());
        }
    }
}
