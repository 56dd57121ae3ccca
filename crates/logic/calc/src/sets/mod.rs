//! Which sets rules can ask for, by what they hold.

mod ipsets;
mod item;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha224};
use tortie_desired::SetId;
use tortie_net::Protocol;
use tortie_selector::Selector;

pub(crate) use ipsets::IpSets;
pub(crate) use item::{Item, ItemKey, ItemKind, NamedPort};

use crate::rules::protocol_text;

/// A port by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortName {
    /// The protocol that the port must have, if any.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) name: Arc<str>,
}

/// What a set holds: the addresses, or the ports of one name, of everything that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetSpec {
    pub(crate) id: SetId,
    pub(crate) selector: Selector,
    pub(crate) port: Option<PortName>,
}

impl SetSpec {
    pub(crate) fn of_selector(selector: Selector) -> SetSpec {
        SetSpec { id: SetId::new(&selector.id()), selector, port: None }
    }

    /// The id is a hash over the selector's id, the protocol and the name, as upstream's.
    pub(crate) fn of_port(selector: Selector, port: PortName) -> SetSpec {
        let mut hash = Sha224::new();
        hash.update(format!("n:{},{},{}", selector.id(), protocol_text(port.protocol), port.name));
        let id = SetId::new(&format!("n:{}", URL_SAFE_NO_PAD.encode(hash.finalize())));
        SetSpec { id, selector, port: Some(port) }
    }

    /// For people: the selector, and the port if there is one.
    pub(crate) fn describe(&self) -> String {
        match &self.port {
            None => self.selector.to_string(),
            Some(PortName { protocol, name }) => {
                format!("port {name} ({}) of {}", protocol_text(*protocol), self.selector)
            }
        }
    }
}
