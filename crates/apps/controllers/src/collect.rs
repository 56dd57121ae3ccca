//! The collection of addresses: looks at the pictures, and rounds against the datastores themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tortie_control::{Course, Got, Leaks, Ledger, Moment, Reclaimed, Round, Summary, Users, Want, metrics, node_of};
use tortie_datastore::ipam;
use tortie_ipam::Settings;
use tortie_store::Store;
use tracing::{info, warn};

use crate::open::Stores;
use crate::picture::Picture;

/// The longest time between two looks, and between two collections of what crashes leave.
const LOOK: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(300);

/// The collection and what it remembers.
#[derive(Default)]
pub(crate) struct Collector {
    leaks: Leaks,
    reclaimed: Reclaimed,
    next_look: Moment,
    next_sweep: Moment,
}

/// The pictures: of the network's facts, and of Kubernetes where it is apart.
pub(crate) struct Pictures<'a> {
    pub(crate) main: &'a Picture,
    pub(crate) beside: Option<&'a Picture>,
}

impl Collector {
    /// Forgets every suspicion: what was seen no longer counts.
    pub(crate) fn forget(&mut self) {
        self.leaks = Leaks::default();
    }

    /// Whether a look is due.
    pub(crate) fn is_due(&self, at: Moment) -> bool {
        at >= self.next_look
    }

    fn users(pictures: &Pictures<'_>, kubernetes: bool) -> Users {
        let mut users = pictures.main.users();
        if let Some(beside) = pictures.beside {
            users.merge(beside.users().told_by_kubernetes());
        }
        if kubernetes { users.told_by_kubernetes() } else { users }
    }

    /// One look, and the round that it leads to. `seen`: whether a fact went back since the last look. `go_on` is asked before every step.
    pub(crate) fn turn(
        &mut self,
        stores: &Stores,
        pictures: &Pictures<'_>,
        seen: Course,
        (at, grace): (Moment, Option<Duration>),
        go_on: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.next_look = at + grace.map_or(LOOK, |grace| (grace / 4).clamp(Duration::from_secs(1), LOOK));
        let (users, ledger) = (Self::users(pictures, stores.kubernetes), pictures.main.ledger());
        let (suspects, course) = self.leaks.look(&users, &ledger, seen, at, grace);
        if course == Course::Back {
            warn!("the datastore shows an older state than before: nothing is collected for a whole grace period");
        }
        let sweep = at >= self.next_sweep && course == Course::Forward;
        if suspects.is_empty() && !sweep {
            return Ok(());
        }
        if sweep {
            self.next_sweep = at + grace.map_or(SWEEP, |grace| grace.min(SWEEP));
        }
        let settings = ipam::settings(&*stores.main)?;
        let holders: BTreeMap<IpAddr, String> =
            ledger.allocations().map(|(one, attribute)| (one.address, node_of(attribute).to_owned())).collect();
        let mut round = Round::new(suspects, sweep, Arc::clone(&settings), ipam::now());
        while let Some(want) = round.next() {
            if !go_on() {
                bail!("the round was left: this process no longer leads, or ends");
            }
            let got = match want {
                Want::Look => look(stores)?,
                Want::Ipam(ask) => Got::Ipam(ipam::answer(&*stores.main, ask)?),
            };
            round.answer(&mut self.leaks, got);
        }
        self.report(round.into_summary(), &settings, &holders)
    }

    fn report(&mut self, summary: Summary, settings: &Settings, holders: &BTreeMap<IpAddr, String>) -> Result<()> {
        let Summary { released, blocks, nodes, collected, failed } = summary;
        for (block, address) in released {
            let node = holders.get(&address).map_or("", String::as_str);
            info!(%address, %block, node, "a leaked address is released");
            self.reclaimed.count(settings, address, node);
        }
        if blocks > 0 {
            info!(blocks, "empty blocks are given up");
        }
        for node in nodes {
            info!(node, "the blocks of a node that is gone are given up");
        }
        if collected != Default::default() {
            info!(?collected, "what was left behind is collected");
        }
        match failed.into_iter().next() {
            Some(error) => Err(error).context("a part of the collection failed"),
            None => Ok(()),
        }
    }

    /// The metrics of address management, by the picture.
    pub(crate) fn metrics(&self, picture: &Picture) -> String {
        let settings = Settings::from_facts(picture.facts());
        metrics(&picture.ledger(), picture.users().nodes(), &settings, &self.leaks, &self.reclaimed)
    }
}

/// A look at the datastores themselves.
fn look(stores: &Stores) -> Result<Got> {
    let told = |store: &dyn Store| -> Result<Users> {
        let listing = store.list(&Users::filter())?;
        let facts = listing.entries.iter().map(|entry| (&entry.key, &entry.value));
        Ok(Users::new(facts, listing.invalid.iter().map(|one| one.path.as_str())))
    };
    let mut users = told(&*stores.main)?;
    if let Some(beside) = &stores.beside {
        users.merge(told(&**beside)?.told_by_kubernetes());
    }
    if stores.kubernetes {
        users = users.told_by_kubernetes();
    }
    let listing = stores.main.list(&Ledger::filter())?;
    Ok(Got::Looked(users, Ledger::new(listing.entries.iter().map(|entry| (&entry.key, &entry.value)))))
}
