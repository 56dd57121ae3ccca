//! Assigning one given address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::Block;
use tortie_facts::Key;

use crate::IpamError;
use crate::affinity::{Claim, Claiming};
use crate::assign::Assigned;
use crate::block::{self, Holder, Now};
use crate::books::Books;
use crate::machine::{Ask, CasWrite, Outcome, Pause, Plan};
use crate::pools::{Client, Rejected};
use crate::settings::Settings;
use crate::view::{View, put_block};

/// The operation: assign this address. Selectors, `Manual` pools and reservations do not stand against it, as upstream.
#[derive(Clone, Debug)]
pub struct AssignAt {
    client: Client,
    holder: Holder,
    address: IpAddr,
    settings: Arc<Settings>,
    now: Now,
    got: Option<Assigned>,
    taking: Option<(IpNet, Assigned)>,
    claiming: Claiming,
    books: Books,
    result: Option<Result<Assigned, IpamError>>,
}

impl AssignAt {
    /// The operation. If the handle holds the address already, that is a success.
    pub fn new(client: Client, holder: Holder, address: IpAddr, settings: Arc<Settings>, now: Now) -> AssignAt {
        AssignAt {
            client,
            holder,
            address,
            settings,
            now,
            got: None,
            taking: None,
            claiming: Claiming::default(),
            books: Books::default(),
            result: None,
        }
    }

    fn block(&self) -> Result<IpNet, IpamError> {
        let address = self.address;
        let Some(pool) = self.settings.pool_of(address) else {
            let pools = self.settings.pools.iter().map(|pool| format!("{} ({})", pool.name, pool.cidr)).collect();
            return Err(IpamError::NotInPool { address, pools });
        };
        let refuse = |reason: String| IpamError::PoolRefused {
            address,
            rejected: Rejected { name: pool.name.clone(), cidr: pool.cidr, reason },
        };
        if let Some(reason) = &pool.closed {
            return Err(refuse(reason.clone()));
        }
        if !pool.uses.contains(&self.client.purpose) {
            let uses: Vec<&str> = pool.uses.iter().map(|purpose| purpose.as_str()).collect();
            return Err(refuse(format!("it is not for {} (allowedUses: {})", self.client.purpose, uses.join(", "))));
        }
        pool.block_of(address)
            .ok_or_else(|| refuse(format!("it is smaller than one of its blocks (blockSize {})", pool.block_size)))
    }

    fn body(&mut self, books: &mut Books, view: &mut View) -> Result<Assigned, Pause> {
        if let Some(got) = self.got {
            return Ok(got);
        }
        let cidr = self.block()?;
        let owner = self.client.owner.clone();
        let mut writes = Vec::new();
        let held = match view.block(cidr)? {
            // Somebody else's block is fine unless affinity is strict; one that is nobody's yet is claimed.
            Some(held) if block::owner(&held.value).as_ref() != Some(&owner) => held,
            Some(_) | None => match self.claiming.claim(view, &owner, cidr, self.now)? {
                Claim::Mine { block, confirm } => {
                    writes.extend(confirm);
                    block
                }
                Claim::Taken => view.block(cidr)?.ok_or(Pause::Again)?,
            },
        };
        let block_owner = block::owner(&held.value);
        if self.settings.config.strict_affinity && block_owner.as_ref() != Some(&owner) {
            let owner = block_owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
            return Err(IpamError::NotAffine { address: self.address, block: cidr, owner }.into());
        }
        let mut next = Block::clone(&held.value);
        block::thaw(&mut next, self.now, self.settings.config.ip_cooldown_seconds);
        let mut assigned = Assigned { address: self.address, block: cidr, sequence: next.sequence_number };
        if let (Some(handle), Some(at)) = (&self.holder.handle, block::ordinal(cidr, self.address))
            && block::holder(&next, at).and_then(|a| a.handle_id.as_ref()) == Some(handle)
        {
            view.only_fresh()?;
            assigned.sequence = block::sequence(&next, at);
            return Ok(assigned);
        }
        block::assign_at(cidr, &mut next, self.address, &self.holder)?;
        if let Some(handle) = &self.holder.handle {
            writes.push(books.raise(view, handle, cidr, 1)?);
        }
        writes.push(put_block(cidr, Some(&held), next));
        self.taking = Some((cidr, assigned));
        Err(Pause::Ask(Ask::Write(writes)))
    }
}

impl Plan for AssignAt {
    type Output = Assigned;

    fn plan(&mut self, view: &mut View) -> Result<Assigned, Pause> {
        let mut books = std::mem::take(&mut self.books);
        let mut result = self.result.take();
        let done = books.finish(view, &mut result, |books, view| self.body(books, view));
        self.books = books;
        self.result = result;
        done
    }

    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        self.books.wrote(writes, outcomes);
        self.claiming.wrote(writes, outcomes);
        let Some((cidr, assigned)) = self.taking.take() else { return };
        let block = writes.iter().zip(outcomes).find(|(write, _)| write.key == Key::Block(cidr));
        if matches!(block, Some((_, Outcome::Done(_)))) {
            self.got = Some(assigned);
        }
    }
}
