//! What resources say beside policy: floating addresses, limits, host endpoints' interfaces, service prefixes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tortie_api as api;
use tortie_desired::{Bandwidth, FloatingAddress, Limits, PacketRate, PeakRate};
use tortie_net::{Family, IpNet, Protocol};

use super::shared;
use crate::bgp::Behind;
use crate::hosts::{LocalHost, Wanted};
use crate::sets::{Item, Slice, service_name};
use crate::strings::Strings;

pub(super) fn floating(spec: &api::WorkloadEndpointSpec, problems: &mut Vec<String>) -> Vec<FloatingAddress> {
    let read = |(index, nat): (usize, &api::IpNat)| {
        let api::IpNat { internal_ip, external_ip } = nat;
        let (internal, external) = (internal_ip.parse().ok()?, external_ip.parse().ok()?);
        let pair = FloatingAddress { external, internal };
        (Family::of(external) == Family::of(internal)).then_some((index, pair))
    };
    let mut out = Vec::new();
    for (index, nat) in spec.ip_nats.iter().enumerate() {
        match read((index, nat)) {
            Some((_, pair)) => out.push(pair),
            None => problems.push(format!("spec.ipNATs[{index}]: no two addresses of one family")),
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Upstream's burst where none is given, packets.
const DEFAULT_PACKET_BURST: u32 = 5;

pub(super) fn limits(spec: &api::WorkloadEndpointSpec) -> Limits {
    let Some(controls) = &spec.qos_controls else { return Limits::default() };
    let api::QosControls {
        ingress_bandwidth,
        ingress_burst,
        ingress_peakrate,
        ingress_minburst,
        egress_bandwidth,
        egress_burst,
        egress_peakrate,
        egress_minburst,
        ingress_packet_rate,
        ingress_packet_burst,
        egress_packet_rate,
        egress_packet_burst,
        ingress_max_connections,
        egress_max_connections,
        dscp,
    } = controls;
    // 0 is no limit; what is over the largest number that can be counted is none either.
    let count = |value: i64| u32::try_from(value).ok().filter(|value| *value > 0);
    let rate = |rate: i64, burst: i64| {
        let burst = count(burst).unwrap_or(DEFAULT_PACKET_BURST);
        count(rate).map(|per_second| PacketRate { per_second, burst })
    };
    Limits {
        ingress_packets: rate(*ingress_packet_rate, *ingress_packet_burst),
        egress_packets: rate(*egress_packet_rate, *egress_packet_burst),
        ingress_connections: count(*ingress_max_connections),
        egress_connections: count(*egress_max_connections),
        dscp: dscp.as_ref().map(api::Dscp::value),
        ingress_bandwidth: bandwidth(*ingress_bandwidth, *ingress_burst, *ingress_peakrate, *ingress_minburst),
        egress_bandwidth: bandwidth(*egress_bandwidth, *egress_burst, *egress_peakrate, *egress_minburst),
    }
}

/// Upstream's burst of bandwidth where none is given, bits.
const DEFAULT_BURST: i64 = 4_294_967_296;
/// A bucket that holds less than a packet would let none through, bytes.
const SMALLEST_BURST: u32 = 10_000;

/// A limit from bits per second, bits, bits per second and, as upstream counts the last, bytes; 0 is none.
fn bandwidth(rate: i64, burst: i64, peak_rate: i64, peak_burst: i64) -> Option<Bandwidth> {
    let bytes = |bits: i64| u64::try_from(bits / 8).ok().filter(|bytes| *bytes > 0);
    let bucket = |size: u64| u32::try_from(size).unwrap_or(u32::MAX).max(SMALLEST_BURST);
    let rate = bytes(rate)?;
    let burst = bucket(bytes(burst).or(bytes(DEFAULT_BURST)).unwrap_or_default());
    let peak = bytes(peak_rate).filter(|peak| *peak > rate);
    let peak = peak.map(|rate| PeakRate { rate, burst: bucket(u64::try_from(peak_burst).unwrap_or_default()) });
    Some(Bandwidth { rate, burst, peak })
}

/// What marks the packets of a pod, and with upstream those of a host endpoint.
const DSCP: &str = "qos.projectcalico.org/dscp";

/// A host endpoint of this node; `None` if it names no interface that a kernel could have.
pub(crate) fn local_host(
    strings: &mut Strings,
    hep: &api::HostEndpoint,
    item: &Item<'_>,
    problems: &mut Vec<String>,
) -> Option<LocalHost> {
    let spec = &hep.spec;
    if hep.metadata.annotations.contains_key(DSCP) {
        problems.push(format!(
            "metadata.annotations[{DSCP}]: not supported for host endpoints; their packets are not marked"
        ));
    }
    let interface = match spec.interface_name.as_str() {
        "*" => Wanted::All,
        "" => Wanted::WithOneOf(item.nets.iter().map(IpNet::addr).collect()),
        name if api::wep::is_interface_name(name) => Wanted::Named(Arc::from(name)),
        name => {
            problems.push(no_interface(name));
            return None;
        }
    };
    Some(LocalHost { interface, profiles: shared(strings, &item.identity.parents) })
}

/// What is said of a name that no interface can have. The kernel compares 16 bytes, so that a longer one could be taken
/// for another interface, or refused together with everything else.
pub(crate) fn no_interface(name: &str) -> String {
    format!(
        "spec.interfaceName: {name:?} is no interface's name (1 to 15 of letters, digits, '_', '.' and '-'), so the endpoint gets no policy here"
    )
}

/// The prefixes of services, whose packets nobody but a translator takes.
pub(crate) fn service_nets(spec: &api::BgpConfigurationSpec) -> BTreeSet<IpNet> {
    let clusters = spec.service_cluster_ips.iter().map(|block| &block.cidr);
    let externals = spec.service_external_ips.iter().map(|block| &block.cidr);
    let balancers = spec.service_load_balancer_ips.iter().map(|block| &block.cidr);
    clusters.chain(externals).chain(balancers).filter_map(|cidr| cidr.net()).collect()
}

/// The addresses and ports that a slice adds to its service; what is no address, such as a name, adds nothing.
/// `here`: the node's name in Kubernetes.
pub(crate) fn slice(slice: &api::KubernetesEndpointSlice, here: &str) -> Slice {
    let api::KubernetesEndpointSliceSpec { service, address_type, endpoints, ports } = &slice.spec;
    let family = ["IPv4", "IPv6"].map(|family| family == address_type);
    let ready = |node: Option<&str>| {
        let ready = |one: &&api::SliceEndpoint| one.ready != Some(false);
        let found = endpoints.iter().filter(ready).any(|one| node.is_none_or(|node| one.node_name == node));
        family.map(|family| family && found)
    };
    let texts = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let port = |api::SlicePort { name: _, protocol, port }: &api::SlicePort| {
        let protocol = match protocol {
            api::KubernetesProtocol::Tcp => Protocol::TCP,
            api::KubernetesProtocol::Udp => Protocol::UDP,
            api::KubernetesProtocol::Sctp => Protocol::SCTP,
        };
        port.map(|port| (protocol, port))
    };
    Slice {
        service: service_name(&slice.metadata.namespace, service),
        addresses: texts.filter_map(|text| text.parse().ok()).collect(),
        ports: ports.iter().filter_map(port).collect(),
        ready: Behind { known: true, ready: ready(None), here: ready(Some(here)) },
    }
}
