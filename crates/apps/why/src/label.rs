//! The labels that selectors see, and the labels that would make one match.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tortie_api::{Metadata, Resource};
use tortie_facts::Key;
use tortie_selector::Selector;

use crate::World;

const NAMESPACE: &str = "projectcalico.org/namespace";
const ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// Who brings an address into sets.
pub(crate) struct Owner {
    pub(crate) title: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Labels by which a person tells this resource from others: those that nobody forces on it.
pub(crate) fn own(metadata: &Metadata) -> BTreeMap<String, String> {
    let free = |key: &str| !key.contains("projectcalico.org/") && !inherited(key);
    metadata.labels.iter().filter(|(key, _)| free(key)).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn inherited(key: &str) -> bool {
    key.starts_with("pcns.") || key.starts_with("pcsa.")
}

/// The labels of a workload, host or network set as selectors see them; `None` for other kinds.
pub(crate) fn effective(world: &World, resource: &Resource) -> Option<BTreeMap<String, String>> {
    let metadata = resource.metadata();
    let genuine = metadata.labels.iter().filter(|(key, _)| !inherited(key));
    let mut labels: BTreeMap<String, String> = genuine.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let mut profiles = Vec::new();
    match resource {
        Resource::WorkloadEndpoint(wep) => {
            let account = &wep.spec.service_account_name;
            if !account.is_empty() {
                labels.insert(ACCOUNT.to_owned(), account.clone());
            }
            labels.insert(NAMESPACE.to_owned(), metadata.namespace.clone());
            profiles.clone_from(&wep.spec.profiles);
        }
        Resource::HostEndpoint(host) => profiles.clone_from(&host.spec.profiles),
        Resource::NetworkSet(_) => {
            labels.insert(NAMESPACE.to_owned(), metadata.namespace.clone());
            profiles.push(format!("kns.{}", metadata.namespace));
        }
        Resource::GlobalNetworkSet(_) => {}
        _ => return None,
    }
    for name in profiles {
        let key = Key::resource(tortie_api::Kind::Profile, "", &name);
        if let Some(Resource::Profile(profile)) = world.resource(&key) {
            for (key, value) in &profile.spec.labels_to_apply {
                labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
    }
    Some(labels)
}

/// Everything whose labels decide which sets the address is in.
pub(crate) fn owners(world: &World, addr: IpAddr) -> Vec<Owner> {
    let covers = |nets: &[tortie_api::IpNetText]| nets.iter().filter_map(|n| n.net()).any(|net| net.contains(&addr));
    let holds = |resource: &&Resource| match resource {
        Resource::WorkloadEndpoint(wep) => covers(&wep.spec.ip_networks),
        Resource::HostEndpoint(host) => covers(&host.spec.expected_ips),
        Resource::NetworkSet(set) => covers(&set.spec.nets),
        Resource::GlobalNetworkSet(set) => covers(&set.spec.nets),
        _ => false,
    };
    let owner = |resource: &Resource| Some(Owner { title: title(resource), labels: effective(world, resource)? });
    world.resources().filter(holds).filter_map(owner).collect()
}

/// Kind and name for people.
pub(crate) fn title(resource: &Resource) -> String {
    let metadata = resource.metadata();
    let kind = resource.kind().name();
    if metadata.namespace.is_empty() {
        format!("{kind} {}", metadata.name)
    } else {
        format!("{kind} {}/{}", metadata.namespace, metadata.name)
    }
}

/// Labels as `a=b,c=d`, without those that everything has.
pub(crate) fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let shown = labels.iter().filter(|(key, _)| *key != "projectcalico.org/orchestrator");
    let all: Vec<String> = shown.map(|(key, value)| format!("{key}={value}")).collect();
    if all.is_empty() { "no labels".to_owned() } else { all.join(",") }
}

/// The own labels to set (`Some`) or remove (`None`) so that the selector matches; `None` if no such few labels are
/// found, or if they are none that may be set.
pub(crate) fn needed(
    selector: &Selector,
    labels: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, Option<String>>> {
    let mut wanted = labels.clone();
    let mut out = BTreeMap::new();
    for (key, demand) in selector.restrictions() {
        let now = labels.get(key);
        let met = match (&demand.one_of, now) {
            (_, None) => !demand.must_be_present && demand.one_of.is_none(),
            (Some(values), Some(now)) => values.contains(&now.as_str()),
            (None, Some(_)) => !demand.must_be_absent,
        };
        if met {
            continue;
        }
        if key.contains("projectcalico.org/") || inherited(key) || !demand.satisfiable() {
            return None;
        }
        let value = if demand.must_be_absent {
            wanted.remove(key);
            None
        } else {
            let value = demand.one_of.and_then(|values| values.first().copied()).unwrap_or("true").to_owned();
            wanted.insert(key.to_owned(), value.clone());
            Some(value)
        };
        out.insert(key.to_owned(), value);
    }
    (!out.is_empty() && selector.matches(&wanted)).then_some(out)
}

/// A selector that these labels meet, by all of them; `None` without labels.
pub(crate) fn selecting(labels: &BTreeMap<String, String>) -> Option<String> {
    let parts: Vec<String> = labels.iter().map(|(key, value)| format!("{key} == '{value}'")).collect();
    (!parts.is_empty()).then(|| parts.join(" && "))
}
