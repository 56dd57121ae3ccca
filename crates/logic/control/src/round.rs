//! One round of collecting addresses: what is due is looked at once more and released, step by step.
//!
//! Like the operations of [`tortie_ipam`] a round asks and is answered, and may be dropped between any two asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_ipam::{
    Answer, Ask, Claimed, Collect, Collected, IpamError, Machine, Next, Now, Owner, Plan, Release, ReleaseAffinities,
    Scope, Settings, View,
};

use crate::leaks::{Abandoned, Leaks, Suspects};
use crate::ledger::Ledger;
use crate::users::Users;

/// What a round needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// A look at the datastores themselves, made from now on and not from a picture of before: users first, then blocks.
    Look,
    /// A step of IPAM.
    Ipam(Ask),
}

/// The answer to a [`Want`].
#[derive(Clone, Debug)]
pub enum Got {
    /// Who uses addresses, and the blocks that were listed after that.
    Looked(Users, Ledger),
    /// The answer of the datastore.
    Ipam(Answer),
}

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Addresses that were released, with their block.
    pub released: Vec<(IpNet, std::net::IpAddr)>,
    /// Blocks that their owner was relieved of.
    pub blocks: usize,
    /// Nodes that are gone and own nothing any more.
    pub nodes: BTreeSet<String>,
    /// What the collection of the rest did.
    pub collected: Collected,
    /// What could not be done; it is tried again in the next round.
    pub failed: Vec<IpamError>,
}

#[derive(Clone, Debug)]
enum Stage {
    Looking(Suspects),
    Releasing(IpNet, Machine<Release>),
    GivingUp(Machine<ReleaseAffinities>),
    Collecting(Machine<Collect>),
    Over,
}

/// A round.
#[derive(Clone, Debug)]
pub struct Round {
    stage: Stage,
    leaks: Vec<(IpNet, Vec<Claimed>)>,
    empty: Vec<(Owner, IpNet)>,
    gone: BTreeSet<String>,
    sweep: bool,
    settings: Arc<Settings>,
    now: Now,
    summary: Summary,
}

impl Round {
    /// A round over what is due. `sweep`: what crashes left of handles, affinities and cooled addresses is collected
    /// too, which lists all of them.
    pub fn new(suspects: Suspects, sweep: bool, settings: Arc<Settings>, now: Now) -> Round {
        let mut round = Round {
            stage: Stage::Over,
            leaks: Vec::new(),
            empty: Vec::new(),
            gone: BTreeSet::new(),
            sweep,
            settings,
            now,
            summary: Summary::default(),
        };
        round.stage = if suspects.is_empty() { round.after() } else { Stage::Looking(suspects) };
        round
    }

    /// What comes next, once a stage is over.
    fn after(&mut self) -> Stage {
        let settings = || Arc::clone(&self.settings);
        if let Some((cidr, claimed)) = self.leaks.pop() {
            return Stage::Releasing(cidr, Machine::new(Release::new(claimed, settings(), self.now), View::default()));
        }
        if let Some((owner, cidr)) = self.empty.pop() {
            let plan = ReleaseAffinities::new(Scope::Block(owner, cidr), true, settings(), self.now);
            return Stage::GivingUp(Machine::new(plan, View::default()));
        }
        if self.sweep || !self.gone.is_empty() {
            self.sweep = false;
            self.summary.nodes = std::mem::take(&mut self.gone);
            let plan = Collect::new(settings(), self.now, self.summary.nodes.clone(), None);
            return Stage::Collecting(Machine::new(plan, View::default()));
        }
        Stage::Over
    }

    /// What is needed next; `None`: the round is over.
    #[allow(clippy::should_implement_trait, reason = "no iterator: what comes next depends on the answer")]
    pub fn next(&mut self) -> Option<Want> {
        loop {
            let ended = match &mut self.stage {
                Stage::Over => return None,
                Stage::Looking(_) => return Some(Want::Look),
                Stage::Releasing(cidr, machine) => match machine.next() {
                    Next::Ask(ask) => return Some(Want::Ipam(ask)),
                    Next::Done(Ok(done)) => {
                        self.summary.released.extend(done.released.into_iter().map(|address| (*cidr, address)));
                        Ok(())
                    }
                    // Given out anew meanwhile: what was meant is no more.
                    Next::Done(Err(IpamError::BadSequence { .. } | IpamError::BadHandle { .. })) => Ok(()),
                    Next::Done(Err(error)) => Err(error),
                },
                Stage::GivingUp(machine) => match step(machine) {
                    Ok(ask) => return Some(Want::Ipam(ask)),
                    Err(done) => done.map(|given| self.summary.blocks += given.len()),
                },
                Stage::Collecting(machine) => match step(machine) {
                    Ok(ask) => return Some(Want::Ipam(ask)),
                    Err(done) => done.map(|collected| self.summary.collected = collected),
                },
            };
            if let Err(error) = ended {
                self.summary.failed.push(error);
            }
            self.stage = self.after();
        }
    }

    /// Takes the answer to the last want. One that does not fit ends the round.
    pub fn answer(&mut self, leaks: &mut Leaks, got: Got) {
        match (&mut self.stage, got) {
            (Stage::Looking(suspects), Got::Looked(users, ledger)) => {
                let abandoned = leaks.confirm(std::mem::take(suspects), &users, &ledger);
                let Abandoned { leaks, nodes, empty } = abandoned;
                self.leaks = leaks.into_iter().collect();
                self.empty = empty;
                self.gone = nodes;
                self.stage = self.after();
            }
            (Stage::Releasing(_, machine), Got::Ipam(answer)) => machine.answer(answer),
            (Stage::GivingUp(machine), Got::Ipam(answer)) => machine.answer(answer),
            (Stage::Collecting(machine), Got::Ipam(answer)) => machine.answer(answer),
            (Stage::Over, _) | (_, Got::Looked(..)) | (Stage::Looking(_), Got::Ipam(_)) => {
                self.summary.failed.push(IpamError::Store("an answer that was not asked for".to_owned()));
                self.stage = Stage::Over;
            }
        }
    }

    /// What the round did.
    pub fn into_summary(self) -> Summary {
        self.summary
    }
}

/// The next ask of a machine, or what came of it.
fn step<P: Plan>(machine: &mut Machine<P>) -> Result<Ask, Result<P::Output, IpamError>> {
    match machine.next() {
        Next::Ask(ask) => Ok(ask),
        Next::Done(done) => Err(done),
    }
}
