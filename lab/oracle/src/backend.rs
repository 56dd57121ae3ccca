//! What makes the kernel hold the tables: the part that is under test.

use std::os::fd::AsFd;

use anyhow::Result;
use tortie_desired::{Batch, Tables};
use tortie_iptables::{Flavour, Iptables, Options};
use tortie_netlink::Netns;
use tortie_nftables::Nftables;

/// A packet filter of the node.
pub trait Backend {
    /// Its name, for messages.
    fn name(&self) -> String;
    /// Makes the kernel hold what the tables say, whatever it holds.
    fn load(&mut self, tables: &Tables) -> Result<()>;
    /// Makes the kernel hold what the tables say; the batch is what changed in them since the last call.
    fn update(&mut self, tables: &Tables, batch: &Batch) -> Result<()>;
}

/// nf_tables, as the node drives it.
pub struct NftablesBackend(Nftables);

impl NftablesBackend {
    /// nf_tables of a namespace.
    pub fn open(node: &Netns) -> Result<NftablesBackend> {
        // Few worlds have many policies in a row, so that a single one is chosen by a map too.
        let options = tortie_nftables::Options { shortest_run: 1, ..tortie_nftables::Options::default() };
        Ok(NftablesBackend(node.run(|| Nftables::open_with(options))??))
    }
}

impl Backend for NftablesBackend {
    fn name(&self) -> String {
        "nftables".to_owned()
    }

    fn load(&mut self, tables: &Tables) -> Result<()> {
        self.0.resync(tables)?;
        Ok(())
    }

    fn update(&mut self, tables: &Tables, batch: &Batch) -> Result<()> {
        self.0.commit(tables, batch)?;
        Ok(())
    }
}

/// iptables with ipset, as the node drives it.
pub struct IptablesBackend {
    node: Netns,
    flavour: Flavour,
    rules: Iptables,
}

impl IptablesBackend {
    /// iptables of a namespace.
    pub fn open(node: &Netns, flavour: Flavour) -> Result<IptablesBackend> {
        let node = Netns::from(node.as_fd().try_clone_to_owned()?);
        Ok(IptablesBackend { node, flavour, rules: Iptables::new(Options::new(flavour)) })
    }
}

impl Backend for IptablesBackend {
    fn name(&self) -> String {
        format!("iptables-{}", self.flavour)
    }

    fn load(&mut self, tables: &Tables) -> Result<()> {
        // Its programs work in the namespace of the thread that starts them.
        self.node.run(|| self.rules.resync(tables))??;
        Ok(())
    }

    fn update(&mut self, tables: &Tables, batch: &Batch) -> Result<()> {
        self.node.run(|| self.rules.commit(tables, batch))??;
        Ok(())
    }
}
