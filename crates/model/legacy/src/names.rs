//! Names of v1 as names of v3, by the rules of upstream's converter: whoever refers to a converted resource, in
//! whatever way it was converted, finds it under the same name.

use std::net::IpAddr;

use sha1::{Digest as _, Sha1};

/// In small letters, with `/` as `.`, everything else that no name holds as `-`, runs of `.` and `-` with a `.` as one
/// `.`, and neither at the ends.
fn normalized(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for c in name.to_lowercase().chars() {
        match c {
            '/' => plain.push('.'),
            '-' | '.' | 'a'..='z' | '0'..='9' => plain.push(c),
            _ if plain.ends_with('\u{0}') => {}
            _ => plain.push('\u{0}'),
        }
    }
    let plain = plain.replace('\u{0}', "-");
    let mut out = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while let Some(start) = rest.find(['.', '-']) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| c != '.' && c != '-').unwrap_or(from.len());
        let (run, after) = from.split_at(end);
        out.push_str(before);
        out.push_str(if run.contains('.') { "." } else { run });
        rest = after;
    }
    out.push_str(rest);
    out.trim_matches(['.', '-']).to_owned()
}

/// A name that had to change carries eight digits of a hash of what it was, so that two never become one.
fn qualified(old: &str, new: String) -> String {
    if old == new {
        return new;
    }
    let digest = Sha1::digest(old.as_bytes());
    let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{new}-{hex}")
}

/// The name of a node: normalised, and never qualified, since the node itself calls itself so.
pub(crate) fn node(old: &str) -> String {
    normalized(old)
}

/// The name of anything else.
pub(crate) fn name(old: &str) -> String {
    qualified(old, normalized(old))
}

/// The name of a policy, in which a dot would end the tier's name.
pub(crate) fn policy(old: &str) -> String {
    qualified(old, normalized(old).replace('.', "-"))
}

/// The name of a profile; those of Kubernetes namespaces begin otherwise now.
pub(crate) fn profile(old: &str) -> String {
    match old.strip_prefix("k8s_ns.") {
        Some(namespace) => name(&format!("kns.{namespace}")),
        None => name(old),
    }
}

/// An address as part of a name: `10-0-0-1`, or all eight groups of an IPv6 address.
pub(crate) fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:04x}")).join("-"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_change_as_little_as_they_must() {
        for (old, new) in [
            ("plain-name.1", "plain-name.1"),
            ("Node1.Example.COM", "node1.example.com"),
            ("a/b", "a.b"),
            ("a__b", "a-b"),
            ("a-_b", "a--b"),
            ("a.-.b", "a.b"),
            ("-.a.-", "a"),
            ("...", ""),
        ] {
            assert_eq!(node(old), new, "{old}");
        }
    }

    #[test]
    fn changed_names_carry_a_hash_of_the_old_one() {
        assert_eq!(name("kept"), "kept");
        // printf 'My_Policy' | sha1sum
        assert_eq!(policy("My_Policy"), format!("my-policy-{}", sha1_of("My_Policy")));
        assert_eq!(policy("a.b"), format!("a-b-{}", sha1_of("a.b")));
        assert_eq!(profile("k8s_ns.default"), "kns.default");
        assert_ne!(name("a_b"), name("a+b"));
    }

    fn sha1_of(text: &str) -> String {
        Sha1::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn addresses_are_written_out() {
        assert_eq!(address(IpAddr::from([10, 0, 0, 1])), "10-0-0-1");
        let v6: IpAddr = "aa:bb::".parse().expect("a literal");
        assert_eq!(address(v6), "00aa-00bb-0000-0000-0000-0000-0000-0000");
    }

    proptest! {
        #[test]
        fn normal_names_stay(name in "\\PC{0,20}") {
            let once = normalized(&name);
            prop_assert!(once.chars().all(|c| matches!(c, '-' | '.' | 'a'..='z' | '0'..='9')), "{}", once);
            prop_assert_eq!(normalized(&once), once);
        }
    }
}
