//! What other programs of upstream keep in the datastore beside Calico's own facts: OpenStack's driver and the live
//! migrations that it announces. It is read, listed and moved as it is, and nothing here changes it.

use std::fmt;

use crate::key::RESOURCES;

const LIVE_MIGRATIONS: &str = "livemigrations/";
const SUBNETS: &str = "/calico/dhcp/";
const OPENSTACK: &str = "/calico/openstack/";

/// The identity of what another program keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Foreign {
    /// A virtual machine's move to another node, as OpenStack's driver announces it.
    LiveMigration {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A subnet of OpenStack, for its DHCP agent.
    Subnet {
        /// `no-region` or `region-NAME`; empty: under the key of versions without regions.
        region: String,
        /// The subnet's id.
        id: String,
    },
    /// Which of OpenStack's drivers is the leader; it expires.
    Election {
        /// As that of a subnet.
        region: String,
    },
}

impl Foreign {
    /// Upstream's etcd key.
    pub fn path(&self) -> String {
        match self {
            Foreign::LiveMigration { namespace, name } => format!("{RESOURCES}{LIVE_MIGRATIONS}{namespace}/{name}"),
            Foreign::Subnet { region, id } => format!("{SUBNETS}{}subnet/{id}", version(region)),
            Foreign::Election { region } => format!("{OPENSTACK}{}neutron_election", version(region)),
        }
    }

    /// Reads upstream's etcd key; `None`: it is none of these.
    pub(crate) fn from_path(path: &str) -> Option<Foreign> {
        let word = |text: &str| (!text.is_empty() && !text.contains('/')).then(|| text.to_owned());
        if let Some(rest) = path.strip_prefix(RESOURCES).and_then(|rest| rest.strip_prefix(LIVE_MIGRATIONS)) {
            let (namespace, name) = rest.split_once('/')?;
            return Some(Foreign::LiveMigration { namespace: word(namespace)?, name: word(name)? });
        }
        if let Some(rest) = path.strip_prefix(SUBNETS) {
            let (region, rest) = region(rest)?;
            return Some(Foreign::Subnet { region, id: word(rest.strip_prefix("subnet/")?)? });
        }
        let (region, rest) = region(path.strip_prefix(OPENSTACK)?)?;
        (rest == "neutron_election").then_some(Foreign::Election { region })
    }

    /// The prefixes of all of them.
    pub(crate) fn prefixes() -> Vec<String> {
        vec![format!("{RESOURCES}{LIVE_MIGRATIONS}"), SUBNETS.to_owned(), OPENSTACK.to_owned()]
    }

    /// What is wrong with a text as its value, if anything.
    pub(crate) fn wrong(&self, text: &str) -> Option<String> {
        let document = match self {
            // The driver's word for itself.
            Foreign::Election { region: _ } => return None,
            Foreign::LiveMigration { .. } | Foreign::Subnet { .. } => {
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            }
        };
        match (self, document) {
            (_, Err(error)) => Some(format!("expected a JSON object: {error}")),
            (Foreign::LiveMigration { .. }, Ok(object)) => {
                let kind = object.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
                (kind != "LiveMigration").then(|| format!("kind: {kind:?}: expected \"LiveMigration\""))
            }
            (Foreign::Subnet { .. } | Foreign::Election { .. }, Ok(_)) => None,
        }
    }
}

/// The part of a key between its prefix and what it is about.
fn version(region: &str) -> String {
    if region.is_empty() { "v1/".to_owned() } else { format!("v2/{region}/") }
}

/// Reads [`version`]; the region and what is behind it.
fn region(text: &str) -> Option<(String, &str)> {
    if let Some(rest) = text.strip_prefix("v1/") {
        return Some((String::new(), rest));
    }
    let (region, rest) = text.strip_prefix("v2/")?.split_once('/')?;
    (!region.is_empty()).then(|| (region.to_owned(), rest))
}

impl fmt::Display for Foreign {
    /// For messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::LiveMigration { namespace, name } => write!(f, "LiveMigration({namespace}/{name})"),
            Foreign::Subnet { region, id } => write!(f, "subnet {id} of OpenStack ({region})"),
            Foreign::Election { region } => write!(f, "the leader of OpenStack's drivers ({region})"),
        }
    }
}
