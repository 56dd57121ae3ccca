//! The pod's veth pair and everything inside the pod's namespace.
//!
//! One message makes both ends, each in its own namespace, so a failure leaves nothing behind. The pod needs no ARP for
//! its gateway: a permanent neighbour says where it is, which also works on hosts without a default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tortie_cni::waits;
use tortie_net::{Family, IpNet, Mac, host_net};
use tortie_netlink::{
    AddressSpec, Error, Handle, Netns, NextHop, Route, RouteProtocol, VethPeer, VethSpec, sysctl_write,
    sysctl_write_if_different,
};
use tracing::warn;

/// The gateway of every pod, as upstream: it exists on no interface.
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The link-local address of the host's side, derived from its Ethernet address (RFC 4291, appendix A).
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// A pod's interface to make.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name on the host, such as `cali1a2b3c4d5e6`.
    pub host_name: &'a str,
    /// Name in the pod, such as `eth0`.
    pub pod_name: &'a str,
    /// The pod's namespace.
    pub netns: &'a Netns,
    /// MTU of both ends, bytes.
    pub mtu: u32,
    /// Ethernet address of the pod's side.
    pub mac: Mac,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// Where the pod's routes lead; none for a default route of each family.
    pub routes: &'a [IpNet],
    /// Whether the pod may forward packets.
    pub forwarding: bool,
}

/// Why there is no interface.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The pod has an interface of that name already.
    #[error("the container has an interface {0} already")]
    TakenInPod(String),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
}

/// Makes the pair and sets up both sides. A device of the host's name that is left over from an earlier pod is replaced.
pub fn create(host: &mut Handle, wanted: &Wanted<'_>) -> Result<(), DeviceError> {
    let families: Vec<Family> = families(wanted).collect();
    begin(host, wanted, &families)?;
    Ok(finish(host, wanted)?)
}

/// All of [`create`] that needs no address but their families; [`finish`] does the rest. If it fails, nothing is left.
pub fn begin(host: &mut Handle, wanted: &Wanted<'_>, families: &[Family]) -> Result<(), DeviceError> {
    let spec = VethSpec {
        name: wanted.host_name,
        mac: Some(Mac::WORKLOAD_HOST_SIDE),
        mtu: Some(wanted.mtu),
        up: false,
        peer: VethPeer { name: wanted.pod_name, mac: Some(wanted.mac), netns: Some(wanted.netns.as_fd()) },
    };
    match host.create_veth(&spec) {
        Ok(_) => {}
        Err(error) if error.is_exists() => {
            let in_pod = wanted.netns.run(|| Handle::open()?.link(wanted.pod_name).map(drop))?;
            if in_pod.is_ok() {
                return Err(DeviceError::TakenInPod(wanted.pod_name.to_owned()));
            }
            host.delete_link(wanted.host_name)?;
            host.create_veth(&spec)?;
        }
        Err(error) => return Err(error.into()),
    }
    let made = host_side(host, wanted, families).and_then(|()| wanted.netns.run(|| pod_side(wanted, families))?);
    Ok(or_nothing(host, wanted, made)?)
}

/// Gives the pair its addresses and routes, and waits until it passes packets. If it fails, nothing is left.
pub fn finish(host: &mut Handle, wanted: &Wanted<'_>) -> Result<(), Error> {
    let made = wanted.netns.run(|| pod_addresses(wanted));
    let made = made.and_then(|made| made).and_then(|()| until_it_runs(host, wanted.host_name));
    or_nothing(host, wanted, made)
}

fn or_nothing(host: &mut Handle, wanted: &Wanted<'_>, made: Result<(), Error>) -> Result<(), Error> {
    if made.is_err() {
        // The error that is told is the first one; a device that can't be deleted now is swept later.
        let _ = host.delete_link(wanted.host_name);
    }
    made
}

/// Settings of the host's side before it comes up, as upstream has them.
fn host_side(host: &mut Handle, wanted: &Wanted<'_>, families: &[Family]) -> Result<(), Error> {
    tortie_routing::configure_workload_interface(wanted.host_name, families)?;
    host.set_link_up(wanted.host_name, true)
}

fn families<'a>(wanted: &'a Wanted<'_>) -> impl Iterator<Item = Family> + 'a {
    families_of(wanted.addresses)
}

/// The families that these addresses are of.
pub fn families_of(addresses: &[IpAddr]) -> impl Iterator<Item = Family> + '_ {
    Family::ALL.into_iter().filter(|family| addresses.iter().any(|addr| Family::of(*addr) == *family))
}

/// The pod's routes of a family.
fn routes(wanted: &Wanted<'_>, family: Family) -> Vec<IpNet> {
    if wanted.routes.is_empty() {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        return vec![IpNet::new(any, 0).expect("a prefix of no bits is one")];
    }
    wanted.routes.iter().copied().filter(|net| Family::of_net(*net) == family).collect()
}

/// Settings of the pod's side, and up. Runs inside the pod's namespace.
fn pod_side(wanted: &Wanted<'_>, families: &[Family]) -> Result<(), Error> {
    let has6 = families.contains(&Family::V6);
    if has6 {
        for scope in ["all", "default", "lo", wanted.pod_name] {
            sysctl_write_if_different(&["ipv6", "conf", scope, "disable_ipv6"], "0")?;
        }
        sysctl_write(&["ipv6", "conf", wanted.pod_name, "accept_dad"], "0")?;
    }
    Handle::open()?.set_link_up(wanted.pod_name, true)?;
    let forward = if wanted.forwarding { "1" } else { "0" };
    sysctl_write_if_different(&["ipv4", "ip_forward"], forward)?;
    if has6 {
        sysctl_write_if_different(&["ipv6", "conf", "all", "forwarding"], forward)?;
    }
    Ok(())
}

/// Runs inside the pod's namespace.
fn pod_addresses(wanted: &Wanted<'_>) -> Result<(), Error> {
    let mut pod = Handle::open()?;
    let link = pod.link(wanted.pod_name)?;
    for family in families(wanted) {
        for addr in wanted.addresses.iter().filter(|addr| Family::of(**addr) == family) {
            pod.add_address(&AddressSpec::new(link.index, host_net(*addr)))?;
        }
        let gateway = match family {
            Family::V4 => IpAddr::V4(GATEWAY4),
            Family::V6 => IpAddr::V6(GATEWAY6),
        };
        pod.set_neighbour(link.index, gateway, Mac::WORKLOAD_HOST_SIDE)?;
        if family == Family::V4 {
            pod.replace_route(Route::link(host_net(gateway), link.index, RouteProtocol::BOOT))?;
        }
        for net in routes(wanted, family) {
            pod.replace_route(Route::via(net, vec![NextHop::via(gateway, link.index)], RouteProtocol::BOOT))?;
        }
    }
    until_it_runs(&mut pod, wanted.pod_name)
}

/// Waits until the device passes packets: on a busy host the kernel comes round to a new carrier late, and until then
/// the pod's first packets would be lost without a word.
fn until_it_runs(handle: &mut Handle, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + waits::RUNNING;
    while !handle.link(name)?.running {
        if Instant::now() >= deadline {
            warn!(interface = name, "the device is up but does not pass packets yet");
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// A random Ethernet address: locally administered, for one station.
pub fn random_mac() -> Mac {
    let [first, b, c, d, e, f, ..] = *uuid::Uuid::new_v4().as_bytes();
    Mac([first & 0xfc | 0x02, b, c, d, e, f])
}

/// What CHECK finds wrong in the pod; empty: everything is as ADD made it.
pub fn check(wanted: &Wanted<'_>) -> Result<Vec<String>, Error> {
    wanted.netns.run(|| {
        let mut pod = Handle::open()?;
        let mut wrong = Vec::new();
        let link = match pod.link(wanted.pod_name) {
            Ok(link) => link,
            Err(error) if error.is_not_found() => {
                return Ok(vec![format!("the container has no interface {}", wanted.pod_name)]);
            }
            Err(error) => return Err(error),
        };
        if !link.up {
            wrong.push(format!("the container's interface {} is down", wanted.pod_name));
        }
        let held = pod.addresses()?;
        for addr in wanted.addresses {
            if !held.iter().any(|a| a.index == link.index && a.net.addr() == *addr) {
                wrong.push(format!("the container's interface {} lacks the address {addr}", wanted.pod_name));
            }
        }
        let held = pod.routes(&tortie_netlink::RouteFilter::default())?;
        for net in families(wanted).flat_map(|family| routes(wanted, family)) {
            let leads = |r: &Route| r.net == net && r.hops.iter().any(|hop| hop.interface == link.index);
            if !held.iter().any(leads) {
                let name = if net.prefix_len() == 0 {
                    format!("{} default route", Family::of_net(net))
                } else {
                    format!("route to {net}")
                };
                wrong.push(format!("the container has no {name} on {}", wanted.pod_name));
            }
        }
        Ok(wrong)
    })?
}
