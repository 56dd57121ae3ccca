//! Faults made on purpose: what the calculation says, the rules that follow from it, and their bytes for the kernel are
//! each changed as a wrong compiler would, and the packets must tell.
//!
//! A mutant changes the output of a step, at every place where it applies; the code of the product knows nothing of
//! it. Left out are changes that can't change what becomes of a packet.

mod bytes;
mod hosts;
mod rules;
mod tables;
mod wire;

use std::os::fd::OwnedFd;

use anyhow::Result;
use tortie_desired::{Batch, Tables};
use tortie_netlink::Netns;
use tortie_nftables::{TABLE, replacement};
use tortie_ruleset::{Renderer, Ruleset};

use crate::backend::Backend;
use crate::socket;
use wire::Wire;

/// The longest name in rules, as the node has it.
const MAX_NAME_LEN: usize = 200;

/// What is changed.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// What the calculation says.
    Tables(fn(&mut Tables)),
    /// The rules, sets and maps.
    Rules(fn(&mut Ruleset)),
    /// The bytes that go to the kernel.
    Bytes(fn(&mut Wire)),
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What is wrong.
    pub name: &'static str,
    /// How.
    pub change: Change,
}

impl Mutant {
    /// The step whose output is changed.
    pub fn step(&self) -> &'static str {
        match self.change {
            Change::Tables(_) => "calc",
            Change::Rules(_) => "ruleset",
            Change::Bytes(_) => "nftables",
        }
    }
}

/// All of them.
pub fn all() -> Vec<Mutant> {
    let of = |list: &[(&'static str, fn(&mut Tables))]| -> Vec<Mutant> {
        list.iter().map(|(name, change)| Mutant { name, change: Change::Tables(*change) }).collect()
    };
    let mut out = of(&tables::ALL);
    out.append(&mut of(&hosts::TABLES));
    out.extend(
        rules::ALL.iter().chain(&hosts::RULES).map(|(name, change)| Mutant { name, change: Change::Rules(*change) }),
    );
    out.extend(bytes::ALL.iter().map(|(name, change)| Mutant { name, change: Change::Bytes(*change) }));
    out
}

/// nf_tables with a fault, or with none.
pub struct Faulty {
    socket: OwnedFd,
    /// The fault.
    pub mutant: Option<Mutant>,
    /// Whether the fault changed anything at the last load.
    pub applied: bool,
}

impl Faulty {
    /// nf_tables of a namespace.
    pub fn open(node: &Netns) -> Result<Faulty> {
        // Any socket of netfilter's netlink takes batches.
        Ok(Faulty { socket: node.run(socket::conntrack)??, mutant: None, applied: false })
    }
}

impl Backend for Faulty {
    fn name(&self) -> String {
        format!("nftables with the fault {:?}", self.mutant.map_or("none", |mutant| mutant.name))
    }

    fn load(&mut self, tables: &Tables) -> Result<()> {
        let render = |tables: &Tables| Renderer::with_runs(tables, MAX_NAME_LEN, Some(1)).ruleset().clone();
        let right = replacement(TABLE, &render(tables));
        let wrong = match self.mutant.map(|mutant| mutant.change) {
            None => right.clone(),
            Some(Change::Tables(change)) => {
                let mut tables = tables.clone();
                change(&mut tables);
                replacement(TABLE, &render(&tables))
            }
            Some(Change::Rules(change)) => {
                let mut ruleset = render(tables);
                change(&mut ruleset);
                replacement(TABLE, &ruleset)
            }
            Some(Change::Bytes(change)) => {
                let mut wire = Wire::read(&right);
                change(&mut wire);
                wire.write()
            }
        };
        self.applied = wrong != right;
        socket::transact(&self.socket, &wrong)
    }

    fn update(&mut self, tables: &Tables, _: &Batch) -> Result<()> {
        self.load(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = all().iter().map(|mutant| (mutant.step(), mutant.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn bytes_survive_reading_and_writing() {
        let tables = crate::expect::tables(&crate::generate::facts(1));
        let bytes = replacement(TABLE, Renderer::new(&tables, MAX_NAME_LEN).ruleset());
        assert_eq!(Wire::read(&bytes).write(), bytes);
    }
}
