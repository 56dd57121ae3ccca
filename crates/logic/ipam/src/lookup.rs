//! Reading: the addresses of a handle, and who holds an address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::Attribute;

use crate::IpamError;
use crate::assign::Assigned;
use crate::block::{self, handle_text};
use crate::machine::{CasWrite, Outcome, Pause, Plan};
use crate::settings::Settings;
use crate::view::View;

/// The operation: which addresses a handle holds. An unknown handle is an error, as in a release.
#[derive(Clone, Debug)]
pub struct AddressesOf {
    id: String,
}

impl AddressesOf {
    /// The operation.
    pub fn new(id: &str) -> AddressesOf {
        AddressesOf { id: handle_text(id).to_owned() }
    }
}

impl Plan for AddressesOf {
    type Output = Vec<Assigned>;

    fn plan(&mut self, view: &mut View) -> Result<Vec<Assigned>, Pause> {
        view.only_fresh()?;
        let Some(handle) = view.handle(&self.id)? else {
            return Err(IpamError::UnknownHandle(self.id.clone()).into());
        };
        let cidrs: Vec<IpNet> = handle.value.block.keys().filter_map(|text| text.parse().ok()).collect();
        view.need_blocks(cidrs.iter().copied().filter(|cidr| !view.broken(*cidr)))?;
        let mut found = Vec::new();
        for cidr in cidrs {
            let Some(held) = view.block(cidr)? else { continue };
            found.extend(block::ordinals_of(&held.value, &self.id).into_iter().map(|ordinal| Assigned {
                address: block::address(cidr, ordinal),
                block: cidr,
                sequence: block::sequence(&held.value, ordinal),
            }));
        }
        Ok(found)
    }

    fn wrote(&mut self, _writes: &[CasWrite], _outcomes: &[Outcome]) {}
}

/// The operation: what is recorded for an address; `None` if nobody holds it. Its `released_at` is set in cooldown.
#[derive(Clone, Debug)]
pub struct WhoHas {
    address: IpAddr,
    settings: Arc<Settings>,
}

impl WhoHas {
    /// The operation.
    pub fn new(address: IpAddr, settings: Arc<Settings>) -> WhoHas {
        WhoHas { address, settings }
    }
}

impl Plan for WhoHas {
    type Output = Option<Attribute>;

    fn plan(&mut self, view: &mut View) -> Result<Option<Attribute>, Pause> {
        view.only_fresh()?;
        let cidr = match self.settings.pool_of(self.address).and_then(|pool| pool.block_of(self.address)) {
            Some(cidr) => Some(cidr),
            None => view.all_blocks()?.into_iter().map(|(cidr, _)| cidr).find(|cidr| cidr.contains(&self.address)),
        };
        let Some(cidr) = cidr else { return Ok(None) };
        let Some(held) = view.block(cidr)? else { return Ok(None) };
        let at = block::ordinal(cidr, self.address);
        Ok(at.and_then(|at| block::attribute(&held.value, at)).cloned())
    }

    fn wrote(&mut self, _writes: &[CasWrite], _outcomes: &[Outcome]) {}
}
