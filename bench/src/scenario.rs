//! The workload of the memory and latency benchmarks: local and remote endpoints, and policies that refer to them.
//!
//! The same counts, labels, ports and addresses as upstream was measured with, so that figures can be compared.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use anyhow::Result;
use serde_json::{Value as Json, json};
use tortie_api::Resource;
use tortie_facts::Value;
use tortie_netlink::{Handle, VethPeer, VethSpec};
use tortie_store::resource::resource_key;
use tortie_store::{Expect, Store, Write};

use crate::bed::Bed;
use crate::node::NODE;
use crate::topology::Host;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Endpoints of this node.
    pub local: usize,
    /// Endpoints of fifty other nodes.
    pub remote: usize,
    /// Policies, each selecting one hundredth of the local endpoints and admitting one hundredth of all.
    pub policies: usize,
    /// Network sets of [`NETS`] prefixes, each admitted by every hundredth policy too.
    pub network_sets: usize,
}

/// Prefixes of a network set.
const NETS: usize = 10_000;

/// Writes it all.
pub fn populate(store: &dyn Store, scale: Scale) -> Result<()> {
    let Scale { local, remote, policies, network_sets } = scale;
    let mut writes = base().into_iter().map(|json| write(&json)).collect::<Result<Vec<_>>>()?;
    for n in 0..policies {
        let mut policy = policy(n, None);
        if network_sets > 0 && n % 100 == 0 {
            let from = json!({ "action": "Allow", "source": { "selector": format!("netset == 'n{}'", n / 100) } });
            policy["spec"]["ingress"].as_array_mut().expect("policies have such rules").push(from);
        }
        writes.push(write(&policy)?);
    }
    for n in 0..network_sets {
        writes.push(write(&network_set(n))?);
    }
    for n in 0..remote {
        writes.push(write(&remote_endpoint(n, n % 100))?);
    }
    for n in 0..local {
        writes.push(write(&local_endpoint(n))?);
    }
    for part in writes.chunks(500) {
        store.write_all(part)?;
    }
    Ok(())
}

/// Makes the devices of the endpoints of this node, with nothing behind them.
pub fn devices(bed: &mut Bed, host: &Host, local: usize) -> Result<()> {
    let (pods, _) = bed.namespace("pods")?;
    let mut near = Handle::open_in(&host.netns)?;
    for n in 0..local {
        let peer_name = format!("p{n:05}");
        let peer = VethPeer { name: &peer_name, mac: None, netns: Some(pods.as_fd()) };
        near.create_veth(&VethSpec { name: &interface(n), mac: None, mtu: None, up: true, peer })?;
    }
    Ok(())
}

/// The write that puts a resource there, whatever was there.
pub fn write(json: &Json) -> Result<Write> {
    let resource = Resource::from_json(&json.to_string())?;
    Ok(Write { key: resource_key(&resource), expect: Expect::Any, value: Some(Value::resource(resource)) })
}

fn base() -> Vec<Json> {
    let object = |kind: &str, name: &str, spec: Json| json!({ "apiVersion": API, "kind": kind, "metadata": { "name": name }, "spec": spec });
    let allow = json!([{ "action": "Allow" }]);
    vec![
        object(
            "IPPool",
            "pool1",
            json!({ "cidr": "10.65.0.0/16", "ipipMode": "Never", "vxlanMode": "Never", "blockSize": 26, "nodeSelector": "all()" }),
        ),
        object("Tier", "default", json!({ "order": 1_000_000, "defaultAction": "Deny" })),
        object(
            "Profile",
            "kns.default",
            json!({ "ingress": allow, "egress": allow, "labelsToApply": { "pcns.name": "default" } }),
        ),
    ]
}

const API: &str = "projectcalico.org/v3";

/// An endpoint of this node.
pub fn local_endpoint(n: usize) -> Json {
    let address = Ipv4Addr::new(10, 65, octet((n + 2) >> 8), octet(n + 2));
    endpoint(NODE, n, address, &interface(n), "a", n % 100)
}

/// The interface of an endpoint of this node.
pub fn interface(n: usize) -> String {
    format!("cali{n:05}")
}

/// An endpoint of another node; `role` is the number in its role label, which policies select by.
pub fn remote_endpoint(n: usize, role: usize) -> Json {
    endpoint(&format!("node{}", 1 + n % 50), 100_000 + n, remote_address(n), &format!("cali{n:07}"), "b", role)
}

/// The address of a remote endpoint.
pub fn remote_address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, octet(70 + (n >> 16)), octet(n >> 8), octet(n))
}

fn endpoint(node: &str, n: usize, address: Ipv4Addr, interface: &str, app: &str, role: usize) -> Json {
    let pod = format!("pod{n:06}");
    json!({
        "apiVersion": API, "kind": "WorkloadEndpoint",
        "metadata": {
            "name": format!("{node}-k8s-{pod}-eth0"), "namespace": "default",
            "labels": {
                "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s",
                "app": format!("{app}{}", n % 100), "role": format!("r{role}"),
            },
        },
        "spec": {
            "orchestrator": "k8s", "node": node, "containerID": format!("cid{n}"), "pod": pod, "endpoint": "eth0",
            "ipNetworks": [format!("{address}/32")], "profiles": ["kns.default"], "interfaceName": interface,
        },
    })
}

fn network_set(n: usize) -> Json {
    let net = |at: usize| {
        let number = n * NETS + at;
        if at % 2 == 1 {
            format!("172.{}.{}.{}/32", octet(16 + (number >> 16)), octet(number >> 8), octet(number))
        } else {
            format!("100.{}.{}.{}/28", 64 + (number >> 12 & 63), octet(number >> 4), octet((number & 15) << 4))
        }
    };
    json!({
        "apiVersion": API, "kind": "GlobalNetworkSet",
        "metadata": { "name": format!("gns-{n:06}"), "labels": { "netset": format!("n{n}") } },
        "spec": { "nets": (0..NETS).map(net).collect::<Vec<_>>() },
    })
}

/// A policy, with one more admitted address if wanted.
pub fn policy(n: usize, also: Option<Ipv4Addr>) -> Json {
    let mut ingress = vec![json!({
        "action": "Allow", "protocol": "TCP", "source": { "selector": format!("role == 'r{}'", n % 100) },
        "destination": { "ports": [n + 1, "8000:8100"] },
    })];
    ingress.extend(also.map(|address| json!({ "action": "Allow", "source": { "nets": [format!("{address}/32")] } })));
    json!({
        "apiVersion": API, "kind": "NetworkPolicy",
        "metadata": { "name": format!("np-{n:06}"), "namespace": "default" },
        "spec": {
            "tier": "default", "order": n, "selector": format!("app == 'a{}'", n % 100), "types": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [{ "action": "Allow", "destination": { "nets": [format!("10.{}.{}.0/24", octet(n >> 8), octet(n))] } }],
        },
    })
}

fn octet(number: usize) -> u8 {
    u8::try_from(number & 255).expect("the low eight bits fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_valid_and_has_a_key_of_its_own() {
        let mut keys = std::collections::BTreeSet::new();
        let all =
            base().into_iter().chain([policy(7, Some(Ipv4Addr::LOCALHOST)), local_endpoint(3), remote_endpoint(4, 5)]);
        for json in all {
            let write = write(&json).expect("a resource");
            let resource = write.value.as_ref().and_then(Value::as_resource).expect("a resource").clone();
            resource.validate().unwrap_or_else(|e| panic!("{json}: {e:?}"));
            assert!(keys.insert(write.key.path()), "{json}");
        }
    }
}
