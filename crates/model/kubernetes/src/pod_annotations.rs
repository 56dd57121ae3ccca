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

fn list(meta: &ObjectMeta, key: &str, object: &Object<'_>) -> Result<Vec<String>, ConversionError> {
    let Some(text) = meta.annotation(key) else { return Ok(Vec::new()) };
    let wrong = |_| object.error(format!("metadata.annotations[{key}]"), format!("{text:?}"), "a JSON list of texts");
    serde_json::from_str(text).map_err(wrong)
}

/// Sources other than its own that the pod may send from.
pub(crate) fn allowed_sources(meta: &ObjectMeta, object: &Object<'_>) -> Result<Vec<IpNetText>, ConversionError> {
    let texts = list(meta, ALLOWED_SOURCES, object)?;
    let at = format!("metadata.annotations[{ALLOWED_SOURCES}]");
    texts.iter().map(|text| prefix(text).map_err(|wrong| object.wrong(wrong.below(&at)))).collect()
}

/// Addresses that stand for the pod's towards the outside: each for the pod's last address of the same family.
pub(crate) fn floating_ips(
    meta: &ObjectMeta,
    addresses: &[IpAddr],
    object: &Object<'_>,
) -> Result<Vec<IpNat>, ConversionError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let own = |family| addresses.iter().rev().find(|addr| Family::of(**addr) == family);
    let nat = |external: &String| {
        let family = if external.contains(':') { Family::V6 } else { Family::V4 };
        own(family).map(|own| IpNat { internal_ip: own.to_string(), external_ip: external.clone() })
    };
    Ok(list(meta, FLOATING_IPS, object)?.iter().filter_map(nat).collect())
}
