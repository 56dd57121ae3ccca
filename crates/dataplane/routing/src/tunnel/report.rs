//! What a pass over the tunnels did, and what is not as wanted after it.

use std::collections::BTreeMap;
use std::fmt;

use tortie_dataplane::{Cause, Report};
use tortie_desired::TunnelDevice;

use super::{ForwardingKey, NeighbourKey};

/// What one pass over the tunnels did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelReport {
    /// Why links and addresses could not be read, if that failed.
    pub blind: Option<Cause>,
    /// The devices.
    pub devices: Report<TunnelDevice>,
    /// Forwarding entries.
    pub forwarding: Report<ForwardingKey>,
    /// Permanent neighbours.
    pub neighbours: Report<NeighbourKey>,
    /// Devices that lack something, and what.
    pub waiting: BTreeMap<TunnelDevice, String>,
}

impl TunnelReport {
    /// Whether all is as wanted.
    pub fn is_clean(&self) -> bool {
        let TunnelReport { blind, devices, forwarding, neighbours, waiting } = self;
        let clean = devices.is_clean() && forwarding.is_clean() && neighbours.is_clean();
        clean && blind.is_none() && waiting.is_empty()
    }

    /// Whether the pass changed anything.
    pub fn wrote(&self) -> bool {
        self.devices.wrote() || self.forwarding.wrote() || self.neighbours.wrote()
    }
}

impl fmt::Display for TunnelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TunnelReport { blind, devices, forwarding, neighbours, waiting } = self;
        write!(f, "tunnels: {devices}; forwarding: {forwarding}; neighbours: {neighbours}")?;
        if let Some(cause) = blind {
            write!(f, "; can't read links: {cause}")?;
        }
        waiting.iter().try_for_each(|(device, what)| write!(f, "; {device}: {what}"))
    }
}
