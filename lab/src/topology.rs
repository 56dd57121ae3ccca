//! What a lab consists of, as plain data: subnets, nodes, routers, pools. Nothing here touches the system.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Last part of the first node's address, as in upstream's examples: 172.17.8.101.
const FIRST_NODE: u32 = 101;
/// Last part of the address of what serves the nodes.
const FIRST_SERVICE: u32 = 51;
/// Last part of the first router's address.
const FIRST_ROUTER: u32 = 1;

/// An Ethernet segment that nodes and routers are on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// IPv4 prefix.
    pub v4: Ipv4Net,
    /// IPv6 prefix, when the lab is dual stack.
    pub v6: Option<Ipv6Net>,
}

impl Subnet {
    /// The addresses, with prefix lengths, of the member with that number.
    fn member(&self, number: u32) -> Result<Vec<IpNet>> {
        let Subnet { v4, v6 } = self;
        let addr = Ipv4Addr::from(u32::from(v4.network()) + number);
        if !v4.contains(&addr) || addr == v4.broadcast() {
            bail!("subnet {v4} is too small for its member number {number}: use a /24 or larger");
        }
        let mut all = vec![IpNet::V4(Ipv4Net::new(addr, v4.prefix_len())?)];
        if let Some(v6) = v6 {
            let addr = Ipv6Addr::from(u128::from(v6.network()) + u128::from(number));
            all.push(IpNet::V6(Ipv6Net::new(addr, v6.prefix_len())?));
        }
        Ok(all)
    }
}

/// A node or router: a namespace with an interface on one or more subnets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name, unique in the lab.
    pub name: String,
    /// Its interfaces, `eth0` first.
    pub interfaces: Vec<Attachment>,
    /// Environment of its node process, on top of the lab's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl Machine {
    /// All addresses, without prefix lengths.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.interfaces.iter().flat_map(|a| a.addresses.iter().map(IpNet::addr)).collect()
    }
}

/// An interface on a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Index of the subnet in [`Topology::subnets`].
    pub subnet: usize,
    /// Addresses with the subnet's prefix length.
    pub addresses: Vec<IpNet>,
}

/// The whole lab.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Ethernet segments.
    pub subnets: Vec<Subnet>,
    /// Nodes, which run Tortie.
    pub nodes: Vec<Machine>,
    /// Routers: they join the subnets and run nothing by themselves.
    pub routers: Vec<Machine>,
    /// IP pools that the nodes make at start, at most one of each family.
    pub pools: Vec<IpNet>,
    /// Environment of every node process.
    pub env: BTreeMap<String, String>,
    /// Machines that serve the nodes, such as the datastore's; on every subnet.
    #[serde(default)]
    pub services: Vec<Machine>,
    /// Where the nodes keep facts.
    #[serde(default)]
    pub store: Store,
    /// Which packet filter holds the nodes' policy.
    #[serde(default)]
    pub rules: Rules,
}

/// Which packet filter holds the policy of a lab's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rules {
    /// nf_tables by netlink.
    #[default]
    Nftables,
    /// iptables' own tables, with ipset.
    IptablesLegacy,
    /// iptables over nf_tables, with ipset.
    IptablesNft,
}

impl Rules {
    /// What `TORTIE_LAB_RULES` says, which lets every lab that does not choose by itself run on another one.
    pub fn from_env() -> Result<Rules> {
        match std::env::var("TORTIE_LAB_RULES").as_deref() {
            Err(_) | Ok("" | "nftables") => Ok(Rules::Nftables),
            Ok("iptables-legacy") => Ok(Rules::IptablesLegacy),
            Ok("iptables-nft") => Ok(Rules::IptablesNft),
            Ok(other) => bail!(
                "environment variable TORTIE_LAB_RULES={other:?}: expected \"nftables\", \"iptables-legacy\" or \
                 \"iptables-nft\""
            ),
        }
    }

    /// The node's environment that asks for it.
    pub fn env(self) -> [(&'static str, &'static str); 2] {
        match self {
            Rules::Nftables => [("FELIX_NFTABLESMODE", "Enabled"), ("FELIX_IPTABLESBACKEND", "Auto")],
            Rules::IptablesLegacy => [("FELIX_NFTABLESMODE", "Disabled"), ("FELIX_IPTABLESBACKEND", "Legacy")],
            Rules::IptablesNft => [("FELIX_NFTABLESMODE", "Disabled"), ("FELIX_IPTABLESBACKEND", "NFT")],
        }
    }
}

/// Where the nodes of a lab keep facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Store {
    /// A file in the lab's directory.
    #[default]
    Sqlite,
    /// A real etcd on a machine of its own, with TLS and client certificates.
    Etcd,
    /// A real Kubernetes API server on a machine of its own; a pod comes with its object.
    Kubernetes,
}

impl Store {
    /// What `TORTIE_LAB_STORE` says, which lets every lab that does not choose by itself run on another store.
    pub fn from_env() -> Result<Store> {
        match std::env::var("TORTIE_LAB_STORE").as_deref() {
            Err(_) | Ok("" | "sqlite") => Ok(Store::Sqlite),
            Ok("etcd") => Ok(Store::Etcd),
            Ok("kubernetes") => Ok(Store::Kubernetes),
            Ok(other) => bail!(
                "environment variable TORTIE_LAB_STORE={other:?}: expected \"sqlite\", \"etcd\" or \"kubernetes\""
            ),
        }
    }
}

impl Topology {
    /// Adds a node to a subnet, named `node<n>`, with the next address.
    pub(crate) fn add_node(&mut self, subnet: usize) -> Result<()> {
        let number = self.nodes.len() as u32;
        let interfaces = vec![self.attach(subnet, FIRST_NODE + number)?];
        self.nodes.push(Machine { name: format!("node{}", number + 1), interfaces, env: BTreeMap::new() });
        Ok(())
    }

    /// Adds a router that is on every subnet, with the next of the low addresses.
    pub(crate) fn add_router(&mut self, name: &str) -> Result<()> {
        let number = FIRST_ROUTER + self.routers.len() as u32;
        let interfaces = (0..self.subnets.len()).map(|subnet| self.attach(subnet, number)).collect::<Result<_>>()?;
        self.routers.push(Machine { name: name.to_owned(), interfaces, env: BTreeMap::new() });
        Ok(())
    }

    /// Adds a machine that serves the nodes, on every subnet.
    pub(crate) fn add_service(&mut self, name: &str) -> Result<()> {
        let number = FIRST_SERVICE + self.services.len() as u32;
        let interfaces = (0..self.subnets.len()).map(|subnet| self.attach(subnet, number)).collect::<Result<_>>()?;
        self.services.push(Machine { name: name.to_owned(), interfaces, env: BTreeMap::new() });
        Ok(())
    }

    /// Every machine.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.nodes.iter().chain(&self.routers).chain(&self.services)
    }

    fn attach(&self, subnet: usize, number: u32) -> Result<Attachment> {
        let plan = self.subnets.get(subnet);
        let plan = plan.with_context(|| format!("subnet {subnet}: there are {}", self.subnets.len()))?;
        Ok(Attachment { subnet, addresses: plan.member(number)? })
    }

    /// The node or router of a name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines().find(|m| m.name == name).with_context(|| {
            let names: Vec<_> = self.machines().map(|m| m.name.as_str()).collect();
            format!("no node or router {name:?}: there are {}", names.join(", "))
        })
    }

    /// Default gateways of a subnet's members: the first router's addresses there.
    pub(crate) fn gateways(&self, subnet: usize) -> Vec<IpAddr> {
        let on_subnet = |m: &Machine| m.interfaces.iter().find(|a| a.subnet == subnet).cloned();
        let first = self.routers.iter().find_map(on_subnet);
        first.map_or_else(Vec::new, |a| a.addresses.iter().map(IpNet::addr).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dual() -> Topology {
        let subnet = Subnet { v4: "172.17.8.0/24".parse().unwrap(), v6: Some("fd00:8::/64".parse().unwrap()) };
        Topology { subnets: vec![subnet], ..Topology::default() }
    }

    #[test]
    fn nodes_get_upstreams_example_addresses() {
        let mut topology = dual();
        topology.add_node(0).unwrap();
        topology.add_node(0).unwrap();
        topology.add_router("router").unwrap();
        assert_eq!(topology.nodes[1].name, "node2");
        assert_eq!(topology.nodes[1].ips(), ["172.17.8.102", "fd00:8::66"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(topology.gateways(0), ["172.17.8.1", "fd00:8::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn a_subnet_that_is_too_small_and_a_wrong_name_are_named() {
        let mut topology = dual();
        topology.subnets[0].v4 = "10.0.0.0/28".parse().unwrap();
        assert!(topology.add_node(0).unwrap_err().to_string().contains("10.0.0.0/28"));
        let error = dual().machine("nod1").unwrap_err().to_string();
        assert!(error.contains("nod1"), "{error}");
    }
}
