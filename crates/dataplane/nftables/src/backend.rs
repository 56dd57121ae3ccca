//! The backend that a node drives: commit batches, read back and repair, hear of foreign changes.
//!
//! Invariant: what a transaction does not change stays as it was, whatever fails; after a refusal the next call reads
//! everything back before it writes.

mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use tortie_dataplane::ForeignChange;
use tortie_desired::{Batch, Tables};
use tortie_ruleset::{CauseOwner, Delta, Name, Renderer, SHORTEST_RUN};

use crate::compare;
use crate::error::Error;
use crate::events::{self, Gatherer};
use crate::observe::{self, SeenTable, observe};
use crate::socket::{Socket, unavailable};
use crate::transaction::{Transaction, Written};
use crate::uapi::table;
use crate::write::{self, Handles};

/// The table's name. Upstream's tables are called `calico` in the families ip and ip6; this one, in the family inet,
/// can't be taken for one of them, so nodes that clean up after the other system leave it alone.
pub const TABLE: &str = "tortie";

/// The longest name that the kernel takes is 255 bytes; longer ones are hashed well before.
pub const MAX_NAME_LEN: usize = 200;

/// Choices at opening; the default is right for a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the table.
    pub table: String,
    /// Whether the table is to be owned (Linux 6.9 and later): nobody else can change or flush it, and it outlives
    /// its owner. Where the kernel lacks this, foreign changes are possible and reported.
    pub own: bool,
    /// How many policies in a row are chosen from by a map instead of being asked one after the other.
    pub shortest_run: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { table: TABLE.to_owned(), own: true, shortest_run: SHORTEST_RUN }
    }
}

/// What a commit wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// How much; nothing if the batch changes no rule.
    pub written: Written,
    /// Whether all was read back and compared, as after a start or a refusal.
    pub resynced: bool,
    /// Policies and profiles that the kernel refuses, and why; they deny everything.
    pub unsupported: BTreeMap<String, String>,
}

/// What a resync found and wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// How much was written; nothing if the kernel held just what it should.
    pub written: Written,
    /// Chains and sets that were missing or wrong.
    pub repaired: Vec<Name>,
    /// Chains and sets in our table that did not belong there, removed.
    pub foreign: Vec<Name>,
    /// Whether the table was replaced as a whole, in one step.
    pub replaced: bool,
    /// Whether the table is owned: safe from foreign changes.
    pub owned: bool,
    /// Policies and profiles that the kernel refuses, and why; they deny everything.
    pub unsupported: BTreeMap<String, String>,
}

/// The node's rules in nf_tables.
#[derive(Debug)]
pub struct Nftables {
    options: Options,
    socket: Socket,
    monitor: Option<Socket>,
    gatherer: Gatherer,
    /// What the kernel holds; `None`: not known.
    renderer: Option<Renderer>,
    owned: bool,
    /// Whose rules the kernel refused, and why.
    refused: BTreeMap<CauseOwner, String>,
}

impl Nftables {
    /// Opens nf_tables of the calling thread's network namespace. Changes nothing yet.
    pub fn open() -> Result<Nftables, Error> {
        Nftables::open_with(Options::default())
    }

    /// Like [`Nftables::open`], with choices.
    pub fn open_with(options: Options) -> Result<Nftables, Error> {
        let socket = Socket::open(false).map_err(unavailable)?;
        let gatherer = Gatherer::default();
        let refused = BTreeMap::new();
        Ok(Nftables { options, socket, monitor: None, gatherer, renderer: None, owned: false, refused })
    }

    /// Commits a batch in one transaction; `tables` already hold it. The first call, and the one after a refusal,
    /// compares with the kernel instead. On an error nothing has changed in the kernel.
    pub fn commit(&mut self, tables: &Tables, batch: &Batch) -> Result<CommitReport, Error> {
        if self.changes_refused(batch) {
            self.renderer = None;
        }
        let Some(mut renderer) = self.renderer.take() else { return self.commit_all(tables) };
        let delta = renderer.update(tables, batch);
        let handles = self.handles(&delta)?;
        let mut transaction = Transaction::new(&self.options.table, None);
        write::delta(&mut transaction, &delta, &handles);
        match transaction.commit(&mut self.socket) {
            Ok(written) => {
                self.renderer = Some(renderer);
                Ok(CommitReport { written, resynced: false, unsupported: self.unsupported() })
            }
            // Somebody may have changed what the delta builds on: compare, and then the refusal is final or gone.
            Err(Error::Refused { object, errno, detail }) => {
                tracing::warn!(%object, %errno, detail, "nf_tables refused a change; reading all back");
                self.commit_all(tables)
            }
            Err(other) => Err(other),
        }
    }

    fn commit_all(&mut self, tables: &Tables) -> Result<CommitReport, Error> {
        let RepairReport { written, unsupported, .. } = self.resync(tables)?;
        Ok(CommitReport { written, resynced: true, unsupported })
    }

    /// The handles of the rules of chains that keep some of them. A chain that does not hold what it should has none, so
    /// that it is written anew.
    fn handles(&mut self, delta: &Delta) -> Result<Handles, Error> {
        let mut all = Handles::new();
        for (name, had) in write::kept_in_part(delta) {
            if let Some(handles) = observe::handles(&mut self.socket, &self.options.table, name)?
                && handles.len() == had.rules.len()
            {
                all.insert(name.clone(), handles);
            }
        }
        Ok(all)
    }

    /// Reads the whole table back and makes it hold what `tables` say, in one transaction; writes nothing if it does.
    /// A policy that the kernel refuses a rule of denies everything, until it changes or the next call.
    pub fn resync(&mut self, tables: &Tables) -> Result<RepairReport, Error> {
        self.refused.clear();
        loop {
            match self.resync_without_refused(tables) {
                Ok(report) => return Ok(RepairReport { unsupported: self.unsupported(), ..report }),
                Err(error) if self.leave_out(tables, &error) => {}
                Err(error) => {
                    self.refused.clear();
                    return Err(error);
                }
            }
        }
    }

    fn resync_without_refused(&mut self, tables: &Tables) -> Result<RepairReport, Error> {
        self.renderer = None;
        let refused: BTreeSet<CauseOwner> = self.refused.keys().cloned().collect();
        let renderer = Renderer::without(tables, MAX_NAME_LEN, Some(self.options.shortest_run), refused);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.converge(&renderer) {
                Err(Error::Refused { errno: Errno::ERESTART, .. }) if attempts < 8 => {}
                Err(Error::Refused { object: crate::Object::Table, errno, .. })
                    if self.options.own && [Errno::EOPNOTSUPP, Errno::EINVAL].contains(&errno) =>
                {
                    tracing::info!("this kernel has no owned, persistent tables; foreign changes will be repaired");
                    self.options.own = false;
                }
                Ok(report) => {
                    self.owned = report.owned;
                    self.renderer = Some(renderer);
                    return Ok(report);
                }
                Err(other) => return Err(other),
            }
        }
    }

    fn converge(&mut self, renderer: &Renderer) -> Result<RepairReport, Error> {
        if !self.options.own && self.monitor.is_none() {
            // Before reading, so that no change after it goes unheard.
            self.monitor = Some(Socket::open(true).map_err(unavailable)?);
        }
        let wanted = renderer.ruleset();
        let flags = if self.options.own { table::FLAG_OWNER | table::FLAG_PERSIST } else { 0 };
        let (mut seen, mut generation) = observe(&mut self.socket, &self.options.table)?;
        if let Some(left) = &seen
            && self.claim(left)? == Claim::Take
            && compare::frame_differs(left, wanted)
        {
            // A transaction that takes a table over can't add base chains to it (`nf_tables_addchain`).
            let mut take = Transaction::new(&self.options.table, Some(generation));
            take.table(flags);
            take.commit(&mut self.socket)?;
            (seen, generation) = observe(&mut self.socket, &self.options.table)?;
        }
        let mut transaction = Transaction::new(&self.options.table, Some(generation));
        let mut report = RepairReport { owned: self.options.own, ..RepairReport::default() };
        match seen {
            None => {
                transaction.table(flags);
                write::everything(&mut transaction, wanted);
                report.repaired = wanted.chains.keys().chain(wanted.sets.keys()).cloned().collect();
            }
            Some(seen) => {
                let claim = self.claim(&seen)?;
                if claim == Claim::Replace || compare::needs_replacement(&seen, wanted) {
                    if claim == Claim::Take {
                        transaction.table(flags);
                    }
                    transaction.delete_table();
                    transaction.table(flags);
                    write::everything(&mut transaction, wanted);
                    report.replaced = true;
                } else {
                    if claim == Claim::Take {
                        transaction.table(flags);
                    }
                    let differences = compare::repair(&mut transaction, &seen, wanted);
                    (report.repaired, report.foreign) = (differences.wrong, differences.foreign);
                }
            }
        }
        report.written = transaction.commit(&mut self.socket)?;
        Ok(report)
    }

    /// What must happen to a table that is there before it is ours.
    fn claim(&self, seen: &SeenTable) -> Result<Claim, Error> {
        let SeenTable { flags, owner, chains: _, sets: _ } = seen;
        let dormant = flags & table::FLAG_DORMANT != 0;
        match owner {
            Some(port) if *port == self.socket.port() => Ok(Claim::Keep),
            Some(port) => Err(Error::Owned { table: self.options.table.clone(), port: *port }),
            // When the owner of a persistent table dies, the kernel takes the owner's flag off and lets the next
            // owner come.
            None if self.options.own && flags & table::FLAG_PERSIST != 0 && !dormant => Ok(Claim::Take),
            // A dormant table filters nothing, and a table without those flags can't become an owned one.
            None if self.options.own || dormant => Ok(Claim::Replace),
            None => Ok(Claim::Keep),
        }
    }

    /// Whether nobody else can change the table.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Becomes readable when rules change, by anyone in the network namespace; then call
    /// [`Nftables::drain_events`]. `None` before the first resync, and while the table is owned, as then nobody else
    /// can change it.
    pub fn monitor_fd(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(Socket::fd)
    }

    /// Changes of our table by others since the last call; never waits. Answer any with [`Nftables::resync`].
    pub fn drain_events(&mut self) -> Vec<ForeignChange> {
        match &mut self.monitor {
            Some(monitor) => events::drain(monitor, &mut self.gatherer, &self.options.table, self.socket.port()),
            None => Vec::new(),
        }
    }

    /// Removes the table and with it every rule of ours. Removing what is not there is fine.
    pub fn remove_all(&mut self) -> Result<(), Error> {
        self.renderer = None;
        let (seen, generation) = observe(&mut self.socket, &self.options.table)?;
        let Some(seen) = seen else { return Ok(()) };
        let mut transaction = Transaction::new(&self.options.table, Some(generation));
        if self.claim(&seen)? == Claim::Take {
            transaction.table(table::FLAG_OWNER | table::FLAG_PERSIST);
        }
        transaction.delete_table();
        transaction.commit(&mut self.socket)?;
        self.owned = false;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It is ours.
    Keep,
    /// Its owner is gone: take it over as it is.
    Take,
    /// It can't be ours: replace it.
    Replace,
}
