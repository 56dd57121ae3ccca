//! How names, identities and labels of facts are spelt in the Kubernetes API. Every rule is upstream's.

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;
use tortie_facts::{AffinityKey, OwnerKind};
use tortie_net::Family;

/// The longest name that the API takes.
const LONGEST_NAME: usize = 253;

/// A prefix as a name: `10.0.0.0/26` is `10-0-0-0-26`.
pub(crate) fn of_cidr(cidr: IpNet) -> String {
    cidr.trunc().to_string().replace(['.', ':', '/'], "-")
}

/// Reads [`of_cidr`] back.
pub(crate) fn to_cidr(name: &str) -> Option<IpNet> {
    let (address, length) = name.rsplit_once('-')?;
    let length: u8 = length.parse().ok()?;
    let v4 = address.replace('-', ".").parse().ok();
    let address = v4.or_else(|| address.replace('-', ":").parse().ok())?;
    IpNet::new(address, length).ok()
}

/// The name of an affinity: owner and block, cut and hashed where that is too long.
pub(crate) fn of_affinity(key: &AffinityKey) -> String {
    let AffinityKey { kind: _, owner, cidr } = key;
    let block = of_cidr(*cidr);
    let name = format!("{owner}-{block}");
    if name.len() < LONGEST_NAME {
        return name;
    }
    let hash = hex(&Sha256::digest(format!("{owner}+{block}")));
    // Room for the block, eleven digits of the hash and two separators.
    let mut cut = (LONGEST_NAME - 1 - block.len() - 13).min(owner.len());
    while !owner.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}-{block}-{}", &owner[..cut], &hash[..11])
}

/// The key that a node's affinity of this name most likely has; for objects that can't be read otherwise.
pub(crate) fn to_affinity(name: &str) -> Option<AffinityKey> {
    name.match_indices('-').find_map(|(at, _)| {
        let cidr = to_cidr(&name[at + 1..])?;
        Some(AffinityKey { kind: OwnerKind::Host, owner: name[..at].to_owned(), cidr })
    })
}

/// The labels of an affinity, by which upstream looks affinities of one owner up.
pub(crate) fn affinity_labels(key: &AffinityKey) -> [(&'static str, String); 3] {
    let AffinityKey { kind, owner, cidr } = key;
    [
        ("projectcalico.org/affinity-type", kind.word().to_owned()),
        ("projectcalico.org/hostname-hash", base32(&Sha3_256::digest(owner.as_bytes()))),
        ("projectcalico.org/ip-version", Family::of_net(*cidr).version().to_string()),
    ]
}

/// The name of a handle. Names are lower case only; the handle's own spelling stands in the object.
pub(crate) fn of_handle(id: &str) -> String {
    id.to_lowercase()
}

/// Whether the API can hold an object of this name.
pub(crate) fn usable(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    !name.is_empty() && name.len() <= LONGEST_NAME && name != "." && name != ".." && name.chars().all(good)
}

/// The identity of a v3 resource from that of the object that backs it, and back. What is no UUID stays as it is.
pub(crate) fn turn_uid(uid: &str) -> String {
    tortie_kubernetes::transformed_uid(uid).unwrap_or_else(|| uid.to_owned())
}

/// The name that a policy has for users, where the object does not say: without the prefix of the default tier.
pub(crate) fn of_policy<'a>(object: &'a str, tier: &str) -> &'a str {
    match tier {
        "" | "default" => object.strip_prefix("default.").unwrap_or(object),
        _ => object,
    }
}

/// A text inside a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base32 of RFC 4648 without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(DIGITS[(held >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(DIGITS[(held << (5 - bits)) as usize & 31]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(owner: &str, cidr: &str) -> AffinityKey {
        AffinityKey { kind: OwnerKind::Host, owner: owner.to_owned(), cidr: cidr.parse().expect("a prefix") }
    }

    #[test]
    fn prefixes_are_names_and_back() {
        for (cidr, name) in [("10.0.0.0/26", "10-0-0-0-26"), ("fd00:10::40/122", "fd00-10--40-122"), ("::/0", "---0")] {
            let net: IpNet = cidr.parse().expect("a prefix");
            assert_eq!(of_cidr(net), name);
            assert_eq!(to_cidr(name), Some(net), "{name}");
        }
        for name in ["", "nonsense", "10-0-0-26", "10-0-0-0-33", "1-2-3-4"] {
            assert_eq!(to_cidr(name), None, "{name}");
        }
    }

    #[test]
    fn affinities_are_named_by_owner_and_block() {
        let key = affinity("node-1", "10.0.0.0/26");
        assert_eq!(of_affinity(&key), "node-1-10-0-0-0-26");
        assert_eq!(to_affinity("node-1-10-0-0-0-26"), Some(key));
        assert_eq!(to_affinity("nonsense"), None);
        let long = affinity(&"n".repeat(253), "10.0.0.0/26");
        let name = of_affinity(&long);
        assert_eq!(name.len(), 252);
        assert!(name.starts_with(&format!("{}-10-0-0-0-26-", "n".repeat(228))), "{name}");
    }

    #[test]
    fn labels_hold_a_hash_of_the_owner() {
        let [(_, kind), (_, hash), (_, version)] = affinity_labels(&affinity("", "fd00::/122"));
        // SHA3-256 of nothing starts with a7ffc6f8bf1ed766.
        assert_eq!((kind.as_str(), hash.len(), &hash[..12], version.as_str()), ("host", 52, "U774N6F7D3LW", "6"));
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
    }

    #[test]
    fn identities_turn_and_turn_back() {
        let uid = "30316465-6365-4463-ad63-3564622d3638";
        let turned = turn_uid(uid);
        assert_eq!(turned, "0c8c26a6-c6a6-44c6-adc6-ac2646b46c1c");
        assert_eq!(turn_uid(&turned), uid);
        assert_eq!(turn_uid("not one"), "not one");
    }

    #[test]
    fn only_policies_of_the_default_tier_lose_its_prefix() {
        assert_eq!(of_policy("default.x", "default"), "x");
        assert_eq!(of_policy("default.x", ""), "x");
        assert_eq!(of_policy("default.x", "other"), "default.x");
        assert_eq!(of_policy("x", "default"), "x");
    }

    #[test]
    fn names_that_would_leave_their_path_are_refused() {
        for name in ["", "a/b", "..", ".", "a%2f", "a b", "ä", "a?b", "a#b"] {
            assert!(!usable(name), "{name:?}");
        }
        assert!(usable("k8s-pod-network.0a1b") && usable("system:node-1"));
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(name in ".{0,60}") {
            let _ = (to_cidr(&name), to_affinity(&name), usable(&name), turn_uid(&name), of_policy(&name, ""));
            let key = AffinityKey { kind: OwnerKind::Host, owner: name.repeat(8), cidr: "10.0.0.0/26".parse().expect("good") };
            assert!(of_affinity(&key).len() <= LONGEST_NAME);
        }
    }
}
