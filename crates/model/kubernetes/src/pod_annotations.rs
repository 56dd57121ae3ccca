//! What a pod's annotations say about its endpoint.

use std::net::IpAddr;

use tortie_api::{IpNat, IpNetText};
use tortie_net::Family;

use crate::ObjectMeta;
use crate::error::{ConversionError, Object};
use crate::network_policy::prefix;

/// The first address; the CNI plugin makes it empty when the pod's network is gone.
pub(crate) const POD_IP: &str = "cni.projectcalico.org/podIP";
/// The addresses, joined by commas.
pub(crate) const POD_IPS: &str = "cni.projectcalico.org/podIPs";
/// The addresses as Amazon's CNI plugin notes them.
pub(crate) const AWS_POD_IPS: &str = "vpc.amazonaws.com/pod-ips";
/// Which container of that name it is.
pub(crate) const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";
/// What Multus notes about further interfaces.
pub(crate) const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
const FLOATING_IPS: &str = "cni.projectcalico.org/floatingIPs";
const ALLOWED_SOURCES: &str = "cni.projectcalico.org/allowedSourcePrefixes";

/// What an annotation lists; what can't be read is told and counts as absent, which only takes from the pod.
fn list(meta: &ObjectMeta, key: &str, object: &Object<'_>, problems: &mut Vec<ConversionError>) -> Vec<String> {
    let Some(text) = meta.annotation(key) else { return Vec::new() };
    serde_json::from_str(text).unwrap_or_else(|_| {
        let field = format!("metadata.annotations[{key}]");
        problems.push(object.error(field, format!("{text:?}"), "a JSON list of texts"));
        Vec::new()
    })
}

/// Sources other than its own that the pod may send from.
pub(crate) fn allowed_sources(
    meta: &ObjectMeta,
    object: &Object<'_>,
    problems: &mut Vec<ConversionError>,
) -> Vec<IpNetText> {
    let mut out = Vec::new();
    for text in list(meta, ALLOWED_SOURCES, object, problems) {
        match prefix(&text) {
            Ok(net) => out.push(net),
            Err(wrong) => {
                problems.push(object.wrong(wrong.below(&format!("metadata.annotations[{ALLOWED_SOURCES}]"))));
            }
        }
    }
    out
}

/// Addresses that stand for the pod's towards the outside: each for the pod's last address of the same family.
pub(crate) fn floating_ips(
    meta: &ObjectMeta,
    addresses: &[IpAddr],
    object: &Object<'_>,
    problems: &mut Vec<ConversionError>,
) -> Vec<IpNat> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::new();
    for text in list(meta, FLOATING_IPS, object, problems) {
        let Ok(external) = text.parse::<IpAddr>() else {
            let field = format!("metadata.annotations[{FLOATING_IPS}]");
            problems.push(object.error(field, format!("{text:?}"), "an address"));
            continue;
        };
        let own = addresses.iter().rev().find(|addr| Family::of(**addr) == Family::of(external));
        out.extend(own.map(|own| IpNat { internal_ip: own.to_string(), external_ip: text }));
    }
    out
}
