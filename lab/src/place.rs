//! A place that packets come from and go to: a pod, a node's host side or a router.

use std::net::IpAddr;

use anyhow::{Context, Result};
use tortie_net::Family;
use tortie_netlink::Netns;

/// A network namespace with its addresses. Sockets that are made in it stay in it, whoever uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    name: String,
    netns: String,
    ips: Vec<IpAddr>,
}

impl Place {
    /// A place of that name in a named namespace.
    pub fn new(name: &str, netns: &str, ips: Vec<IpAddr>) -> Place {
        Place { name: name.to_owned(), netns: netns.to_owned(), ips }
    }

    /// Its name, as tables print it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Its first address of a family.
    pub fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// Name of its namespace.
    pub fn netns_name(&self) -> &str {
        &self.netns
    }

    /// Runs a closure inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        Netns::named(&self.netns)?.run(work)?.with_context(|| format!("in {}", self.name))
    }
}
