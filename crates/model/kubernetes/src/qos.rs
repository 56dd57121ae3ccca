//! Limits on a pod's traffic, from its annotations.
//!
//! A limit that is out of range becomes the nearest that is in range; one that can't be read, or that lacks the limit
//! on which it stands, is left out. Both are told.

use std::collections::BTreeMap;

use tortie_api::{Dscp, QosControls};

use crate::quantity;

/// Bits per second, bits, or packets per second: what may be asked for.
struct Range {
    low: i64,
    high: i64,
}

const BANDWIDTH: Range = Range { low: 1_000, high: 1_000_000_000_000_000 };
const BURST: Range = Range { low: 1_000, high: 34_359_738_360 };
const PEAKRATE: Range = Range { low: 1_010, high: 1_010_000_000_000_000 };
const MINBURST: Range = Range { low: 1_000, high: 100_000_000 };
const PACKETS: Range = Range { low: 1, high: 10_000 };
const CONNECTIONS: Range = Range { low: 1, high: 4_294_967_295 };
const DEFAULT_BURST: i64 = 4_294_967_296;
const DEFAULT_PACKET_BURST: i64 = 5;

/// The limits; `None` if there are none. `told` takes annotation, value and what was expected.
pub(crate) fn controls(
    annotations: &BTreeMap<String, String>,
    mut told: impl FnMut(&str, &str, &str),
) -> Option<QosControls> {
    let mut read = |key: &str, range: &Range| {
        let text = annotations.get(key)?;
        let expected = format!("a quantity from {} to {}", range.low, range.high);
        let Some(value) = quantity::whole(text) else {
            told(key, text, &expected);
            return Some(0);
        };
        let fitted = value.clamp(range.low, range.high);
        if fitted != value {
            told(key, text, &format!("{expected}; {fitted} is used"));
        }
        Some(fitted)
    };
    let mut calico = |name: &str, range: &Range| read(&format!("qos.projectcalico.org/{name}"), range);
    let mut out = QosControls::default();
    let calico_bandwidth = [calico("ingressBandwidth", &BANDWIDTH), calico("egressBandwidth", &BANDWIDTH)];
    out.ingress_burst = calico("ingressBurst", &BURST).unwrap_or_default();
    out.egress_burst = calico("egressBurst", &BURST).unwrap_or_default();
    out.ingress_peakrate = calico("ingressPeakrate", &PEAKRATE).unwrap_or_default();
    out.egress_peakrate = calico("egressPeakrate", &PEAKRATE).unwrap_or_default();
    out.ingress_minburst = calico("ingressMinburst", &MINBURST).unwrap_or_default();
    out.egress_minburst = calico("egressMinburst", &MINBURST).unwrap_or_default();
    out.ingress_packet_rate = calico("ingressPacketRate", &PACKETS).unwrap_or_default();
    out.egress_packet_rate = calico("egressPacketRate", &PACKETS).unwrap_or_default();
    out.ingress_packet_burst = calico("ingressPacketBurst", &PACKETS).unwrap_or_default();
    out.egress_packet_burst = calico("egressPacketBurst", &PACKETS).unwrap_or_default();
    out.ingress_max_connections = calico("ingressMaxConnections", &CONNECTIONS).unwrap_or_default();
    out.egress_max_connections = calico("egressMaxConnections", &CONNECTIONS).unwrap_or_default();
    // Kubernetes' own annotations count where Calico's are absent.
    let [ingress, egress] = calico_bandwidth;
    let kubernetes = |direction: &str| format!("kubernetes.io/{direction}-bandwidth");
    out.ingress_bandwidth = ingress.or_else(|| read(&kubernetes("ingress"), &BANDWIDTH)).unwrap_or_default();
    out.egress_bandwidth = egress.or_else(|| read(&kubernetes("egress"), &BANDWIDTH)).unwrap_or_default();
    complete(&mut out, &mut told);
    out.dscp = dscp(annotations, &mut told);
    (out != QosControls::default()).then_some(out)
}

fn dscp(annotations: &BTreeMap<String, String>, told: &mut impl FnMut(&str, &str, &str)) -> Option<Dscp> {
    const KEY: &str = "qos.projectcalico.org/dscp";
    let text = annotations.get(KEY)?;
    let parsed = serde_json::from_value(serde_json::Value::String(text.clone())).ok();
    if parsed.is_none() {
        told(KEY, text, "a DSCP name or a number from 0 to 63");
    }
    parsed
}

/// Takes away what stands on a limit that is not there, then fills in bursts.
fn complete(out: &mut QosControls, told: &mut impl FnMut(&str, &str, &str)) {
    let mut drop = |direction: &str, what: &str, value: &mut i64, needs: &str, met: bool| {
        if *value != 0 && !met {
            told(&format!("qos.projectcalico.org/{direction}{what}"), &value.to_string(), needs);
            *value = 0;
        }
    };
    let QosControls {
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
        ingress_max_connections: _,
        egress_max_connections: _,
        dscp: _,
    } = out;
    let bits = [
        ("ingress", ingress_bandwidth, ingress_burst, ingress_peakrate, ingress_minburst),
        ("egress", egress_bandwidth, egress_burst, egress_peakrate, egress_minburst),
    ];
    for (direction, bandwidth, burst, peakrate, minburst) in bits {
        drop(direction, "Burst", burst, "a bandwidth beside it", *bandwidth != 0);
        let above = *bandwidth != 0 && *peakrate > *bandwidth;
        drop(direction, "Peakrate", peakrate, "more than a bandwidth that is given too", above);
        drop(direction, "Minburst", minburst, "a peak rate beside it", *peakrate != 0);
        if *bandwidth != 0 && *burst == 0 {
            *burst = DEFAULT_BURST;
        }
    }
    let packets =
        [("ingress", ingress_packet_rate, ingress_packet_burst), ("egress", egress_packet_rate, egress_packet_burst)];
    for (direction, rate, burst) in packets {
        drop(direction, "PacketBurst", burst, "a packet rate beside it", *rate != 0);
        if *rate != 0 && *burst == 0 {
            *burst = DEFAULT_PACKET_BURST;
        }
    }
}
