//! The words `usePodCidr` and `usePodCidrIPv6` of a configuration of `host-local`, which upstream replaces by the
//! node's own ranges before it runs that plugin.

use ipnet::IpNet;
use serde_json::Value;

use crate::spec::{CniError, code};

const WORD4: &str = "usePodCidr";
const WORD6: &str = "usePodCidrIPv6";

/// Replaces the words in `ipam.subnet` and `ipam.ranges[][].subnet`. `cidrs` is asked for the node's ranges only if a
/// word is there.
pub(crate) fn fill_in(conf: &mut Value, cidrs: impl FnOnce() -> Result<Vec<String>, CniError>) -> Result<(), CniError> {
    let Some(ipam) = conf.get_mut("ipam").filter(|ipam| ipam["type"] == "host-local") else { return Ok(()) };
    let mut places = places(ipam);
    places.retain(|(_, word)| is_word(word));
    if places.is_empty() {
        return Ok(());
    }
    let cidrs = cidrs()?;
    for (place, word) in places {
        let six = word.eq_ignore_ascii_case(WORD6);
        let fits = |text: &&String| text.parse::<IpNet>().is_ok_and(|net| matches!(net, IpNet::V6(_)) == six);
        let Some(cidr) = cidrs.iter().find(fits) else {
            let family = if six { "IPv6" } else { "IPv4" };
            return Err(CniError::new(
                code::INVALID_CONFIG,
                format!("ipam has the subnet {word:?}, but Kubernetes gave this node no {family} range for pods"),
            )
            .with_details("is the controller manager run with --allocate-node-cidrs?"));
        };
        if let Some(subnet) = ipam.pointer_mut(&place) {
            *subnet = Value::from(cidr.as_str());
        }
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    text.eq_ignore_ascii_case(WORD4) || text.eq_ignore_ascii_case(WORD6)
}

/// The subnets of the configuration, with where they stand.
fn places(ipam: &Value) -> Vec<(String, String)> {
    let mut pointers = vec!["/subnet".to_owned()];
    for (set, ranges) in ipam["ranges"].as_array().into_iter().flatten().enumerate() {
        let count = ranges.as_array().map_or(0, Vec::len);
        pointers.extend((0..count).map(|range| format!("/ranges/{set}/{range}/subnet")));
    }
    let text = |pointer: String| {
        let text = ipam.pointer(&pointer)?.as_str()?.to_owned();
        Some((pointer, text))
    };
    pointers.into_iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cidrs() -> Result<Vec<String>, CniError> {
        Ok(vec!["fd00:1::/64".to_owned(), "10.244.1.0/24".to_owned()])
    }

    #[test]
    fn both_forms_of_the_configuration_are_filled_in() {
        let mut conf = json!({ "ipam": { "type": "host-local", "subnet": "UsePodCidr",
            "ranges": [[{ "subnet": "usePodCidr" }], [{ "subnet": "usePodCidrIPv6" }, { "subnet": "10.0.0.0/8" }]] } });
        fill_in(&mut conf, cidrs).expect("both families are there");
        assert_eq!(conf["ipam"]["subnet"], "10.244.1.0/24");
        let ranges =
            json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }, { "subnet": "10.0.0.0/8" }]]);
        assert_eq!(conf["ipam"]["ranges"], ranges);
    }

    #[test]
    fn nobody_is_asked_without_need_and_a_missing_range_is_told() {
        for conf in [json!({ "ipam": { "type": "host-local", "subnet": "10.0.0.0/8" } }), json!({}), json!(1)] {
            fill_in(&mut conf.clone(), || panic!("there is nothing to fill in")).expect("as it is");
        }
        let mut conf = json!({ "ipam": { "type": "host-local", "subnet": "usePodCidrIPv6" } });
        let error = fill_in(&mut conf, || Ok(vec!["10.0.0.0/24".to_owned()])).expect_err("IPv4 alone");
        assert!(error.msg.contains("IPv6"), "{error}");
    }
}
