//! What makes the kernel hold the tables: the part that is under test.

use anyhow::Result;
use tortie_desired::{Batch, Tables};
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
        Ok(NftablesBackend(node.run(Nftables::open)??))
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
