//! Which sets rules can ask for, by what they hold.

mod ipsets;
mod item;
mod owners;
mod services;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha224};
use tortie_desired::SetId;
use tortie_net::Protocol;
use tortie_selector::Selector;

pub(crate) use ipsets::IpSets;
pub(crate) use item::{Item, ItemKey, ItemKind, NamedPort};
pub(crate) use services::{Slice, service_name};

use crate::rules::protocol_text;
use crate::selectors::Selectors;

/// A port by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortName {
    /// The protocol that the port must have, if any.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) name: Arc<str>,
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetSpec {
    /// Of everything that a selector matches.
    Selected(Selected),
    /// Of a service.
    Service(OfService),
}

/// The addresses, or the ports of one name, of everything that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    pub(crate) id: SetId,
    pub(crate) selector: Selector,
    pub(crate) port: Option<PortName>,
}

/// What is behind a service: its addresses, or its addresses with its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfService {
    pub(crate) id: SetId,
    /// Namespace and name, as [`service_name`] joins them.
    pub(crate) service: Arc<str>,
    pub(crate) ports: bool,
}

fn hash_id(prefix: &str, text: &str) -> SetId {
    let hash = Sha224::digest(format!("{prefix}:{text}"));
    SetId::new(&format!("{prefix}:{}", URL_SAFE_NO_PAD.encode(hash)))
}

impl SetSpec {
    pub(crate) fn of_selector(known: &mut Selectors, selector: Selector) -> SetSpec {
        SetSpec::Selected(Selected { id: known.set_id(&selector), selector, port: None })
    }

    /// The id is a hash over the service's name, as upstream's.
    pub(crate) fn of_service(service: Arc<str>, ports: bool) -> SetSpec {
        let id = hash_id(if ports { "svc" } else { "svcnoport" }, &service);
        SetSpec::Service(OfService { id, service, ports })
    }

    /// The id is a hash over the selector's id, the protocol and the name, as upstream's.
    pub(crate) fn of_port(selector: Selector, port: PortName) -> SetSpec {
        let id = hash_id("n", &format!("{},{},{}", selector.id(), protocol_text(port.protocol), port.name));
        SetSpec::Selected(Selected { id, selector, port: Some(port) })
    }

    pub(crate) fn id(&self) -> &SetId {
        match self {
            SetSpec::Selected(Selected { id, selector: _, port: _ }) => id,
            SetSpec::Service(OfService { id, service: _, ports: _ }) => id,
        }
    }
}

impl Selected {
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

impl OfService {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        let OfService { id: _, service, ports } = self;
        format!("{} service {service}", if *ports { "addresses and ports of" } else { "addresses of" })
    }
}
