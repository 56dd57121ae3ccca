//! Describing a lab before it is made.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::etcd;
use crate::lab::Lab;
use crate::topology::{Rules, Store, Subnet, Topology};

/// A lab to make: by default three nodes on 172.17.8.0/24 with the pool 192.168.0.0/16, IPv4 only.
#[derive(Clone, Debug, Default)]
pub struct LabBuilder {
    pub(crate) id: Option<String>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) keep: bool,
    nodes: Option<usize>,
    extra_nodes: Vec<usize>,
    subnets: Vec<String>,
    subnets6: Vec<String>,
    routers: Vec<String>,
    pools: Vec<String>,
    no_pool: bool,
    store: Option<Store>,
    rules: Option<Rules>,
    env: Vec<(String, String)>,
    node_env: Vec<(String, String, String)>,
}

impl LabBuilder {
    /// The lab's id, part of its namespaces' names; by default one that no other lab has.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// How many nodes are on the first subnet.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// One more node, on the subnet of that index.
    pub fn node_in(mut self, subnet: usize) -> Self {
        self.extra_nodes.push(subnet);
        self
    }

    /// An IPv4 subnet, such as "172.17.8.0/24"; may be called again for more.
    pub fn subnet(mut self, net: &str) -> Self {
        self.subnets.push(net.to_owned());
        self
    }

    /// The IPv6 prefix of the first subnet that has none yet, such as "fd00:8::/64".
    pub fn subnet6(mut self, net: &str) -> Self {
        self.subnets6.push(net.to_owned());
        self
    }

    /// IPv6 beside IPv4: nodes on fd00:8::/64, and the pool fd00:192:168::/48.
    pub fn dual_stack(self) -> Self {
        self.subnet6("fd00:8::/64").pool("fd00:192:168::/48")
    }

    /// A router on every subnet; nodes have their default route through the first.
    pub fn router(mut self, name: &str) -> Self {
        self.routers.push(name.to_owned());
        self
    }

    /// The IP pool of its family that nodes make at start.
    pub fn pool(mut self, net: &str) -> Self {
        self.pools.push(net.to_owned());
        self
    }

    /// No pool is made at start.
    pub fn no_pool(mut self) -> Self {
        self.no_pool = true;
        self
    }

    /// Where nodes keep facts; by default what [`Store::from_env`] says.
    pub fn store(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Which packet filter holds the nodes' policy; by default what [`Rules::from_env`] says.
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = Some(rules);
        self
    }

    /// A variable of every node process's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A variable of one node process's environment.
    pub fn node_env(mut self, node: &str, name: &str, value: &str) -> Self {
        self.node_env.push((node.to_owned(), name.to_owned(), value.to_owned()));
        self
    }

    /// The binary to run; by default [`crate::binary::find`] finds it.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The lab stays when its [`Lab`] is dropped or this process ends, until `tortie lab down`.
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Makes the namespaces and links, and starts the datastore if it is a program; no node is started.
    pub fn up(self) -> Result<Lab> {
        let topology = self.topology()?;
        let mut lab = Lab::make(self, topology)?;
        lab.start_store()?;
        Ok(lab)
    }

    pub(crate) fn topology(&self) -> Result<Topology> {
        let v4 = |text: &str| text.parse::<Ipv4Net>().with_context(|| format!("subnet {text:?}: expected a.b.c.d/n"));
        let v6 = |text: &str| text.parse::<Ipv6Net>().with_context(|| format!("subnet {text:?}: expected x:y::/n"));
        let default = ["172.17.8.0/24".to_owned()];
        let subnets = if self.subnets.is_empty() { &default[..] } else { &self.subnets[..] };
        let mut topology = Topology::default();
        for (at, text) in subnets.iter().enumerate() {
            let v6 = self.subnets6.get(at).map(|text| v6(text)).transpose()?;
            topology.subnets.push(Subnet { v4: v4(text)?.trunc(), v6: v6.map(|net| net.trunc()) });
        }
        for _ in 0..self.nodes.unwrap_or(3) {
            topology.add_node(0)?;
        }
        for subnet in &self.extra_nodes {
            topology.add_node(*subnet)?;
        }
        for router in &self.routers {
            topology.add_router(router)?;
        }
        topology.store = self.store.map_or_else(Store::from_env, Ok)?;
        topology.rules = self.rules.map_or_else(Rules::from_env, Ok)?;
        match topology.store {
            Store::Sqlite => {}
            Store::Etcd | Store::Kubernetes => topology.add_service(etcd::MACHINE)?,
        }
        topology.pools = self.pools()?;
        topology.env = self.env.iter().cloned().collect();
        for (node, name, value) in &self.node_env {
            let found = topology.nodes.iter_mut().find(|machine| machine.name == *node);
            let machine = found.with_context(|| format!("environment for {node:?}: no such node"))?;
            machine.env.insert(name.clone(), value.clone());
        }
        Ok(topology)
    }

    fn pools(&self) -> Result<Vec<IpNet>> {
        if self.no_pool {
            return Ok(Vec::new());
        }
        let parse = |text: &String| text.parse::<IpNet>().with_context(|| format!("pool {text:?}: expected a prefix"));
        let mut pools = self.pools.iter().map(parse).collect::<Result<Vec<_>>>()?;
        if !pools.iter().any(|pool| matches!(pool, IpNet::V4(_))) {
            pools.insert(0, "192.168.0.0/16".parse().expect("a prefix"));
        }
        Ok(pools)
    }
}
