//! Kernel settings of workload interfaces, and forwarding, in the calling thread's network namespace.

use tortie_net::Family;
use tortie_netlink::{Error, Result, sysctl_write_if_different};

/// Settings of a workload interface for IPv4, below `net/ipv4`; `{}` stands for the interface. Names as upstream's.
///
/// `proxy_arp` and `forwarding` let the host answer for 169.254.1.1 and route; `route_localnet` lets NAT lead to the
/// node itself.
const V4: [([&str; 3], &str); 3] =
    [(["conf", "{}", "route_localnet"], "1"), (["conf", "{}", "proxy_arp"], "1"), (["conf", "{}", "forwarding"], "1")];

/// The same for IPv6.
const V6: [([&str; 3], &str); 2] = [(["conf", "{}", "proxy_ndp"], "1"), (["conf", "{}", "forwarding"], "1")];

/// Sets what a workload's interface needs, for the families that it uses. Router advertisements from the workload are
/// never accepted, and IPv4 packets whose source is not routed back through the interface are dropped, whatever the
/// families. Writes only what differs; `true` when anything did.
///
/// All settings are tried; the first error is returned. [`Error::NotFound`]: the interface, or the family, is not there.
pub fn configure_workload_interface(name: &str, families: &[Family]) -> Result<bool> {
    configure(name, families, true)
}

/// The same, but the check of IPv4 sources stays as it is: rules see to that.
pub fn configure_lax_interface(name: &str, families: &[Family]) -> Result<bool> {
    configure(name, families, false)
}

fn configure(name: &str, families: &[Family], check_sources: bool) -> Result<bool> {
    let mut wrote = false;
    let mut first_error = None;
    let mut set = |family: &str, parts: [&str; 3], value: &str, must: bool| {
        let [area, interface, setting] = parts;
        let interface = if interface == "{}" { name } else { interface };
        match sysctl_write_if_different(&[family, area, interface, setting], value) {
            Ok(written) => wrote |= written,
            Err(error) if must && first_error.is_none() => first_error = Some(error),
            Err(_) => {}
        }
    };
    if check_sources {
        set("ipv4", ["conf", "{}", "rp_filter"], "1", true);
    }
    // Without IPv6 in the kernel there is nothing to accept.
    set("ipv6", ["conf", "{}", "accept_ra"], "0", families.contains(&Family::V6));
    for family in families {
        match family {
            Family::V4 => {
                V4.iter().for_each(|(parts, value)| set("ipv4", *parts, value, true));
                // Answering for others is delayed on purpose, in case they answer themselves; here nobody else can.
                set("ipv4", ["neigh", "{}", "proxy_delay"], "0", false);
            }
            Family::V6 => V6.iter().for_each(|(parts, value)| set("ipv6", *parts, value, true)),
        }
    }
    first_error.map_or(Ok(wrote), Err)
}

/// Lets the node forward packets of the families. `true` when that was not so before.
pub fn enable_forwarding(families: &[Family]) -> Result<bool> {
    let mut wrote = false;
    for family in families {
        wrote |= match family {
            Family::V4 => sysctl_write_if_different(&["ipv4", "ip_forward"], "1"),
            Family::V6 => sysctl_write_if_different(&["ipv6", "conf", "all", "forwarding"], "1"),
        }
        .map_err(|error| match error {
            Error::NotFound { doing, .. } => {
                Error::Unsupported { doing, detail: format!("this kernel has no {family}") }
            }
            other => other,
        })?;
    }
    Ok(wrote)
}
