//! Which pools a request may take addresses from, and why not from the others.

use std::fmt;

use ipnet::IpNet;
use tortie_api::{IpPoolAllowedUse, LabelMap};
use tortie_net::Family;
use tortie_selector::Selector;

use crate::settings::{Pool, Settings};
use crate::{IpamError, Owner};

/// Who asks, as far as pools care.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// The owner of the blocks that are used.
    pub owner: Owner,
    /// The node's labels.
    pub node_labels: LabelMap,
    /// The namespace's labels; empty for what has no namespace.
    pub namespace_labels: LabelMap,
    /// What the addresses are for.
    pub purpose: IpPoolAllowedUse,
}

impl Client {
    /// A node that wants addresses for workloads without a namespace.
    pub fn workload(host: impl Into<String>) -> Client {
        Client {
            owner: Owner::host(host),
            node_labels: LabelMap::new(),
            namespace_labels: LabelMap::new(),
            purpose: IpPoolAllowedUse::Workload,
        }
    }
}

/// Why a pool was not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Name of the pool.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// The reason, to follow "pool NAME (CIDR): ".
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.cidr, self.reason)
    }
}

fn mismatch(what: &str, selector: &str, labels: &LabelMap) -> Option<String> {
    if selector.is_empty() {
        return None;
    }
    match Selector::parse(selector) {
        Err(error) => Some(format!("its {what}Selector can't be read: {error}")),
        Ok(parsed) if parsed.matches(labels) => None,
        Ok(_) => {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let have = if labels.is_empty() { "no labels".to_owned() } else { labels.join(", ") };
            Some(format!("its {what}Selector {selector:?} does not match the {what} (which has {have})"))
        }
    }
}

/// Whether the pool's node selector matches.
pub(crate) fn selects_node(pool: &Pool, client: &Client) -> bool {
    client.owner.kind == tortie_facts::OwnerKind::Virtual
        || mismatch("node", &pool.node_selector, &client.node_labels).is_none()
}

fn reason(pool: &Pool, client: &Client, asked_for: bool) -> Option<String> {
    if let Some(reason) = &pool.closed {
        return Some(reason.clone());
    }
    if !pool.holds_blocks() {
        return Some(format!("it is smaller than one of its blocks (blockSize {})", pool.block_size));
    }
    if !pool.uses.contains(&client.purpose) {
        let uses: Vec<&str> = pool.uses.iter().map(|purpose| purpose.as_str()).collect();
        return Some(format!("it is not for {} (allowedUses: {})", client.purpose, uses.join(", ")));
    }
    if asked_for {
        // As upstream: a request by name overrides the selectors.
        return None;
    }
    if pool.manual {
        return Some("its assignmentMode is Manual and the request does not name it".to_owned());
    }
    if !selects_node(pool, client) {
        return mismatch("node", &pool.node_selector, &client.node_labels);
    }
    mismatch("namespace", &pool.namespace_selector, &client.namespace_labels)
}

/// The pools of a family to use, in order of their names or of the request. `requested` names ranges of pools; empty
/// means any that select the client.
pub fn choose(
    settings: &Settings,
    client: &Client,
    family: Family,
    requested: &[IpNet],
) -> Result<Vec<Pool>, IpamError> {
    let known: Vec<&Pool> = settings.pools.iter().filter(|pool| Family::of_net(pool.cidr) == family).collect();
    let mut chosen = Vec::new();
    let mut rejected = Vec::new();
    let mut consider = |pool: &Pool| match reason(pool, client, !requested.is_empty()) {
        None => chosen.push(pool.clone()),
        Some(reason) => rejected.push(Rejected { name: pool.name.clone(), cidr: pool.cidr, reason }),
    };
    for cidr in requested {
        match known.iter().find(|pool| pool.cidr == cidr.trunc()) {
            Some(pool) => consider(pool),
            None => {
                let known = known.iter().map(|pool| format!("{} ({})", pool.name, pool.cidr)).collect();
                return Err(IpamError::UnknownPool { requested: *cidr, known });
            }
        }
    }
    if requested.is_empty() {
        known.into_iter().for_each(consider);
    }
    if chosen.is_empty() {
        return Err(IpamError::NoPool { owner: client.owner.name.clone(), family, rejected });
    }
    Ok(chosen)
}
